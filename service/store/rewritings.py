"""Rewritten messages, kept for a day: sealed like records, under digests of their conversations."""

from collections.abc import Mapping, Sequence

from service.cache.digests import TenantKeys
from service.cache.ports import Budget
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses

TTL_S = 86_400


class RedisRewritings:
    """Fulfils `cache.ports.Rewritings`."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    async def read(self, keys: TenantKeys, names: Sequence[str], budget: Budget) -> list[str | None]:
        """See `cache.ports.Rewritings`."""
        replies = await self._redis.run([("GET", self._key(keys, name)) for name in names], budget)
        return [
            unseal_text(reply, name, keys.current) if isinstance(reply, bytes) else None
            for name, reply in zip(names, replies, strict=True)
        ]

    async def write(self, keys: TenantKeys, texts: Mapping[str, str], budget: Budget) -> None:
        """See `cache.ports.Rewritings`."""
        commands: list[Command] = [
            ("SET", self._key(keys, name), seal_text(text, name, keys.current), "EX", TTL_S)
            for name, text in texts.items()
        ]
        await self._redis.run(commands, budget)

    def _key(self, keys: TenantKeys, name: str) -> str:
        return self._keys.rewriting(self._responses.partition(keys), name)
