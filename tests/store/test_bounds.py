"""`max_entries`: who goes, who stays, and that whatever is interrupted nobody is forgotten."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.usage import MOST, Use, Uses
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.store.keys import Keys
from service.store.usage import RedisUsage
from service.telemetry import EVICTED
from service.wiring import Loaded, Parts, now_ms, opened
from tests.helpers import accepted, keep, look, record, vector

pytestmark = pytest.mark.anyio

OLD, NEW = "the older secret, 16+", "the newer secret, 16+"


@asynccontextmanager
async def service(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


def acme(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def bound(parts: Parts, most: int | None, agent_type: str = "a") -> None:
    await parts.policies.put(acme(parts), agent_type, msgspec.json.encode({"max_entries": most}))


async def fill(
    parts: Parts, numbers: range, agent_type: str = "a", tenant: str = "acme", ttl_s: float | None = 600
) -> None:
    keys = parts.keyring.of(operator(tenant))
    entries = [
        accepted(keys, parts, prompt=f"q{n}", embedding=vector(n), agent_type=agent_type, ttl_s=ttl_s)
        for n in numbers
    ]
    for at in range(0, len(entries), 64):
        await parts.store.answer(entries[at : at + 64], keys)


async def hits(parts: Parts, numbers: range, agent_type: str = "a", tenant: str = "acme") -> set[int]:
    """Who is still there; being asked for is a use."""
    keys = parts.keyring.of(operator(tenant))
    answers = [
        (n, await look(parts, keys, prompt=f"q{n}", agent_type=agent_type, tiers=["exact"])) for n in numbers
    ]
    return {n for n, answer in answers if hasattr(answer, "response")}


class Behind:
    """What lies in Redis."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def count(self, kind: str) -> int:
        return sum(1 for _ in self._redis.scan_iter(f"{self._prefix}:*:responses:{kind}:*", count=1000))

    @property
    def sets(self) -> list[bytes]:
        return list(self._redis.scan_iter(f"{self._prefix}:*:used:*", count=1000))

    @property
    def uncounted(self) -> set[bytes]:
        """Keys of entries whose id is in no set."""
        known = {one for name in self.sets for one in self._redis.zrange(name, 0, -1)}
        keys = self._redis.scan_iter(f"{self._prefix}:{{0}}:responses:*", count=1000)
        return {key for key in keys if key.rpartition(b":")[2] not in known}

    @property
    def members(self) -> int:
        return sum(self._redis.zcard(one) for one in self.sets)


@pytest.fixture
def behind(redis: Redis, prefix: str) -> Behind:
    return Behind(redis, prefix)


async def until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not happened():
            await anyio.sleep(0.02)


async def settled(behind: Behind, entries: int) -> None:
    await until(lambda: behind.count("document") == behind.count("record") == behind.members == entries)


async def test_the_least_recently_used_go(parts: Parts, behind: Behind) -> None:
    await bound(parts, 100)
    evicted = EVICTED._value.get()
    await fill(parts, range(100))
    assert await hits(parts, range(10)) == set(range(10))
    await fill(parts, range(100, 150))
    await settled(behind, 100)
    found = await hits(parts, range(150))
    assert len(found) == 100
    assert found >= {*range(10), *range(64, 150)}  # those of a batch were stored at once
    assert EVICTED._value.get() - evicted == 50


async def test_a_semantic_hit_is_a_use(parts: Parts, behind: Behind) -> None:
    await bound(parts, 10)
    await keep(parts, acme(parts), prompt="the first", embedding=vector(1000))
    await fill(parts, range(9))
    await settled(behind, 10)
    answer = await look(parts, acme(parts), prompt="The first", embedding=vector(1000), tiers=["semantic"])
    assert hasattr(answer, "response")
    await fill(parts, range(9, 18))
    await settled(behind, 10)
    assert await hits(parts, range(18)) == set(range(9, 18))


async def test_others_are_left_alone(parts: Parts, behind: Behind) -> None:
    await bound(parts, 10)
    await fill(parts, range(50), agent_type="b")
    await fill(parts, range(50), tenant="other")
    await fill(parts, range(50))
    await until(lambda: behind.count("document") == 110)
    assert await hits(parts, range(50), agent_type="b") == set(range(50))
    assert await hits(parts, range(50), tenant="other") == set(range(50))
    assert len(behind.sets) == 1


async def test_without_a_bound_nothing_is_noted(parts: Parts, behind: Behind) -> None:
    await fill(parts, range(10))
    await hits(parts, range(10))
    uses = parts.lookup._uses
    assert isinstance(uses, Uses)
    assert not uses._notes
    assert not behind.sets


async def test_a_bound_that_appears_counts_what_was_there(parts: Parts, behind: Behind) -> None:
    await fill(parts, range(300))
    await bound(parts, 120)
    await settled(behind, 120)
    assert await hits(parts, range(300)) >= set(range(256, 300))  # of a batch, all were stored at once


async def test_lowered_shrinks_raised_loses_nothing(parts: Parts, behind: Behind) -> None:
    await bound(parts, 200)
    await fill(parts, range(200))
    await bound(parts, 90)
    await settled(behind, 90)
    await bound(parts, 1000)
    await fill(parts, range(200, 400))
    await settled(behind, 290)
    await bound(parts, None)
    await fill(parts, range(400, 500))
    await until(lambda: behind.count("document") == 390)


async def test_dead_entries_take_nobodys_place(parts: Parts, behind: Behind, redis: Redis) -> None:
    """What was deleted is no entry, though its id is in the set, and was used last."""
    await bound(parts, 100)
    await fill(parts, range(60))
    await fill(parts, range(60, 100))
    await settled(behind, 100)
    partition = parts.responses.partition(acme(parts))
    for n in range(60, 100):
        entry = accepted(acme(parts), parts, prompt=f"q{n}", embedding=vector(n)).query.identities[0].entry_id
        generation = parts.responses.generation
        assert generation is not None
        keys = Keys(parts.settings.key_prefix)
        redis.delete(keys.record(partition, entry), keys.document(partition, generation, entry))
    await fill(parts, range(100, 140))
    await until(lambda: behind.count("document") == 100)
    assert await hits(parts, range(60)) == set(range(60))
    await fill(parts, range(140, 150))
    await until(lambda: EVICTED._value.get() > 0 and behind.members == 100)


async def test_a_process_that_is_killed_forgets_nobody(
    settings: Settings, models: Loaded, behind: Behind
) -> None:
    """Its notes are gone with it; whoever comes next finds in the index what isn't in the set."""
    async with service(settings, models) as parts:
        await bound(parts, 50)
        await fill(parts, range(50))
        await settled(behind, 50)
    async with service(settings, models) as parts:
        parts.policies.bounds.clear()  # a process that dies before it writes what it noted
        await fill(parts, range(50, 90))
        uses = parts.store._uses
        assert isinstance(uses, Uses)
        uses.take()
        assert behind.members == 50
        assert behind.count("document") == 90
    async with service(settings, models):
        await settled(behind, 50)


async def test_a_set_that_is_lost_is_made_again(parts: Parts, behind: Behind, redis: Redis) -> None:
    await bound(parts, 80)
    await fill(parts, range(80))
    await settled(behind, 80)
    redis.delete(*behind.sets)
    await fill(parts, range(80, 85))
    await settled(behind, 80)


async def test_an_interrupted_eviction_goes_on(settings: Settings, parts: Parts, behind: Behind) -> None:
    """Step by step, as by a process that ends between any two of them."""
    await fill(parts, range(100))
    usage = RedisUsage(parts.redis, Keys(settings.key_prefix), parts.responses)
    await usage.seed(acme(parts), "a")
    for left in (90, 80, 70, 60, 50):
        step = await usage.evict(acme(parts), "a", 50, 10)
        assert step.entries == 10
        assert behind.count("document") == behind.count("record") == behind.members == left
    assert (await usage.evict(acme(parts), "a", 50, 10)).members == 0


async def test_a_late_hit_brings_nobody_back(settings: Settings, parts: Parts) -> None:
    await fill(parts, range(2))
    usage = RedisUsage(parts.redis, Keys(settings.key_prefix), parts.responses)
    await usage.seed(acme(parts), "a")
    assert await usage.write(acme(parts), "a", {"0" * 32: Use(now_ms(), stored=False)}) == 2
    assert await usage.write(acme(parts), "a", {"0" * 32: Use(1, stored=True)}) == 3
    assert await usage.write(acme(parts), "a", {"0" * 32: Use(now_ms(), stored=False)}) == 3


async def test_a_previous_secrets_entries_count(settings: Settings, models: Loaded, behind: Behind) -> None:
    async with service(replace(settings, secret=OLD), models) as parts:
        await bound(parts, 60)
        await fill(parts, range(60))
        await settled(behind, 60)
    rotated = replace(settings, secret=NEW, previous_secret=OLD)
    async with service(rotated, models) as parts:
        assert await hits(parts, range(20)) == set(range(20))
        await fill(parts, range(60, 90))
        await until(lambda: behind.count("document") == behind.count("record") == 60)
        assert await hits(parts, range(20)) == set(range(20))
        assert await hits(parts, range(60, 90)) == set(range(60, 90))


async def test_two_processes_hold_it(settings: Settings, models: Loaded, behind: Behind) -> None:
    async with service(settings, models) as one, service(settings, models) as other:
        await bound(one, 200)
        await other.policies.refresh()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fill, one, range(400))
            tasks.start_soon(fill, other, range(400, 800))
        await until(lambda: behind.count("document") == behind.count("record") == 200)
        await until(lambda: not behind.uncounted)
        await fill(other, range(800, 850))
        await until(lambda: behind.count("document") == behind.count("record") == 200)
        assert await hits(one, range(800, 850)) == set(range(800, 850))


async def test_a_set_ends_by_itself(parts: Parts, behind: Behind, redis: Redis) -> None:
    await bound(parts, 10)
    await fill(parts, range(5), ttl_s=None)
    await settled(behind, 5)
    (name,) = behind.sets
    assert redis.pttl(name) > 0


async def test_it_goes_on_when_redis_is_back(settings: Settings, models: Loaded, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server, Redis.from_url(server.url, protocol=2) as admin:
        behind = Behind(admin, settings.key_prefix)
        async with service(replace(settings, redis_url=server.url), models) as parts:
            await bound(parts, 20)
            await fill(parts, range(20))
            await settled(behind, 20)
            assert await hits(parts, range(5)) == set(range(5))
            server.stop()
            await anyio.sleep(1)  # a flush fails
            assert await hits(parts, range(20)) == set()
            server.start()
            await until(lambda: not parts.redis.breaker.is_open)
            await fill(parts, range(20, 35))
            await until(lambda: behind.count("document") == 20)
            assert await hits(parts, range(35)) == {*range(5), *range(20, 35)}


async def test_notes_are_bounded_and_survive_a_redis_that_is_away() -> None:
    uses = Uses(iter(range(10**9)).__next__)
    names = operator("acme"), "a"
    one = record()
    for n in range(MOST + 5):
        uses.hit(names[0], msgspec.structs.replace(one, entry_id=str(n)))
    taken = uses.take()[names]
    assert next(iter(taken)) == "5"
    uses.stored(names[0], msgspec.structs.replace(one, entry_id="5"), 1000)
    uses.hit(names[0], msgspec.structs.replace(one, entry_id="new"))
    uses.put_back(names, taken)
    again = uses.take()[names]
    assert len(again) == MOST
    assert list(again)[-1] == "new"
    assert again["5"].stored
    assert "6" not in again  # the oldest
    assert "7" in again
    assert not uses.take()


async def test_a_200th_of_the_bound_is_due_at_once() -> None:
    uses = Uses(lambda: 1)
    for n in range(9):
        uses.stored(operator("acme"), msgspec.structs.replace(record(), entry_id=str(n)), 2000)
    assert not uses.due.is_set()
    uses.stored(operator("acme"), record(), 2000)
    assert uses.due.is_set()
    assert uses.take()
    assert not uses.due.is_set()
