"""An agent_type's rules over a real Redis: how long entries live, which are stored at all."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import msgspec
import pytest
from anyio import from_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.lookup import Lookup
from service.cache.ports import Budget
from service.cache.store import Store
from service.errors import StoreFullError
from service.model import (
    Hit,
    Miss,
    Origin,
    Policy,
    Reason,
    Record,
    Refused,
    Stored,
    StoreRequest,
    Tier,
    TtlRule,
)
from service.store.records import seal
from service.wiring import Parts, now_ms
from tests.helpers import Same, accepted, keep, look, near, vector

pytestmark = pytest.mark.anyio

SEMANTIC = {"tiers": ["semantic"]}


class World:
    """A service whose policy, clock and chance a test decides."""

    def __init__(self, parts: Parts, keys: TenantKeys) -> None:
        self.keys = keys
        self.now = now_ms()
        self.chance = 0.0
        self.policies = Same(Policy())
        shared: dict[str, Any] = {
            "policies": self.policies,
            "embeddings": parts.embeddings,
            "uses": parts.lookup._uses,
            "rewriting": parts.lookup._rewriting,
            "clock": lambda: self.now,
            "redis_s": 5,
        }
        lookup = Lookup(parts.responses, parts.embedder, verifier=None, leases=parts.leases, **shared)
        store = Store(parts.responses, parts.embedder, jitter=lambda: self.chance, **shared)
        self.parts = replace(parts, lookup=lookup, store=store)

    def set(self, **policy: Any) -> None:
        self.policies.policy = msgspec.convert(policy, Policy)

    async def look(self, **fields: Any) -> Hit | Miss:
        return await look(self.parts, self.keys, **fields)

    async def keep(self, **fields: Any) -> Stored:
        return await keep(self.parts, self.keys, **fields)

    async def store(self, *items: dict[str, Any]) -> list[Stored | Refused]:
        """What becomes of each, refused before or after Redis was asked."""
        outcomes: list[Stored | Refused] = []
        for item in items:
            body = msgspec.json.encode({"agent_type": "a", "response": "r", **item})
            one = self.parts.store.accept(msgspec.json.decode(body, type=StoreRequest), self.keys)
            if isinstance(one, Refused):
                outcomes.append(one)
                continue
            (outcome,) = await self.parts.store.answer([one], self.keys)
            assert isinstance(outcome, Stored | Refused)
            outcomes.append(outcome)
        return outcomes

    async def refused(self, **item: Any) -> str | None:
        (outcome,) = await self.store(item)
        return outcome.reason if isinstance(outcome, Refused) else None


@pytest.fixture
def world(parts: Parts) -> World:
    return World(parts, parts.keyring.of(operator("acme")))


def ends(redis: Redis, world: World, kind: str) -> list[int]:
    """When the keys of a kind end, ms since 1970; -1: never."""
    names = sorted(redis.scan_iter(f"{world.parts.settings.key_prefix}:*:{kind}:*"))
    return [int(redis.pexpiretime(name)) for name in names]


class Told:
    """What should be known of one entry."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.first = 0


STEP = st.one_of(
    st.tuples(st.just("store"), st.sampled_from("12"), st.sampled_from([..., None, 1.0, 20.0, 200.0])),
    st.tuples(st.just("jump"), st.integers(-30_000, 150_000)),
    st.tuples(st.just("look")),
    st.tuples(st.just("limit"), st.sampled_from([None, 5.0, 60.0])),
)
POLICY = st.fixed_dictionaries(
    {
        "ttl_s": st.sampled_from([None, 1.0, 30.0, 300.0]),
        "max_age_s": st.sampled_from([None, 5.0, 60.0]),
        "ttl_rules": st.lists(
            st.builds(TtlRule, st.sampled_from(["never", "t"]), st.sampled_from([None, 10.0])), max_size=2
        ),
    }
)


async def test_lives_of_entries(world: World, redis: Redis) -> None:
    """Nothing lives past its hard limit; a hit writes nothing; no key is without end unless asked for."""
    numbers = itertools.count()

    @given(POLICY, st.lists(STEP, min_size=3, max_size=10), st.floats(0, 1))
    @settings(max_examples=60, deadline=None)
    def check(policy: dict[str, Any], steps: list[tuple[Any, ...]], chance: float) -> None:
        world.policies.policy, world.now, world.chance = Policy(**policy), now_ms() + 100_000, chance
        from_thread.run(live, world, redis, next(numbers), steps)

    await anyio.to_thread.run_sync(check)


async def live(world: World, redis: Redis, number: int, steps: Sequence[tuple[Any, ...]]) -> None:
    question = {"prompt": f"text {number}", "embedding": vector(number), "agent_type": "a"}
    told = Told()
    for step, *given_ in steps:
        if step == "jump":
            world.now += given_[0]
        elif step == "limit":
            world.policies.policy = msgspec.structs.replace(world.policies.policy, max_age_s=given_[0])
        elif step == "store":
            await stored(world, redis, question, told, given_)
        else:
            await looked(world, redis, question, told)


async def stored(
    world: World, redis: Redis, question: dict[str, Any], told: Told, given_: Sequence[Any]
) -> None:
    answer, ttl_s = given_
    policy, before = world.policies.policy, told.record
    asked = {} if ttl_s is ... else {"ttl_s": ttl_s}
    outcome = await world.keep(**question, response=answer, **asked)
    (record,) = await world.parts.responses.records(world.keys, [outcome.entry_id], Budget(5))
    assert record is not None
    alive = before is not None and is_alive(before, told, policy, world.now)
    same = alive and before is not None and before.response == record.response
    told.first = min(told.first, world.now) if same else world.now
    assert record.first_stored_at == told.first
    rule = next((one.ttl_s for one in policy.ttl_rules if one.pattern in "text"), policy.ttl_s)
    wanted = rule if ttl_s is ... else ttl_s
    limit = None if policy.max_age_s is None else told.first + round(policy.max_age_s * 1000)
    if record.expires_at is None:  # only where it was asked for
        assert limit is None
        assert wanted is None or (same and before is not None and before.expires_at is None)
    else:
        assert limit is None or record.expires_at <= limit
        if same and before is not None and before.expires_at is not None:  # never shorter
            assert record.expires_at >= min(before.expires_at, limit or before.expires_at)
        if not same and wanted is not None:
            assert record.expires_at <= world.now + wanted * 1000
            if ttl_s is not ... and limit is None:
                assert record.expires_at == world.now + wanted * 1000
    end = -1 if record.expires_at is None else record.expires_at
    keys = [f"record:{outcome.entry_id}", f"document:*:{outcome.entry_id}"]
    names = [list(redis.scan_iter(f"{world.parts.settings.key_prefix}:*:{key}", count=1000)) for key in keys]
    assert [[redis.pexpiretime(name) for name in each] for each in names] == [[end], [end]]
    told.record = record


def is_alive(record: Record, told: Told, policy: Policy, now: int) -> bool:
    ended = record.expires_at is not None and record.expires_at <= now
    old = policy.max_age_s is not None and told.first + round(policy.max_age_s * 1000) <= now
    return not (ended or old)


async def looked(world: World, redis: Redis, question: dict[str, Any], told: Told) -> None:
    names = sorted(redis.scan_iter(f"{world.parts.settings.key_prefix}:*", count=1000))
    before = [(redis.dump(name), redis.pexpiretime(name)) for name in names]
    record, policy = told.record, world.policies.policy
    for tier in Tier:
        answer = await world.look(**question, tiers=[tier])
        alive = record is not None and is_alive(record, told, policy, world.now)
        assert isinstance(answer, Hit) == alive
        if isinstance(answer, Hit) and record is not None:
            left = [] if record.expires_at is None else [record.expires_at - world.now]
            if policy.max_age_s is not None:
                left.append(told.first + round(policy.max_age_s * 1000) - world.now)
            assert answer.expires_in_s == (min(left) / 1000 if left else None)
    assert [(redis.dump(name), redis.pexpiretime(name)) for name in names] == before


async def test_what_was_stored_together_does_not_end_together(world: World) -> None:
    world.set(ttl_s=100)
    ended = []
    for chance in (0.0, 0.5, 1.0):
        world.chance = chance
        ended.append((await world.keep(prompt=f"p{chance}")).expires_in_s)
    assert ended == [100, 97.5, 95]
    assert (await world.keep(prompt="given", ttl_s=100)).expires_in_s == 100


async def test_an_older_services_entry_ends_with_the_hard_limit(world: World, parts: Parts) -> None:
    """Its record has no first_stored_at."""
    stored_ = await world.keep(prompt="p")
    (record,) = await parts.responses.records(world.keys, [stored_.entry_id], Budget(5))
    assert record is not None
    old = msgspec.structs.replace(record, first_stored_at=None)
    key = parts.responses._keys.record(parts.responses.partition(world.keys), record.entry_id)
    await parts.redis.call("SET", key, seal(old, world.keys.current), "PX", 100_000)
    world.set(max_age_s=10)
    world.now += 4000
    hit = await world.look(prompt="p")
    assert isinstance(hit, Hit)
    assert hit.expires_in_s == 6
    world.now += 6000
    assert isinstance(await world.look(prompt="p"), Miss)


async def test_tiers(world: World) -> None:
    asked: dict[str, Any] = {"prompt": "p", "embedding": vector(1)}
    reworded: dict[str, Any] = {"prompt": "q", "embedding": near(1, 0.99)}
    world.set(tiers=["exact"])
    stored_ = await world.keep(**asked)
    assert (stored_.tiers, stored_.exact_only) == ([Tier.EXACT], "policy")
    assert isinstance(await world.look(**asked), Hit)
    for fields, tiers in ((reworded, None), (asked, ["semantic"])):
        miss = await world.look(**fields, tiers=tiers)
        assert isinstance(miss, Miss)
        assert (miss.reason, miss.rule) == (
            (Reason.POLICY, "tiers") if tiers else (Reason.EMPTY, msgspec.UNSET)
        )
    world.set(threshold=0.9, guards={"verifier": False})
    assert isinstance(await world.look(**reworded), Miss)  # it was stored without a vector

    world.set(tiers=["semantic"], threshold=0.9, guards={"verifier": False})
    assert (await world.keep(**asked, response='"s"')).tiers == [Tier.SEMANTIC]
    hit = await world.look(**asked)
    assert isinstance(hit, Hit)
    assert hit.tier is Origin.SEMANTIC
    assert isinstance(await world.look(**reworded), Hit)
    assert await world.refused(prompt="x" * 9000) == "tiers"  # no tier would serve it


async def test_without_the_semantic_tier_nothing_is_embedded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embed(texts: Sequence[str]) -> Any:
        raise AssertionError(texts)

    world.set(tiers=["exact"])
    monkeypatch.setattr(world.parts.embedder, "embed", embed)
    await world.keep(prompt="p")
    assert isinstance(await world.look(prompt="p"), Hit)
    assert isinstance(await world.look(prompt="q"), Miss)


async def test_what_passes_by_asks_no_redis(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"prompt": "Write a poem about p", "temperature": 0.8}
    await world.keep(**asked)

    async def run(commands: Sequence[Any], *_: Any) -> list[Any]:
        assert not commands
        return []

    monkeypatch.setattr(world.parts.redis, "run", run)
    for policy, rule in (
        ({"bypass": ["time_sensitive", "creative"]}, "creative"),
        ({"bypass": [{"pattern": "(?i)POEM"}]}, "pattern"),
        ({"max_temperature": 0.5}, "max_temperature"),
    ):
        world.set(**policy)
        miss = await world.look(**asked, explain=True)
        assert isinstance(miss, Miss)
        assert (miss.reason, miss.rule, miss.nearest) == (Reason.POLICY, rule, None)
        assert isinstance(miss.decision, msgspec.Struct)
        assert miss.decision.tiers == []
        assert await world.refused(**asked) == rule


async def test_what_does_not_is_served(world: World) -> None:
    world.set(max_temperature=0.5, bypass=["creative", "personal", {"pattern": "secret"}])
    for fields in ({"prompt": "p"}, {"prompt": "p", "temperature": 0.5}, {"prompt": "What is a poem?"}):
        await world.keep(**fields)
        assert isinstance(await world.look(**fields), Hit)


async def test_admitted_from_the_nth_attempt_on(world: World, redis: Redis) -> None:
    world.set(admit_after=3)
    for _ in range(2):
        assert await world.refused(prompt="p") == "admit_after"
        assert isinstance(await world.look(prompt="p"), Miss)
    assert await world.refused(prompt="other") == "admit_after"
    assert await world.refused(prompt="p") is None
    assert isinstance(await world.look(prompt="p"), Hit)
    first, second = ends(redis, world, "asked")
    assert all(0 < end - now_ms() <= 86_400_000 for end in (first, second))
    for name in redis.scan_iter(f"{world.parts.settings.key_prefix}:*:asked:*"):
        redis.delete(name)
    assert await world.refused(prompt="p") is None  # what is there is replaced


async def test_a_days_count_is_not_prolonged(world: World, redis: Redis) -> None:
    world.set(admit_after=9)
    await world.refused(prompt="p")
    (name,) = redis.scan_iter(f"{world.parts.settings.key_prefix}:*:asked:*")
    redis.pexpire(name, 5000)
    await world.refused(prompt="p")
    assert 0 < int(redis.pttl(name)) <= 5000
    assert redis.get(name) == b"2"


async def test_nothing_is_counted_without_the_rule(world: World, redis: Redis) -> None:
    await world.keep(prompt="p")
    assert not ends(redis, world, "asked")


async def test_a_batch_counts_each_attempt(world: World) -> None:
    world.set(admit_after=2)
    ones = [accepted(world.keys, world.parts, prompt=text) for text in ("p", "q", "p", "p")]
    outcomes = await world.parts.store.answer(ones, world.keys)
    assert [isinstance(one, Stored) for one in outcomes] == [False, False, True, True]
    assert isinstance(await world.look(prompt="q"), Miss)


async def test_a_count_that_is_none_admits_nothing(world: World, redis: Redis) -> None:
    world.set(admit_after=2)
    await world.refused(prompt="p")
    (name,) = redis.scan_iter(f"{world.parts.settings.key_prefix}:*:asked:*")
    redis.set(name, "rubbish")
    assert await world.refused(prompt="p") == "admit_after"
    assert int(redis.ttl(name)) > 0


async def test_counting_costs_no_round_trip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trips = world.parts.redis.run, [0]

    async def counted(commands: Sequence[Any], *budget: Any) -> list[Any]:
        trips[0] += bool(commands)
        return await run(commands, *budget)

    monkeypatch.setattr(world.parts.redis, "run", counted)
    for admit_after, expected in ((1, 2), (2, 1), (2, 2)):
        world.set(admit_after=admit_after)
        trips[0] = 0
        await world.store({"prompt": "first" if admit_after == 1 else "p", "embedding": vector(1)})
        assert trips == [expected]


async def test_a_full_redis_says_so(world: World, redis: Redis) -> None:
    world.set(admit_after=2)
    redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFullError):
            await world.store({"prompt": "p"})
    finally:
        redis.config_set("maxmemory", 0)
