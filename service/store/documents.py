"""The index documents of a space, page by page: what a migration reads, copies and removes."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from service.cache.ports import Budget
from service.model import Generation
from service.store.client import Command, RedisClient, value_of
from service.store.diagnosis import pairs
from service.store.functions import COPY, FORGET, SWEEP
from service.store.keys import Keys, entry_id_of
from service.store.live import MovedError

PAGE = 500
"""Keys of the whole Redis that are looked at for one page: 0.2 ms."""
READ_S = 5.0
AT_ONCE = 4
"""Documents that are written in one go: inserting a vector takes Redis 0.5 ms."""
GONE_AT_ONCE = 50


class Document(NamedTuple):
    """An index document as it is kept; `fields` with the vector's bytes, if it has one."""

    entry_id: str
    fields: dict[str, Any]

    @property
    def stored_at(self) -> bytes:
        """When, in ms since 1970, as digits."""
        found: bytes = self.fields["stored_at"]
        return found


class Lacking(NamedTuple):
    """Ids of entries."""

    documents: list[str]  # whose document is missing, or older
    vectors: list[str]  # whose document is there, without the vector


class Documents:
    """Of one partition; `live` is what it says of the live generations, to the byte."""

    def __init__(self, redis: RedisClient, keys: Keys, partition: int, live: bytes) -> None:
        self._redis = redis
        self._keys = keys
        self._partition = partition
        self._live = live

    async def ids(self, generation: Generation) -> AsyncIterator[list[str]]:
        """Ids of a space's documents, in pages, some perhaps twice; all that are there from begin to end.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        prefix, cursor = self._keys.documents(self._partition, generation), b"0"
        escaped = "".join(f"\\{one}" if one in "*?[]\\^-" else one for one in prefix)
        while True:
            cursor, found = await self._call("SCAN", cursor, "MATCH", f"{escaped}*", "COUNT", PAGE)
            yield list(dict.fromkeys(entry_id_of(key) for key in found))
            if cursor == b"0":
                return

    async def lacking(self, ids: Sequence[str], before: Generation, after: Generation) -> Lacking:
        """What `after` lacks of what is in `before`."""
        sides = ((one, side) for one in ids for side in (before, after))
        commands: list[Command] = []
        for one, side in sides:
            key = self._keys.document(self._partition, side, one)
            commands += [("HGET", key, "stored_at"), ("HEXISTS", key, "vector")]
        told = await self._values(commands)
        rows = list(zip(ids, told[::4], told[1::4], told[2::4], told[3::4], strict=True))
        return Lacking(
            [one for one, at, _, there, _ in rows if at is not None and _is_older(there, at)],
            [one for one, at, has, there, got in rows if at is not None and at == there and has > got],
        )

    async def read(self, ids: Sequence[str], generation: Generation) -> list[Document]:
        """Those that are there."""
        told = await self._values([("HGETALL", self._key(generation, one)) for one in ids])
        found = [Document(one, pairs(flat)) for one, flat in zip(ids, told, strict=True)]
        return [one for one in found if "stored_at" in one.fields]

    async def records(self, ids: Sequence[str]) -> list[bytes | None]:
        """The entries' records, sealed."""
        if not ids:
            return []
        (found,) = await self._values([("MGET", *(self._keys.record(self._partition, one) for one in ids))])
        blobs: list[bytes | None] = found
        return blobs

    async def copy(self, some: Sequence[Document], before: Generation, after: Generation) -> int:
        """Write documents of `after`, as long as those of `before` are as they were; how many were written.

        Raises:
            MovedError: another migrator is at work.
            StoreUnavailableError: Redis does not answer, or is full.
        """
        replies = await self._values([self._copied(one, before, after) for one in some])
        return _unmoved(replies).count(b"copied")

    async def sweep(self, ids: Sequence[str], before: Generation, after: Generation) -> int:
        """Remove documents of `after` whose entry is gone from `before`; how many.

        Raises:
            MovedError: another migrator is at work.
            StoreUnavailableError: Redis does not answer.
        """
        commands: list[Command] = [
            ("FCALL", SWEEP, 3, self._lived, self._key(before, one), self._key(after, one), self._live)
            for one in ids
        ]
        return sum(_unmoved(await self._values(commands)))

    async def forget(self, ids: Sequence[str], generation: Generation) -> int:
        """Remove documents; how many.

        Raises:
            MovedError: another migrator is at work.
            StoreUnavailableError: Redis does not answer.
        """
        found = 0
        for at in range(0, len(ids), GONE_AT_ONCE):
            names = [self._key(generation, one) for one in ids[at : at + GONE_AT_ONCE]]
            command: Command = ("FCALL", FORGET, 1 + len(names), self._lived, *names, self._live)
            found += sum(_unmoved(await self._values([command])))
        return found

    @property
    def _lived(self) -> str:
        return self._keys.live(self._partition)

    def _key(self, generation: Generation, entry_id: str) -> str:
        return self._keys.document(self._partition, generation, entry_id)

    def _copied(self, one: Document, before: Generation, after: Generation) -> Command:
        queue = self._keys.pending(self._partition, after)
        names = (self._lived, self._key(before, one.entry_id), self._key(after, one.entry_id), queue)
        fields = [part for name, value in one.fields.items() for part in (name, value)]
        has = int("vector" in one.fields)
        return ("FCALL", COPY, len(names), *names, self._live, one.stored_at, one.entry_id, has, *fields)

    async def _call(self, *command: str | bytes | float) -> Any:
        (reply,) = await self._values([command])
        return reply

    async def _values(self, commands: Sequence[Command]) -> list[Any]:
        return [value_of(one) for one in await self._redis.run(commands, Budget(READ_S))]


def _is_older(there: bytes | None, at: bytes) -> bool:
    return there is None or int(there) < int(at)


def _unmoved(replies: list[Any]) -> list[Any]:
    if b"moved" in replies:
        raise MovedError
    return replies
