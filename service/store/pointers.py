"""Pointers of semantic hits: sealed strings with an end, by the ids of the questions that were asked."""

from collections.abc import Sequence

from service.cache.digests import DigestKey
from service.cache.ports import Budget, NewPointer
from service.model import Pointer
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_pointer, unseal_pointer
from service.store.responses import RedisResponses


class RedisPointers:
    """Fulfils `cache.ports.KeptPointers`. They are read in a lookup's first round trip."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    def opened(self, sealed: bytes, name: str, key: DigestKey) -> Pointer | None:
        """See `cache.ports.KeptPointers`."""
        return unseal_pointer(sealed, name, key)

    async def write(self, new: Sequence[NewPointer], budget: Budget) -> None:
        """See `cache.ports.KeptPointers`."""
        await self._redis.values([self._command(one) for one in new], budget)

    def _command(self, one: NewPointer) -> Command:
        key = self._keys.pointer(self._responses.partition(one.keys), one.name)
        return ("SET", key, seal_pointer(one.pointer, one.keys.current), "PX", one.life_ms)
