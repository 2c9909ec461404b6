"""Counts on their way to Redis: each arrives once, whatever becomes of the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from redis import Redis

from bench.proxy import proxied
from service.api.auth import operator
from service.cache.accounting import ALL_DAYS, DAY_MS, Accounting
from service.cache.digests import TenantKeys
from service.cache.learning.quality import hits_by_stratum
from service.cache.prices import load
from service.model import Generation
from service.settings import Settings
from service.store import stats as module
from service.store.client import RedisClient, connected
from service.store.keys import Keys
from service.store.layout import Layout
from service.store.responses import RedisResponses
from service.store.stats import RedisStats
from service.telemetry import STATS_FAILURES, STATS_WAITING
from service.wiring import keyring_of, now_ms

pytestmark = pytest.mark.anyio

GENERATION = Generation(
    number=1, index="1", space="1", model="m", revision="1", dim=8, datatype="float32", threshold=0.9
)


class Counting:
    """A process that counts, without its HTTP."""

    def __init__(self, settings: Settings, redis: RedisClient) -> None:
        keys, keyring = Keys(settings.key_prefix), keyring_of(settings)
        responses = RedisResponses(redis, keys)
        responses.follow(Layout(version=1, partitions=1, secret_fingerprint=""), GENERATION)
        self.accounting = Accounting(load())
        self.redis = redis
        self.stats = RedisStats(redis, keys, keyring, responses, clock=now_ms, label=settings.label)
        self.keyring = keyring
        self.acme = keyring.of(operator("acme"))

    def miss(self, agent_type: str | None = "a", times: int = 1, keys: TenantKeys | None = None) -> None:
        for _ in range(times):
            self.accounting.count(keys or self.acme, agent_type, "responses", "miss", "empty")

    async def flush(self) -> None:
        await self.stats.flush(self.accounting)

    async def misses(self, agent_type: str | None = "a", keys: TenantKeys | None = None) -> int:
        found = await self.stats.of(keys or self.acme, agent_type)
        return 0 if found is None else found.counts["responses", "miss", "empty"]


@asynccontextmanager
async def counting(
    settings: Settings, url: str | None = None, timeout_s: float = 5
) -> AsyncIterator[Counting]:
    async with connected(url or settings.redis_url or "", timeout_s, f"{settings.key_prefix}:probe") as redis:
        yield Counting(settings, redis)


@pytest.fixture
def no_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every failure is one of the way, and none is turned away at the door."""
    monkeypatch.setattr("service.store.breaker.IN_A_ROW", 10**9)
    monkeypatch.setattr("service.store.breaker.OF_WINDOW", 10**9)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIP_S", 0.3)


@pytest.mark.usefixtures("no_breaker")
async def test_a_reply_that_never_comes_counts_nothing_twice(settings: Settings) -> None:
    """Each transaction was done, and for every third that isn't known."""
    async with proxied(settings.redis_url or "", seed=3) as proxy, counting(settings, proxy.url) as one:
        failures, expected = STATS_FAILURES._value.get(), 0
        proxy.cut = 0.3
        for n in range(60):
            one.miss("a", n)
            one.miss("b")
            expected += n
            await one.flush()
        assert STATS_FAILURES._value.get() > failures + 10
        proxy.cut = 0.0
        await one.flush()
        await one.flush()  # what was staged the last time but one is added now
        assert (await one.misses("a"), await one.misses("b")) == (expected, 60)
        assert STATS_WAITING._value.get() == 0


@pytest.mark.usefixtures("no_breaker", "impatient")
@pytest.mark.parametrize("step", [b"ZADD", b"ZUNIONSTORE"])
async def test_what_arrives_late_counts_nothing_twice(
    settings: Settings, redis: Redis, prefix: str, step: bytes
) -> None:
    """Given up, sent again, done; and only then the first one reaches Redis."""
    async with proxied(settings.redis_url or "") as proxy, counting(settings, proxy.url, 0.2) as one:
        one.miss("a", 1)
        await one.flush()
        one.miss("a", 10)
        proxy.hold = step
        await one.flush()
        assert not proxy.hold
        one.miss("a", 100)
        await one.flush()
        await one.flush()
        assert await one.misses() == 111
        before = redis.info("commandstats")["cmdstat_exec"]["calls"]
        proxy.go.set()
        with anyio.fail_after(10):
            while redis.info("commandstats")["cmdstat_exec"]["calls"] == before:
                await anyio.sleep(0.01)
        one.miss("a", 1000)
        await one.flush()
        assert await one.misses() == 1111
        assert STATS_WAITING._value.get() == 0
        left = list(redis.scan_iter(f"{prefix}:*:stats:staged:*"))
        assert len(left) == (1 if step == b"ZADD" else 0)
        assert all(0 < redis.pttl(key) <= module.STAGED_MS for key in left)


@pytest.mark.usefixtures("no_breaker")
async def test_a_cancelled_flush_counts_once(settings: Settings) -> None:
    async with proxied(settings.redis_url or "", delay_s=0.01) as proxy, counting(settings, proxy.url) as one:
        for n in range(40):
            one.miss("a")
            with anyio.move_on_after(n / 1000):
                await one.flush()
        await one.flush()
        await one.flush()
        assert await one.misses() == 40


async def test_what_redis_refuses_waits(settings: Settings, redis: Redis, prefix: str) -> None:
    async with counting(settings) as one:
        one.miss("a")
        await one.flush()
        (cell,) = [key for key in redis.scan_iter(f"{prefix}:*:stats:*") if redis.type(key) == b"zset"]
        redis.set(cell, "poison")
        one.miss("a")
        one.miss("b")
        await one.flush()
        assert (await one.misses("a"), await one.misses("b")) == (0, 1)
        assert STATS_WAITING._value.get() == 1
        redis.delete(cell)
        one.miss("a")
        await one.flush()
        await one.flush()
        assert STATS_WAITING._value.get() == 0


async def test_an_emptied_redis_gets_the_names_again(settings: Settings, redis: Redis, prefix: str) -> None:
    async with counting(settings) as one:
        one.miss("a")
        await one.flush()
        redis.unlink(*redis.scan_iter(f"{prefix}:*"))
        one.miss("a", 2)
        await one.flush()
        assert await one.misses() == 2
        assert set(await one.stats.all(one.acme)) == {"a"}


async def test_what_a_caller_can_make_us_keep_is_bounded(
    settings: Settings, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_AGENT_TYPES", 20)
    monkeypatch.setattr(module, "PAGE", 7)
    other = "other"
    async with counting(settings) as one:
        bystander = one.keyring.of(operator(other))
        for turn in range(3):
            for n in range(30):
                one.miss(f"{turn if n > 10 else 0}:{n}")
            one.miss("mine", keys=bystander)
            await one.flush()
        found = await one.stats.all(one.acme)
        assert len(found) == 21
        assert sum(each.counts["responses", "miss", "empty"] for each in found.values()) == 90
        assert await one.misses("0:1") == 3
        assert await one.misses("mine", bystander) == 3
        assert redis.ttl(f"{prefix}:{{0}}:stats:names:{one.acme.current.tenant}") == -1
        assert len(list(redis.scan_iter(f"{prefix}:*:stats:*", count=1000))) == 2 + 21 + 1


async def test_in_the_process_it_is_bounded_as_well(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cache.accounting.MAX_CELLS", 10)
    monkeypatch.setattr(module, "MAX_CELLS", 15)
    async with counting(settings) as one:
        for n in range(30):
            one.miss(f"{n}")
        assert len(one.accounting._cells) == 11
        await one.flush()
        found = await one.stats.all(one.acme)
        assert (len(found), found[None].counts["responses", "miss", "empty"]) == (11, 20)


async def test_a_name_that_was_altered_is_not_believed(settings: Settings, redis: Redis, prefix: str) -> None:
    async with counting(settings) as one:
        for agent_type in ("a", "b"):
            one.miss(agent_type)
        await one.flush()
        names = f"{prefix}:{{0}}:stats:names:{one.acme.current.tenant}"
        (first, blob), (second, other) = sorted(redis.hgetall(names).items())
        redis.hset(names, mapping={first: other, second: blob})
        assert await one.stats.all(one.acme) == {}


async def test_members_that_are_not_ours_are_left_out(settings: Settings, redis: Redis, prefix: str) -> None:
    async with counting(settings) as one:
        one.miss("a")
        await one.flush()
        cell = one.acme.current.digest("agent_type", b"a")
        junk = [
            "",
            "|",
            "x",
            "responses",
            "responses|ms",
            "responses|ms|hit",
            "stage|exact|1e9",
            "stage|a|-1",
        ]
        junk += ["responses|ms|hit_exact|170", "tokens", "tokens|input|2", "stage|exact|\xff", "money|a|b"]
        key = f"{prefix}:{{0}}:stats:{one.acme.current.tenant}:{cell}"
        redis.zadd(key, dict.fromkeys(junk, 5) | {"responses|hit|exact": float("inf")})
        found = await one.stats.of(one.acme, "a")
        assert found is not None
        assert found.counts == {("responses", "miss", "empty"): 1}


async def test_both_secrets_are_read_and_the_new_one_takes_over(
    settings: Settings, redis: Redis, prefix: str
) -> None:
    old = settings.secret or ""
    async with counting(settings) as one:
        one.miss("a", 3)
        await one.flush()
        before = await one.stats.of(one.acme, "a")
        assert before is not None
        began = before.since_ms
    rotating = replace(settings, secret="another secret of the tests", previous_secret=old)
    async with counting(rotating) as one:
        assert await one.misses() == 3
        one.miss("a", 4)
        await one.flush()
        assert await one.misses() == 7
        assert (await one.stats.all(one.acme))["a"].counts["responses", "miss", "empty"] == 7
    assert len(list(redis.scan_iter(f"{prefix}:*:stats:*"))) == 2  # nothing is left under the old one
    async with counting(replace(rotating, previous_secret=None)) as one:
        assert await one.misses() == 7
        found = await one.stats.of(one.acme, "a")
        assert found is not None
        assert found.since_ms == began


async def test_days_long_ago_are_not_kept_one_by_one(settings: Settings) -> None:
    async with counting(settings) as one:
        today = now_ms() // DAY_MS
        days = [str(today - back) for back in (0, 6, 7, 8, 9, 30, 90)]
        keys: TenantKeys = one.acme
        cell = one.accounting._cell(keys, "a")
        for day in (*days, ALL_DAYS):
            cell["strata", day, "3"] += 2
        await one.flush()
        found = await one.stats.of(keys, "a")
        assert found is not None
        assert {day for _, day, _ in found.counts} == {*days[:4], ALL_DAYS}
        assert hits_by_stratum(found.counts) == [0, 0, 0, 2, 0]
        assert hits_by_stratum(found.counts, today - 6) == [0, 0, 0, 4, 0]
