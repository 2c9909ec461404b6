"""Hits that wait for somebody's verdict: sampled, the least certain first."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from service.cache.decided import Review
from service.cache.digests import DigestKey, TenantKeys
from service.cache.learning.strata import STRATA
from service.cache.ports import Budget
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses

ANYWHERE = 0.5
"""Share of the hits that stand in the queue by chance alone."""
MOST = 2000
"""Hits of a tenant that wait: beyond it the most certain go."""
KEPT_MS = 30 * 86_400_000
TRIP_S = 2.0
PAGE = 500


class Waiting(NamedTuple):
    """A review and where it stands."""

    review: Review
    rank: float


class RedisReviews:
    """The queue."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, most: int = MOST) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._most = most

    async def put(self, keys: TenantKeys, some: Sequence[Review]) -> None:
        """Queue them; within a stratum in no order, so that whoever judges the first ones judges by chance.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        if not some:
            return
        partition, key = self._responses.partition(keys), keys.current
        queue, commands = self._keys.reviews(partition, key.tenant), list[Command]()
        for one in some:
            item = self._keys.review(partition, key.tenant, one.id)
            rank = _rank(one)
            commands.append(("SET", item, _sealed(one, key), "PX", KEPT_MS))
            commands.append(("ZADD", queue, "NX", rank, one.id))
        commands.append(("ZREMRANGEBYRANK", queue, self._most, -1))
        commands.append(("PEXPIRE", queue, KEPT_MS))
        await self._redis.values(commands, Budget(TRIP_S))

    async def pending(
        self, keys: TenantKeys, limit: int, agent_type: str | None = None, after: float = -1.0
    ) -> list[Waiting]:
        """What waits, the least certain first, behind the rank `after`.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        found: list[Waiting] = []
        partition, key = self._responses.partition(keys), keys.current
        queue = self._keys.reviews(partition, key.tenant)
        while len(found) < limit:
            page: Command = (
                "ZRANGE",
                queue,
                f"({after!r}",
                "+inf",
                "BYSCORE",
                "LIMIT",
                0,
                limit,
                "WITHSCORES",
            )
            flat = await self._redis.call(*page, timeout_s=TRIP_S)
            if not flat:
                break
            ids = [one.decode("ascii", "replace") for one in flat[::2]]
            ranks = [float(one) for one in flat[1::2]]
            names = [self._keys.review(partition, key.tenant, one) for one in ids]
            blobs = await self._redis.call("MGET", *names, timeout_s=TRIP_S)
            gone = [one for one, blob in zip(ids, blobs, strict=True) if blob is None]
            if gone:
                await self._redis.call("ZREM", queue, *gone)
            for one, blob, rank in zip(ids, blobs, ranks, strict=True):
                review = None if blob is None else _unsealed(blob, one, key)
                if review is not None and agent_type in {None, review.agent_type}:
                    found.append(Waiting(review, rank))
            after = ranks[-1]
        return found[:limit]

    async def one(self, keys: TenantKeys, lookup_id: str) -> Review | None:
        """A review by its id, pending or judged already.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition, key = self._responses.partition(keys), keys.current
        blob = await self._redis.call("GET", self._keys.review(partition, key.tenant, lookup_id))
        return None if blob is None else _unsealed(blob, lookup_id, key)

    async def done(self, keys: TenantKeys, lookup_id: str) -> None:
        """It waits no longer.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition, key = self._responses.partition(keys), keys.current
        await self._redis.call("ZREM", self._keys.reviews(partition, key.tenant), lookup_id)

    async def clear(self, keys: TenantKeys) -> None:
        """All that waits, with its texts.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition, key = self._responses.partition(keys), keys.current
        queue = self._keys.reviews(partition, key.tenant)
        while ids := await self._redis.call("ZRANGE", queue, 0, PAGE - 1):
            names = [self._keys.review(partition, key.tenant, one.decode("ascii", "replace")) for one in ids]
            await self._redis.call("UNLINK", *names)
            await self._redis.call("ZREM", queue, *ids)

    async def count(self, keys: TenantKeys) -> int:
        """How many wait.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        queue = self._keys.reviews(self._responses.partition(keys), keys.current.tenant)
        return int(await self._redis.call("ZCARD", queue))


def _rank(one: Review) -> float:
    """Complaints, then the least certain; half of the hits stand anywhere: it says more of the sure ones."""
    chance, anywhere = random.random(), random.random() < ANYWHERE  # noqa: S311 - no secret
    if one.note is not None:
        return chance - 1
    return STRATA * chance if anywhere else one.decided.stratum + chance


def _sealed(one: Review, key: DigestKey) -> bytes:
    return seal_text(msgspec.json.encode(one).decode(), f"review {one.id}", key)


def _unsealed(blob: bytes, lookup_id: str, key: DigestKey) -> Review | None:
    text = unseal_text(blob, f"review {lookup_id}", key)
    try:
        return None if text is None else msgspec.json.decode(text, type=Review)
    except msgspec.DecodeError:  # of another version
        return None
