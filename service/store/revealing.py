"""Lets an entry be found by others: its documents get the vector that was kept back when it was stored."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from service.cache.canonical import Vector
from service.cache.decided import answer_of
from service.cache.digests import TenantKeys
from service.cache.invalidation import Newer, subject_of
from service.cache.ports import Budget
from service.cache.tickets import Ticket
from service.errors import StoreUnavailableError
from service.model import Generation, Record
from service.store.client import Command, RedisClient, outcome, value_of
from service.store.diagnosis import pairs
from service.store.keys import Keys
from service.store.records import unseal
from service.store.responses import CHANGES, RedisResponses, checked_bytes, is_whole


class _Document(NamedTuple):
    generation: Generation
    key: str
    fields: dict[str, Any]


class Revealing:
    """Never writes a record, so nothing that went or was replaced comes back.

    Documents are read, and written whole as they were. Whoever stores or removes the entry in between leaves
    a document of ours beside his record, or none: a record is served by its own document only, so that costs
    a hit at most.
    """

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses

    async def reveal(
        self, keys: TenantKeys, record: Record, vector: Vector, lookup: Ticket, budget: Budget
    ) -> bool:
        """Whether others may be served it now; not where it is another by now, or was invalidated since.

        Args:
            keys: the tenant's.
            record: as it was stored.
            vector: of norm 1.
            lookup: the one that it followed.
            budget: for Redis.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room: try again.
        """
        partition, spaces = self._responses.partition(keys), self._responses.spaces
        for _ in range(CHANGES):
            used = spaces.told(partition)
            done = await self._revealed(keys, record, vector, lookup, budget)
            if spaces.told(partition) == used:
                return done
        raise StoreUnavailableError("the live generations change all the time")

    async def _revealed(
        self, keys: TenantKeys, record: Record, vector: Vector, lookup: Ticket, budget: Budget
    ) -> bool:
        partition = self._responses.partition(keys)
        since = self._responses.invalidations.since_commands(keys, lookup)
        ours, others, newer = await self._whole(keys, record, since, budget)
        if not ours or newer.refuses(subject_of(record, vector), lookup):
            return False
        steps = [_written(one, checked_bytes(vector, record.scope, one.generation), record) for one in ours]
        marked: Command = ("EXISTS", self._keys.quarantine(partition, record.entry_id))
        behind = [self._read(partition, record), marked, *(("HGET", one.key, "stored_at") for one in ours)]
        commands = [*(command for step in steps for command in step), *behind, *since]
        *told, said = await self._redis.run([*commands, self._responses.spaces.asked(partition)], budget)
        self._responses.spaces.hear(partition, said)
        replies = iter(told)
        failed = [outcome(list(islice(replies, len(step)))) for step in steps]
        if error := next((one for one in failed if one is not None), None):
            raise error
        (blob,), quarantined = value_of(next(replies)), value_of(next(replies))
        times = [value_of(one) for one in islice(replies, len(ours))]
        newer = self._responses.invalidations.newer(keys, list(replies))
        if not _same(blob, record, keys):  # what we wrote belongs to nobody
            mine = [one for one, at in zip(ours, times, strict=True) if is_whole(record.stored_at, at)]
            await self._redis.values([("UNLINK", one.key) for one in mine], budget)
            return False
        if quarantined or newer.refuses(subject_of(record, vector), lookup):
            await self._redis.values([("HDEL", one.key, "vector") for one in ours], budget)
            return False
        queues = [self._keys.pending(partition, one.generation) for one in others]
        waits: list[Command] = [("ZADD", one, record.stored_at, record.entry_id) for one in queues]
        await self._redis.values(waits, budget)  # of another model, which makes it
        return True

    async def _whole(
        self, keys: TenantKeys, record: Record, since: Sequence[Command], budget: Budget
    ) -> tuple[list[_Document], list[_Document], Newer]:
        """The record's own documents: where this vector fits, and of other models; none if it is another.

        And what was invalidated.
        """
        partition = self._responses.partition(keys)
        live = self._live(partition)
        names = [self._keys.document(partition, one, record.entry_id) for one in live]
        asked = [self._read(partition, record), *(("HGETALL", one) for one in names)]
        replies = await self._redis.run([*asked, *since], budget)
        (blob,), *flat = [value_of(one) for one in replies[: len(asked)]]
        newer = self._responses.invalidations.newer(keys, replies[len(asked) :])
        if not _same(blob, record, keys):
            return [], [], newer
        some = [_Document(*one) for one in zip(live, names, map(pairs, flat), strict=True)]
        whole = [one for one in some if is_whole(record.stored_at, one.fields.get("stored_at"))]
        ours = [one for one in whole if one.generation.embedding == live[0].embedding]
        return ours, [one for one in whole if one not in ours], newer

    def _read(self, partition: int, record: Record) -> Command:
        return ("MGET", self._keys.record(partition, record.entry_id))

    def _live(self, partition: int) -> list[Generation]:
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return self._responses.spaces.of(partition, generation)


def _same(blob: bytes | None, record: Record, keys: TenantKeys) -> bool:
    """Whether the record is still the one that was stored."""
    there = unseal(blob, record.entry_id, keys)
    return there is not None and (there.stored_at, answer_of(there)) == (record.stored_at, answer_of(record))


def _written(one: _Document, vector: bytes, record: Record) -> list[Command]:
    """A document with its vector, in one transaction with its end."""
    fields = [part for pair in (one.fields | {"vector": vector}).items() for part in pair]
    end: list[Command] = [] if record.expires_at is None else [("PEXPIREAT", one.key, record.expires_at)]
    return [("MULTI",), ("HSET", one.key, *fields), *end, ("EXEC",)]
