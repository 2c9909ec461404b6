"""The texts that wait to be judged: bounded, and read under each secret."""

from dataclasses import replace

import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.decided import Decided, Review
from service.cache.digests import TenantKeys
from service.cache.tickets import issued
from service.settings import Settings
from service.store.reviews import RedisReviews
from service.wiring import Loaded, Parts, now_ms, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


def review(agent_type: str = "a", stratum: int = 0, note: str | None = None) -> Review:
    one = Decided(bytes.fromhex(issued(1, now_ms())), 1, entry_id=bytes(16), stratum=stratum)
    return Review(agent_type=agent_type, decided=one, asked="q", stored="Q", response='"r"', note=note)


async def test_what_is_trimmed_leaves_no_text(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str
) -> None:
    queue = RedisReviews(parts.redis, parts.target.keys, parts.responses, now_ms, most=10)
    for _ in range(10):
        await queue.put(keys, [review() for _ in range(5)])
    waiting, count = await queue.pending(keys, 100)
    assert len(waiting) == count == 10
    items = {one.decode().rpartition(":")[2] for one in redis.scan_iter(f"{prefix}:*:reviews:item:*")}
    assert items == {one.review.id for one in waiting}
    (listed,) = redis.scan_iter(f"{prefix}:*:reviews:list:*")
    assert redis.zcard(listed) == 10


async def test_a_complaint_comes_first(parts: Parts, keys: TenantKeys) -> None:
    """Also about a hit that waits already."""
    some = [review() for _ in range(5)]
    await parts.ledger.reviews.put(keys, some)
    await parts.ledger.reviews.put(keys, [noted(some[-1])])
    waiting, count = await parts.ledger.reviews.pending(keys, 1)
    assert ([one.review for one in waiting], count) == ([noted(some[-1])], 5)


def noted(one: Review) -> Review:
    return msgspec.structs.replace(one, note="wrong")


async def test_the_queue_outlives_a_rotation(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    """One queue in order, of both secrets."""
    new = replace(settings, secret="another secret of the tests", previous_secret=settings.secret)
    old, later = [review() for _ in range(6)], [review() for _ in range(6)]
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        await parts.ledger.reviews.put(parts.keyring.of(operator("acme")), old)
    async with opened(new, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        keys, queue = parts.keyring.of(operator("acme")), parts.ledger.reviews
        await queue.put(keys, later)
        found, after = list[Review](), -1.0
        while len(found) < 12:
            page, count = await queue.pending(keys, 5, "a", after)
            found, after = found + [one.review for one in page], page[-1].rank
            assert count == 12
        assert {one.id for one in found} == {one.id for one in old + later}
        assert await queue.one(keys, old[0].id) == old[0]
        await queue.done(keys, old[0])
        await queue.put(keys, [noted(old[1])])
        (first, *_), count = await queue.pending(keys, 100)
        assert (first.review, count) == (noted(old[1]), 11)
        await queue.clear(keys)
        assert await queue.pending(keys, 100) == ([], 0)
    assert [*redis.scan_iter(f"{prefix}:*:reviews:*")] == []
