"""Last uses of entries, where a policy bounds their number: a sorted set per tenant and agent_type.

Members are entry ids, scores ms since 1970. It stands beside the entries, and may have ids too many (of
entries that expired or were deleted) or too few: how many entries there are, the index says.
"""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import accumulate, islice
from typing import Any, NamedTuple

from service.cache.digests import TenantKeys
from service.cache.ports import Budget
from service.cache.usage import Use
from service.errors import StoreUnavailableError
from service.model import Generation
from service.store.client import Command, RedisClient, outcome
from service.store.diagnosis import pairs
from service.store.keys import Keys, entry_id_of
from service.store.responses import RedisResponses

PAGE = 1000  # some milliseconds of Redis's time
TTL_MS = 8 * 86_400_000
"""The set's, from each write on; where it is gone, it is made again from the index."""
PATIENCE_S = 5.0
"""Nobody waits for it: it may take longer than a request's commands."""
IDLE_MS = 10_000  # after which Redis forgets a cursor that we left behind


class Counted(NamedTuple):
    """Ids in the set, and entries in the index."""

    members: int
    entries: int


class Evicted(NamedTuple):
    """What a step did: ids that left the set, and how many of them were entries."""

    before: Counted
    members: int
    entries: int


class RedisUsage:
    """Reads and writes the sets, and evicts."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows layout and generation

    async def write(self, keys: TenantKeys, agent_type: str, uses: Mapping[str, Use]) -> int:
        """Write uses; how many ids there are then. A hit brings no entry back that went meanwhile.

        Raises:
            StoreUnavailableError: Redis did not answer, or has no room; it may be repeated.
        """
        name = self._name(keys, agent_type)
        pages = [[*_marks(name, page), ("PEXPIRE", name, TTL_MS)] for page in _pages(uses.items())]
        members = 0
        for page in pages or [[]]:
            *_, members = await self._run([*page, ("ZCARD", name)])
        return members

    async def count(self, keys: TenantKeys, agent_type: str) -> Counted:
        """Ids and entries.

        Raises:
            StoreUnavailableError: Redis did not answer.
        """
        name = self._name(keys, agent_type)
        members, (entries,) = await self._run([("ZCARD", name), self._count(keys, agent_type)])
        return Counted(members, entries)

    async def evict(self, keys: TenantKeys, agent_type: str, bound: int, most: int) -> Evicted:
        """Evict the least recently used beyond a bound, and forget ids among them that have no entry.

        Entries are counted after the ids were read: what another process evicts meanwhile isn't evicted again
        in other entries' place. Entry and id go in one transaction, so that none is left which nobody counts.

        Args:
            keys: the tenant's.
            agent_type: whose entries.
            bound: how many may stay.
            most: how many ids go at most.

        Raises:
            StoreUnavailableError: Redis did not answer; what was evicted stays so, the rest is still counted.
        """
        name, (generation, partition) = self._name(keys, agent_type), self._where(keys)
        count = self._count(keys, agent_type)
        members, ids, (entries,) = await self._run([("ZCARD", name), ("ZRANGE", name, 0, most - 1), count])
        if entries <= bound or not ids:
            return Evicted(Counted(members, entries), 0, 0)
        oldest = [one.decode("ascii", "replace") for one in ids]
        documents = [self._keys.document(partition, generation, one) for one in oldest]
        there = [1] * len(ids)
        if members > entries:  # some have no entry
            *there, (entries,) = await self._run([*(("EXISTS", one) for one in documents), count])
        before = Counted(members, entries)
        going = bisect_left(list(accumulate(there)), entries - bound) + 1
        spaces = self._responses.spaces
        gone = [name for one in oldest[:going] for name in spaces.documents(partition, generation, one)]
        gone += [self._keys.record(partition, one) for one in oldest[:going]]
        await self._transact(("UNLINK", *gone), ("ZREM", name, *ids[:going]))
        return Evicted(before, len(ids[:going]), sum(there[:going]))

    async def seed(self, keys: TenantKeys, agent_type: str) -> None:
        """Add the entries of the index that aren't in the set, as used when they were stored.

        Raises:
            StoreUnavailableError: Redis did not answer; it may be repeated.
        """
        name = self._name(keys, agent_type)
        async with aclosing(self._stored(keys, agent_type)) as pages:
            async for rows in pages:
                marks = [part for row in rows for part in (row["stored_at"], entry_id_of(row["__key"]))]
                if marks:
                    await self._run([("ZADD", name, "NX", *marks), ("PEXPIRE", name, TTL_MS)])

    async def sweep(self, keys: TenantKeys, agent_type: str, dead: int) -> int:
        """Forget ids without a document, the oldest first, until so many were found; how many were.

        Raises:
            StoreUnavailableError: Redis did not answer; it may be repeated.
        """
        name, (generation, partition) = self._name(keys, agent_type), self._where(keys)
        at = found = 0
        while found < dead:
            (ids,) = await self._run([("ZRANGE", name, at, at + PAGE - 1)])
            if not ids:
                break
            known = [one.decode("ascii", "replace") for one in ids]
            there = await self._run(
                [("EXISTS", self._keys.document(partition, generation, one)) for one in known]
            )
            gone = [one for one, exists in zip(ids, there, strict=True) if not exists]
            if gone:
                await self._run([("ZREM", name, *gone)])
            found += len(gone)
            at += len(ids) - len(gone)
        return found

    async def _stored(self, keys: TenantKeys, agent_type: str) -> AsyncGenerator[list[dict[str, Any]]]:
        """Keys of the index' documents, and when they were stored, in pages."""
        index, load = self._index(keys), ("LOAD", 2, "@__key", "@stored_at")
        cursor = ("WITHCURSOR", "COUNT", PAGE, "MAXIDLE", IDLE_MS)
        query = ("FT.AGGREGATE", index, *_filter(keys, agent_type), *load, *cursor, "DIALECT", 2)
        page, at = await self._redis.call(*query, timeout_s=PATIENCE_S)
        try:
            yield _rows(page)
            while at:
                read = ("FT.CURSOR", "READ", index, at, "COUNT", PAGE)
                page, at = await self._redis.call(*read, timeout_s=PATIENCE_S)
                yield _rows(page)
        finally:
            if at:
                with suppress(StoreUnavailableError):
                    await self._redis.call("FT.CURSOR", "DEL", index, at)

    def _count(self, keys: TenantKeys, agent_type: str) -> Command:
        return ("FT.SEARCH", self._index(keys), *_filter(keys, agent_type), "LIMIT", 0, 0, "DIALECT", 2)

    def _name(self, keys: TenantKeys, agent_type: str) -> str:
        tenant, digest = identities(keys, agent_type)[0]
        return self._keys.used(self._responses.partition(keys), tenant, digest)

    def _index(self, keys: TenantKeys) -> str:
        generation, partition = self._where(keys)
        return self._keys.index(partition, generation)

    def _where(self, keys: TenantKeys) -> tuple[Generation, int]:
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return generation, self._responses.partition(keys)

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        """Replies, none of them an error."""
        return await self._redis.values(commands, Budget(PATIENCE_S))

    async def _transact(self, *commands: Command) -> None:
        error = outcome(await self._redis.run([("MULTI",), *commands, ("EXEC",)], Budget(PATIENCE_S)))
        if error is not None:
            raise error


def identities(keys: TenantKeys, agent_type: str) -> list[tuple[str, str]]:
    """Digests of tenant and agent_type in index documents: the current secret's, then the previous one's."""
    return [(key.tenant, key.digest("agent_type", agent_type.encode())) for key in keys.keys]


def _filter(keys: TenantKeys, agent_type: str) -> tuple[str | int, ...]:
    """A query for all documents of an agent_type, with its parameters."""
    found = identities(keys, agent_type)
    params: dict[str, str] = {}
    for at, (tenant, digest) in enumerate(found):
        params |= {f"tenant{at}": tenant, f"agent_type{at}": digest}
    numbers = range(len(found))
    clauses = [f"@{tag}:{{{'|'.join(f'${tag}{at}' for at in numbers)}}}" for tag in ("tenant", "agent_type")]
    named = [part for pair in params.items() for part in pair]
    return (" ".join(clauses), "PARAMS", len(named), *named)


def _marks(name: str, uses: Sequence[tuple[str, Use]]) -> Iterator[Command]:
    """Of hits, only for ids that are there; an earlier use never takes the place of a later one."""
    for stored, how in ((False, ("XX", "GT")), (True, ("GT",))):
        found = [part for entry_id, use in uses if use.stored is stored for part in (use.at, entry_id)]
        if found:
            yield ("ZADD", name, *how, *found)


def _pages(uses: Any) -> Iterator[list[tuple[str, Use]]]:
    items = iter(uses)
    while page := list(islice(items, PAGE)):
        yield page


def _rows(page: Sequence[Any]) -> list[dict[str, Any]]:
    """Without the count before them, and without documents that expired meanwhile, which have no fields."""
    return [row for row in map(pairs, page[1:]) if row.keys() >= {"__key", "stored_at"}]
