"""Entries as their owner reads them: one by its id, or the newest first."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from service.cache.digests import TenantKeys
from service.cache.invalidation import Predicate
from service.cache.ports import Budget, Clock
from service.errors import StoreUnavailableError
from service.model import Record
from service.store.client import Command, IndexMissingError, RedisClient
from service.store.finding import tag_query
from service.store.keys import Keys, entry_id_of
from service.store.responses import RedisResponses

WINDOWS_MS = (60_000, 3_600_000, 86_400_000, None)
"""How far back a page looks: sorting takes 0.4 ms per 1,000 entries, however few are wanted."""
TIES = 2000
TIMEOUT_MS = 1000
READ_S = 2.0


class Place(NamedTuple):
    """Where an entry stands in the list; greater is newer."""

    stored_at: int  # ms since 1970
    entry_id: str


class Entries:
    """Reads entries and changes nothing."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, clock: Clock) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._clock = clock

    async def one(self, keys: TenantKeys, entry_id: str) -> Record | None:
        """The tenant's entry of that id, if it lives.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return (await self._live(keys, [entry_id]))[0]

    async def newest(
        self, keys: TenantKeys, wanted: Predicate, limit: int, after: Place | None
    ) -> tuple[list[Record], Place | None]:
        """Entries with the tags of `wanted`, newest first, and behind which place the next ones come.

        Entries that vanish meanwhile are left out.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        try:
            places = await self._places(keys, wanted, limit, after)
        except IndexMissingError:  # a migration dropped it
            await self._responses.refresh()
            places = await self._places(keys, wanted, limit, after)
        records = await self._live(keys, [one.entry_id for one in places[:limit]])
        following = places[limit - 1] if len(places) > limit else None
        return [record for record in records if record is not None], following

    async def _live(self, keys: TenantKeys, entry_ids: Sequence[str]) -> list[Record | None]:
        now = self._clock()
        records = await self._responses.records(keys, entry_ids, Budget(READ_S))
        return [one if one and (one.expires_at is None or one.expires_at > now) else None for one in records]

    async def _places(
        self, keys: TenantKeys, wanted: Predicate, limit: int, after: Place | None
    ) -> list[Place]:
        """`limit` places and one more where there are more."""
        found: list[Place] = []
        bound: float = math.inf
        if after is not None:
            bound = after.stored_at
            found = [one for one in await self._at(keys, wanted, after.stored_at) if one < after]
        for width in WINDOWS_MS:
            if len(found) > limit:
                break
            low = -math.inf if width is None else min(bound, self._clock()) - width
            older = await self._search(keys, wanted, f"[{_number(low)} ({_number(bound)}]", limit + 1)
            if width is None or len(older) > limit:
                return sorted([*found, *await self._whole(keys, wanted, older)], reverse=True)[: limit + 1]
        return sorted(found, reverse=True)[: limit + 1]

    async def _whole(self, keys: TenantKeys, wanted: Predicate, places: list[Place]) -> list[Place]:
        """The same with all that share the last one's time: of those the search left some out at random."""
        if not places:
            return []
        last = places[-1].stored_at
        ties = await self._at(keys, wanted, last)
        return [one for one in places if one.stored_at > last] + ties

    async def _at(self, keys: TenantKeys, wanted: Predicate, stored_at: int) -> list[Place]:
        return await self._search(keys, wanted, f"[{stored_at} {stored_at}]", TIES)

    async def _search(self, keys: TenantKeys, wanted: Predicate, times: str, limit: int) -> list[Place]:
        """Places of entries that live, newest first."""
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        index = self._keys.index(self._responses.partition(keys), generation)
        query, params = tag_query(keys, wanted)
        query += f" @stored_at:{times} @expires_at:[({self._clock()} inf]"
        command: Command = ("FT.SEARCH", index, query, "PARAMS", len(params), *params)
        command += ("SORTBY", "stored_at", "DESC", "RETURN", 1, "stored_at", "LIMIT", 0, limit)
        command += ("TIMEOUT", TIMEOUT_MS, "DIALECT", 2)
        (reply,) = await self._redis.values([command], Budget(READ_S))
        return [
            Place(int(float(fields[1])), entry_id_of(key))
            for key, fields in zip(reply[1::2], reply[2::2], strict=True)
            if fields
        ]


def _number(value: float) -> str:
    """As a range of RediSearch has it."""
    return str(int(value)) if math.isfinite(value) else "inf" if value > 0 else "-inf"
