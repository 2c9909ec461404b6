"""The keyspace `embeddings`: sealed vectors, and for each tenant a list of their names.

A value is version, MAC, little-endian float32. The MAC covers the name, too: a value that was copied to
another name is not believed. Members of the list are `<digest of the model's name>:<name>`, by the time in
ms when they were stored, so that a tenant's embeddings can be found by age and model without a scan.
"""

import hmac
from collections.abc import Sequence
from itertools import groupby, islice

from service.cache.digests import MAC_BYTES, DigestKey, TenantKeys
from service.cache.ports import Budget, Clock, NewEmbedding
from service.store.client import Command, RedisClient, outcome
from service.store.keys import Keys
from service.store.records import VERSION
from service.store.responses import RedisResponses
from service.telemetry import RECORDS_REFUSED

KIND = b"embedding\0" + VERSION
"""Before name and vector, under the MAC: nothing else can be taken for one."""
PAGE = 256
"""Values per round trip of a read."""


class RedisEmbeddings:
    """Fulfils `cache.ports.KeptEmbeddings`. No value lives longer than `ttl_ms`, nor its name in the list."""

    def __init__(
        self, redis: RedisClient, keys: Keys, responses: RedisResponses, ttl_ms: int, clock: Clock
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout
        self._ttl_ms = ttl_ms
        self._clock = clock

    async def read(self, keys: TenantKeys, names: Sequence[str], budget: Budget) -> list[bytes | None]:
        """See `cache.ports.KeptEmbeddings`."""
        partition = self._responses.partition(keys)
        found: list[bytes | None] = []
        for at in range(0, len(names), PAGE):
            wanted = [self._keys.embedding(partition, name) for name in names[at : at + PAGE]]
            (reply,) = await self._redis.values([("MGET", *wanted)], budget)
            found += reply
        return found

    def opened(self, sealed: bytes | None, name: str, key: DigestKey) -> bytes | None:
        """See `cache.ports.KeptEmbeddings`."""
        if sealed is None:
            return None
        mac, raw = sealed[1 : 1 + MAC_BYTES], sealed[1 + MAC_BYTES :]
        if sealed[:1] == VERSION and hmac.compare_digest(mac, _mac(raw, name, key)):
            return raw
        RECORDS_REFUSED.labels("form" if sealed[:1] != VERSION else "mac").inc()
        return None

    async def write(self, new: Sequence[NewEmbedding], budget: Budget) -> None:
        """See `cache.ports.KeptEmbeddings`."""
        by_tenant = sorted(new, key=lambda one: one.keys.tenant)
        groups = [list(group) for _, group in groupby(by_tenant, lambda one: one.keys.tenant)]
        transactions = [self._transaction(group) for group in groups]
        replies = iter(await self._redis.run([one for each in transactions for one in each], budget))
        outcomes = [outcome(list(islice(replies, len(transaction)))) for transaction in transactions]
        error = next((one for one in outcomes if one is not None), None)
        if error is not None:
            raise error

    def _transaction(self, group: Sequence[NewEmbedding]) -> list[Command]:
        """One tenant's values and their names in the list, which loses those that have expired."""
        keys, now = group[0].keys, self._clock()
        partition = self._responses.partition(keys)
        listed = self._keys.embeddings(partition, keys.current.tenant)
        values: list[Command] = [
            ("SET", self._keys.embedding(partition, one.name), _sealed(one), "PX", one.ttl_ms)
            for one in group
        ]
        models = {one.model: keys.current.digest("model", one.model.encode()) for one in group}
        members = [part for one in group for part in (now, f"{models[one.model]}:{one.name}")]
        return [
            ("MULTI",),
            *values,
            ("ZADD", listed, *members),
            ("ZREMRANGEBYSCORE", listed, "-inf", now - self._ttl_ms),
            ("PEXPIRE", listed, self._ttl_ms),
            ("EXEC",),
        ]


def _sealed(one: NewEmbedding) -> bytes:
    return VERSION + _mac(one.raw, one.name, one.key) + one.raw


def _mac(raw: bytes, name: str, key: DigestKey) -> bytes:
    return key.mac(KIND + name.encode() + raw)
