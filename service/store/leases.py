"""Leases: strings with an end."""

from collections.abc import Sequence

from service.cache.digests import TenantKeys
from service.store.client import RedisClient, value_of
from service.store.keys import Keys
from service.store.responses import RedisResponses

TAKING = "write"
"""The lane on which leases are taken."""
REFUSED = b"-"
REFUSED_MS = 2000
"""How long nobody waits for what was refused."""


class RedisLeases:
    """Fulfils `cache.ports.LeaseBook`."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    async def take(self, keys: TenantKeys, name: str, token: str, life_ms: int) -> bool:
        """See `cache.ports.LeaseBook`."""
        return await self._redis.call("SET", self._key(keys, name), token, "NX", "PX", life_ms) is not None

    async def held(self, names: Sequence[tuple[TenantKeys, str]]) -> list[bool | None]:
        """See `cache.ports.LeaseBook`."""
        replies = await self._redis.values([("GET", self._key(keys, name)) for keys, name in names])
        return [None if reply is None else reply != REFUSED for reply in replies]

    async def release(self, keys: TenantKeys, name: str, token: str, *, refused: bool) -> None:
        """See `cache.ports.LeaseBook`.

        Between the two commands another may have taken it: then two lead, which costs one answer more.
        """
        key = self._key(keys, name)
        # Who was cancelled while he took it doesn't know whether he has it: the question must not overtake.
        (holder,) = await self._redis.run([("GET", key)], lane=TAKING)
        if value_of(holder) != token.encode():
            return
        if refused:
            await self._redis.call("SET", key, REFUSED, "XX", "PX", REFUSED_MS)
        else:
            await self._redis.call("DEL", key)

    def _key(self, keys: TenantKeys, name: str) -> str:
        return self._keys.lease(self._responses.partition(keys), name)
