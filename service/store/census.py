"""Counts entries and scopes per tenant by paging through the index: digests only, no texts."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from service.errors import StoreUnavailableError
from service.store.client import RedisClient
from service.store.diagnosis import ask, pairs, text
from service.store.keys import Keys, entry_id_of

PAGE = 1000  # some milliseconds of Redis's time
IDLE_MS = 10_000  # after which Redis forgets a cursor that we left behind
TIMEOUT_MS = 2000
_FIELDS = {"__key", "tenant", "scope"}


class Census:
    """What was counted so far."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = defaultdict(int)
        """By the tenant's digest."""
        self.scopes: dict[str, set[str]] = defaultdict(set)
        self.total = 0

    async def take(self, redis: RedisClient, index: str, limit: int) -> list[bytes]:
        """Count an index, until `limit` documents have been seen in all; keys of the first page."""
        sample: list[bytes] = []
        async with aclosing(_pages(redis, index)) as pages:
            async for page in pages:
                rows = [row for row in map(pairs, page) if row.keys() >= _FIELDS]  # one that expired has none
                sample = sample or [row["__key"] for row in rows]
                self._count(rows)
                self.total += len(page)
                if self.total >= limit:
                    break
        return sample

    def _count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            tenant = text(row["tenant"])
            self.entries[tenant] += 1
            self.scopes[tenant].add(text(row["scope"]))


async def without_record(redis: RedisClient, keys: Keys, partition: int, documents: Sequence[bytes]) -> int:
    """How many documents' records are gone."""
    replies = await redis.run([("EXISTS", keys.record(partition, entry_id_of(one))) for one in documents])
    return sum(reply == 0 for reply in replies)


async def _pages(redis: RedisClient, index: str) -> AsyncGenerator[Sequence[Any]]:
    load = ("LOAD", 3, "@__key", "@tenant", "@scope")
    cursor = ("WITHCURSOR", "COUNT", PAGE, "MAXIDLE", IDLE_MS)
    query = (index, "*", *load, *cursor, "TIMEOUT", TIMEOUT_MS, "DIALECT", 2)
    page, at = await ask(redis, "FT.AGGREGATE", *query)
    try:
        yield page[1:]  # before them, how many
        while at:
            page, at = await ask(redis, "FT.CURSOR", "READ", index, at, "COUNT", PAGE)
            yield page[1:]
    finally:
        if at:
            with suppress(StoreUnavailableError):
                await ask(redis, "FT.CURSOR", "DEL", index, at)
