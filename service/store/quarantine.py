"""Entries that were wrong for another question than their own: stored anew, they answer their own words only.

A hash per entry says whose verdicts on which lookups keep it so; it goes with the last of them, or after
`QUARANTINE_MS`.
"""

from collections.abc import Sequence

from service.cache.digests import TenantKeys
from service.cache.outcomes import Source
from service.cache.ports import Budget, Clock
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.responses import RedisResponses

QUARANTINE_MS = 30 * 86_400_000
SLACK_MS = 86_400_000
"""An entry stays in the list a little longer than it must: processes' clocks differ."""
TRIP_S = 2.0
PAGE = 500


class RedisQuarantine:
    """Sets the marks that a store reads, and lifts them."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, clock: Clock) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._clock = clock

    async def mark(self, keys: TenantKeys, entry_id: str, lookup_id: str, source: Source) -> None:
        """Somebody said that it was wrong for the lookup's question.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        partition, now = self._responses.partition(keys), self._clock()
        mark = self._keys.quarantine(partition, entry_id)
        listed = self._keys.quarantined(partition, keys.current.tenant)
        commands: list[Command] = [
            ("MULTI",),
            ("HSET", mark, _verdict(lookup_id, source), now),
            ("PEXPIRE", mark, QUARANTINE_MS),
            ("ZADD", listed, now + QUARANTINE_MS, entry_id),
            ("ZREMRANGEBYSCORE", listed, "-inf", now - SLACK_MS),
            ("PEXPIRE", listed, QUARANTINE_MS),
            ("EXEC",),
        ]
        await self._redis.values(commands, Budget(TRIP_S))

    async def lift(self, keys: TenantKeys, entry_id: str, lookup_id: str, sources: Sequence[Source]) -> None:
        """They take back what they said of that lookup; what was said of others stays.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        mark = self._keys.quarantine(self._responses.partition(keys), entry_id)
        await self._redis.call("HDEL", mark, *(_verdict(lookup_id, source) for source in sources))

    async def clear(self, keys: TenantKeys) -> None:
        """All marks of a tenant.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition = self._responses.partition(keys)
        for listed in (self._keys.quarantined(partition, key.tenant) for key in keys.keys):
            while ids := await self._redis.call("ZRANGE", listed, 0, PAGE - 1):
                marks = [self._keys.quarantine(partition, one.decode("ascii", "replace")) for one in ids]
                await self._redis.call("UNLINK", *marks)
                await self._redis.call("ZREM", listed, *ids)


def _verdict(lookup_id: str, source: Source) -> str:
    return f"{lookup_id}:{source}"
