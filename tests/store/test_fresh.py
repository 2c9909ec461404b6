"""Answers that were made although there was one: what is learned of them, and what becomes of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.decided import model_of
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Similar, Where
from service.cache.learning.strata import EXACT
from service.cache.outcomes import Outcome
from service.cache.ports import Budget, Work
from service.errors import StoreUnavailableError
from service.model import Comparison, Hit, Miss, Origin, Policy, Reason
from service.store import pending
from service.store.client import Command
from service.store.pending import Note, Pending
from service.telemetry import COMPARED
from service.wiring import Parts, now_ms
from tests.helpers import Same, asked, keep, look, near, vector

pytestmark = pytest.mark.anyio

PLAIN: dict[str, Any] = {"guards": {"verifier": False}, "threshold": 0.6, "comparison": Comparison.EQUAL}
VERIFIED = Policy(mode="verified", **PLAIN)
SHADOW = Policy(shadow=True, **PLAIN)
OWN = {"prompt": "own", "embedding": near(1, 0.95)}
"""What is asked beside the entry of `vector(1)`."""


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture(autouse=True)
async def first(parts: Parts, keys: TenantKeys) -> str:
    """What there is; its id."""
    return (await keep(parts, keys, prompt="first", embedding=vector(1), response='"one"')).entry_id


def follow(policy: Policy, *some: Parts) -> None:
    for parts in some:
        parts.lookup._policies = parts.store._policies = Same(policy)


async def missed(parts: Parts, keys: TenantKeys, policy: Policy = VERIFIED, **fields: Any) -> str:
    """A lookup that says so in its id."""
    follow(policy, parts)
    question, work = asked(keys, parts, **(OWN | fields)), Work()
    (answer,) = await parts.lookup.answer([question], keys, work)
    parts.accounting.looked_up(keys, [question], [answer], work)
    assert isinstance(answer, Miss)
    assert answer.reason in {Reason.EXPLORE, Reason.POLICY}
    return answer.lookup_id


async def explored(parts: Parts, keys: TenantKeys, response: str = '"other"', **fields: Any) -> str:
    """Asked, answered afresh, stored: its id."""
    lookup_id = await missed(parts, keys)
    kept = await keep(parts, keys, **OWN, response=response, lookup_id=lookup_id, **fields)
    assert kept.exact_only == "explored"
    return kept.entry_id


async def compared(parts: Parts) -> None:
    """All that waits."""
    async with parts.comparer.running():
        await asyncio.wait_for(parts.comparer.settled(), 30)


async def outcomes(parts: Parts, keys: TenantKeys) -> list[Outcome]:
    assert parts.responses.generation is not None
    said = await parts.judging.outcomes.read(keys, "a", model_of(parts.responses.generation))
    return [one.outcome for one in said]


def count(verdict: str) -> float:
    return float(COMPARED.labels(verdict)._value.get())


async def reworded(parts: Parts, keys: TenantKeys) -> Hit | Miss:
    """By whom the answer of its own is nearest to."""
    follow(Policy(**PLAIN), parts)
    return await look(parts, keys, prompt="reworded", embedding=OWN["embedding"], tiers=["semantic"])


async def exactly(parts: Parts, keys: TenantKeys) -> str | None:
    answer = await look(parts, keys, **OWN, tiers=["exact"])
    return bytes(answer.response).decode() if isinstance(answer, Hit) else None


def left(redis: Redis, parts: Parts, entry_id: str) -> list[str]:
    return [key.decode() for key in redis.scan_iter(f"{parts.settings.key_prefix}:*:{entry_id}")]


class Slow:
    """A Redis before whose nth round trip something happens."""

    def __init__(self, parts: Parts, at: int, happens: Callable[[], Awaitable[None]]) -> None:
        self._redis, self._at, self._happens = parts.redis, at, happens
        self.trips = 0

    async def run(self, commands: Sequence[Command], budget: Budget) -> list[Any]:
        self.trips += 1
        if self.trips == self._at:
            await self._happens()
        return await self._redis.run(commands, budget)

    async def values(self, commands: Sequence[Command], budget: Budget) -> list[Any]:
        return await self.run(commands, budget)


async def test_another_answer_is_found_by_others_once_it_is_compared(
    parts: Parts, keys: TenantKeys, redis: Redis
) -> None:
    entry_id = await explored(parts, keys, sources=["s"], ttl_s=1000)
    before = {key: redis.pexpiretime(key) for key in left(redis, parts, entry_id)}
    answer = await reworded(parts, keys)
    assert isinstance(answer, Hit)
    assert answer.entry_id != entry_id
    await compared(parts)
    answer = await reworded(parts, keys)
    assert isinstance(answer, Hit)
    assert (answer.tier, answer.entry_id) == (Origin.SEMANTIC, entry_id)
    assert {key: redis.pexpiretime(key) for key in left(redis, parts, entry_id)} == before
    (outcome,) = await outcomes(parts, keys)
    assert (outcome.source, outcome.correct) == ("explore", False)
    predicates = await parts.invalidator.predicates([Where(source="s")], [Keyspace.RESPONSES])
    await parts.invalidator.run(keys, predicates)
    assert left(redis, parts, entry_id) == []


async def test_the_same_answer_answers_its_own_words(parts: Parts, keys: TenantKeys) -> None:
    entry_id = await explored(parts, keys, '"one"')
    await compared(parts)
    answer = await reworded(parts, keys)
    assert isinstance(answer, Hit)
    assert answer.entry_id != entry_id
    assert await exactly(parts, keys) == '"one"'
    assert [one.correct for one in await outcomes(parts, keys)] == [True]


async def test_texts_are_embedded(parts: Parts, keys: TenantKeys) -> None:
    """Where no vector is given; a service that took it over makes it anew."""
    follow(VERIFIED, parts)
    await keep(parts, keys, prompt="How do I reset my password?", response='"a"')
    words = "How can I reset my password?"
    lookup_id = await missed(parts, keys, prompt=words, embedding=None)
    entry_id = (await keep(parts, keys, prompt=words, response='"b"', lookup_id=lookup_id)).entry_id
    await compared(parts)
    follow(Policy(**PLAIN), parts)
    answer = await look(parts, keys, prompt=words, tiers=["semantic"])
    assert isinstance(answer, Hit)
    assert answer.entry_id == entry_id


async def test_a_newer_answer_stays(parts: Parts, keys: TenantKeys) -> None:
    await explored(parts, keys, '"old"')
    follow(Policy(**PLAIN), parts)
    await keep(parts, keys, **OWN, response='"new"')
    await compared(parts)
    assert await exactly(parts, keys) == '"new"'
    answer = await reworded(parts, keys)
    assert isinstance(answer, Hit)
    assert bytes(answer.response) == b'"new"'
    assert [one.correct for one in await outcomes(parts, keys)] == [False]


async def test_what_is_over_stays_so(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    entry_id = await explored(parts, keys, ttl_s=1)
    await asyncio.sleep(1.1)
    await compared(parts)
    assert await exactly(parts, keys) is None
    assert left(redis, parts, entry_id) == []
    assert [one.correct for one in await outcomes(parts, keys)] == [False]


@pytest.mark.parametrize("case", [(what, at) for what in ("removed", "replaced") for at in (1, 2, 3)])
async def test_what_happens_in_between_holds(
    parts: Parts, keys: TenantKeys, redis: Redis, case: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its documents are read, before they are written, behind that."""
    entry_id, (what, at) = await explored(parts, keys, '"old"'), case

    async def happens() -> None:
        follow(Policy(**PLAIN), parts)
        if what == "replaced":
            await keep(parts, keys, **OWN, response='"new"')
        else:
            predicates = await parts.invalidator.predicates([Where(entry_id=entry_id)], [Keyspace.RESPONSES])
            await parts.invalidator.run(keys, predicates)

    slow = Slow(parts, at, happens)
    monkeypatch.setattr(parts.comparer._revealing, "_redis", slow)
    await compared(parts)
    assert slow.trips >= at
    for found in (await exactly(parts, keys), await reworded(parts, keys)):
        said = bytes(found.response).decode() if isinstance(found, Hit) else found
        assert said not in ({'"old"'} if what == "replaced" else {'"old"', '"new"'})
    if what == "removed":
        assert left(redis, parts, entry_id) == []
    follow(Policy(**PLAIN), parts)
    await keep(parts, keys, **OWN, response='"last"')
    assert await exactly(parts, keys) == '"last"'


@pytest.mark.parametrize("at", [1, 2])
async def test_what_was_invalidated_by_meaning_is_not_found_by_it(
    parts: Parts, keys: TenantKeys, redis: Redis, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vector wasn't there to be found by then; also where it comes in between."""
    follow(VERIFIED, parts)
    await keep(parts, keys, prompt="How do I reset my password?", response='"a"')
    words = "How can I reset my password?"
    lookup_id = await missed(parts, keys, prompt=words, embedding=None)
    entry_id = (await keep(parts, keys, prompt=words, response='"b"', lookup_id=lookup_id)).entry_id
    where = Where(similar_to=Similar(prompt=words, threshold=0.9))
    predicates = await parts.invalidator.predicates([where], [Keyspace.RESPONSES])

    async def happens() -> None:
        await parts.invalidator.run(keys, predicates)

    slow = Slow(parts, at, happens)
    monkeypatch.setattr(parts.comparer._revealing, "_redis", slow)
    await compared(parts)
    assert slow.trips >= at
    (document,) = [one for one in left(redis, parts, entry_id) if ":document:" in one]
    assert not redis.hexists(document, "vector")
    assert redis.hexists(document, "stored_at")


async def test_what_is_quarantined_by_then_answers_its_own_words(
    parts: Parts, keys: TenantKeys, redis: Redis
) -> None:
    entry_id = await explored(parts, keys)
    redis.hset(parts.target.keys.quarantine(0, entry_id), "somebody", 1)
    await compared(parts)
    answer = await reworded(parts, keys)
    assert isinstance(answer, Hit)
    assert answer.entry_id != entry_id
    assert await exactly(parts, keys) == '"other"'


async def test_what_lost_its_document_gets_none(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    """Nothing would find it then that invalidates it."""
    entry_id = await explored(parts, keys)
    redis.delete(*(one for one in left(redis, parts, entry_id) if ":document:" in one))
    await compared(parts)
    assert len(left(redis, parts, entry_id)) == 1


async def test_shadow_tells_wrong_exact_hits(parts: Parts, keys: TenantKeys) -> None:
    """The store takes the place of what it is compared with."""
    same = {"prompt": "first", "embedding": vector(1)}
    for answer in ('"one"', '"two"', '"two"'):
        lookup_id = await missed(parts, keys, SHADOW, **same)
        await keep(parts, keys, **same, response=answer, lookup_id=lookup_id)
    await compared(parts)
    told = sorted(await outcomes(parts, keys), key=lambda one: one.lookup_id)
    assert sorted(one.correct for one in told) == [False, True, True]
    assert {one.stratum for one in told} == {EXACT}
    assert {one.source for one in told} == {"shadow"}


async def test_shadow_tells_semantic_hits_apart(parts: Parts, keys: TenantKeys) -> None:
    lookup_id = await missed(parts, keys, SHADOW)
    await keep(parts, keys, **OWN, response='"one"', lookup_id=lookup_id)
    await compared(parts)
    (outcome,) = await outcomes(parts, keys)
    assert (outcome.correct, outcome.stratum) == (True, 0)


async def test_shadow_keeps_nothing_apart(parts: Parts, keys: TenantKeys) -> None:
    """Also while a policy has both, and after."""
    both = Policy(mode="verified", shadow=True, **PLAIN)
    same = {"prompt": "first", "embedding": vector(1)}
    for during, after in ((both, both), (both, VERIFIED)):
        lookup_id = await missed(parts, keys, during, **same)
        follow(after, parts)
        kept = await keep(parts, keys, **same, response='"one"', lookup_id=lookup_id)
        assert [tier.value for tier in kept.tiers] == ["exact", "semantic"]


@pytest.mark.parametrize("fields", [{"prompt": "elsewhere"}, {"agent_type": "b"}])
async def test_only_the_askers_own_answer_counts(
    parts: Parts, keys: TenantKeys, fields: dict[str, str]
) -> None:
    lookup_id, other = await missed(parts, keys), count("other")
    await keep(parts, keys, **(OWN | fields), response='"other"', lookup_id=lookup_id)
    await compared(parts)
    assert await outcomes(parts, keys) == []
    assert count("other") == other + 1


async def died(parts: Parts) -> None:
    """As a process does that wrote what it knows, half a second before."""
    await parts.ledger.flush()
    await parts.comparer._pending.flush()


def waiting(redis: Redis, parts: Parts) -> list[bytes]:
    found = redis.zrange(f"{parts.settings.key_prefix}:{{0}}:comparisons", 0, -1)
    return [one for one in found if isinstance(one, bytes)]


@pytest.mark.parametrize("correct", [False, True])
async def test_another_process_compares_what_one_left(
    parts: Parts,
    other: Parts,
    keys: TenantKeys,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    *,
    correct: bool,
) -> None:
    entry_id = await explored(parts, keys, '"one"' if correct else '"other"')
    await died(parts)
    assert len(waiting(redis, parts)) == 1
    await other.comparer.look()
    await compared(other)
    assert await outcomes(other, keys) == []  # somebody may be at work on it
    monkeypatch.setattr(pending, "LEFT_MS", -1)
    await other.comparer.look()
    await compared(other)
    assert [one.correct for one in await outcomes(other, keys)] == [correct]
    assert waiting(redis, parts) == []
    answer = await reworded(other, keys)
    assert isinstance(answer, Hit)
    assert (answer.entry_id == entry_id) is not correct
    await compared(parts)  # it lives after all: said twice is said once
    assert [one.correct for one in await outcomes(other, keys)] == [correct]
    assert waiting(redis, parts) == []


async def test_what_was_replaced_is_left_with_it(
    parts: Parts, other: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = {"prompt": "first", "embedding": vector(1)}
    lookup_id = await missed(parts, keys, SHADOW, **same)
    await keep(parts, keys, **same, response='"two"', lookup_id=lookup_id)
    await died(parts)
    monkeypatch.setattr(pending, "LEFT_MS", -1)
    await other.comparer.look()
    await compared(other)
    assert [one.correct for one in await outcomes(other, keys)] == [False]


async def test_an_answer_that_is_another_by_now_teaches_nothing(
    parts: Parts, other: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await explored(parts, keys)
    await died(parts)
    follow(Policy(**PLAIN), parts)
    await keep(parts, keys, **OWN, response='"new"')
    monkeypatch.setattr(pending, "LEFT_MS", -1)
    await other.comparer.look()
    await compared(other)
    assert await outcomes(other, keys) == []
    assert waiting(redis, parts) == []


async def test_what_is_compared_is_not_left(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await explored(parts, keys)
    await died(parts)
    await compared(parts)
    assert waiting(redis, parts) == []


async def test_what_redis_does_not_take_is_tried_again(
    parts: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is to be compared, nor what came out of it."""

    async def away(*_: Any) -> Any:
        raise StoreUnavailableError("away")

    await explored(parts, keys)
    for place, name in (
        (parts.comparer._pending._redis, "values"),
        (parts.comparer._outcomes, "put"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, away)
            if name == "values":
                with pytest.raises(StoreUnavailableError):
                    await parts.comparer._pending.flush()
                assert waiting(redis, parts) == []
            else:
                await compared(parts)
        assert await outcomes(parts, keys) == []
        await parts.comparer._pending.flush()
        assert len(waiting(redis, parts)) == 1
    monkeypatch.setattr(pending, "LEFT_MS", -1)
    await parts.comparer.look()
    await compared(parts)
    assert [one.correct for one in await outcomes(parts, keys)] == [False]
    assert waiting(redis, parts) == []


def noted(at: int) -> Note:
    return Note(operator("acme"), f"{at:032x}", ["0" * 32], at, at, Comparison.EQUAL)


async def test_so_many_are_kept_for_so_long(
    parts: Parts, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MOST", 5)
    clock = iter(range(100_000, 200_000, 1000))
    own = Pending(parts.redis, parts.target.keys, parts.keyring, parts.responses, lambda: next(clock))
    for at in range(8):
        own.add(noted(at))
        own.add(
            Note(operator("acme"), "x", [], at, at, Comparison.EQUAL, before=b"x" * (pending.LONGEST + 1))
        )
        await own.flush()
    assert len(waiting(redis, parts)) == 5
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*comparisons")
    assert 0 < redis.pttl(name) <= pending.KEPT_MS


async def test_what_was_altered_is_no_note(parts: Parts, redis: Redis) -> None:
    own = Pending(parts.redis, parts.target.keys, parts.keyring, parts.responses, now_ms)
    own.add(noted(1))
    await own.flush()
    (member,) = waiting(redis, parts)
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*comparisons")
    redis.zadd(name, {member.replace(b"acme", b"evil"): 1, b"rubbish": 1, member: 1})
    found = await own.left(10)
    assert [note for _, note in found] == [noted(1)]
    await own.flush()
    assert waiting(redis, parts) == [member]


async def test_who_is_at_work_says_so(parts: Parts, other: Parts) -> None:
    """Others leave it alone then."""
    time = [now_ms()]
    clocks = [
        Pending(one.redis, one.target.keys, one.keyring, one.responses, lambda: time[0])
        for one in (parts, other)
    ]
    name = clocks[0].add(noted(1))
    for _ in range(8):
        await clocks[0].flush()
        assert await clocks[1].left(10) == []
        time[0] += 5_000
    clocks[0].let_go(name)
    await clocks[0].flush()
    time[0] += pending.LEFT_MS
    assert len(await clocks[1].left(10)) == 1
    assert await clocks[0].left(10) == []  # it was taken up


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups were answered by another process."""
    monkeypatch.setattr("service.store.decisions.is_own", lambda _: False)


@pytest.mark.usefixtures("elsewhere")
async def test_a_decision_that_is_just_being_written_is_waited_for(
    parts: Parts, other: Parts, keys: TenantKeys
) -> None:
    lookup_id = await missed(parts, keys)
    finding = asyncio.create_task(other.ledger.decisions.find(keys, lookup_id))
    await asyncio.sleep(0.3)
    assert not finding.done()
    await parts.ledger.flush()
    assert await finding is not None


@pytest.mark.usefixtures("elsewhere")
async def test_an_answer_stored_at_another_worker_at_once_is_compared(
    parts: Parts, other: Parts, keys: TenantKeys
) -> None:
    lookup_id = await missed(parts, keys)
    follow(VERIFIED, other)
    await keep(other, keys, **OWN, response='"other"', lookup_id=lookup_id)
    async with other.comparer.running():
        await asyncio.sleep(0.3)
        await parts.ledger.flush()
        await asyncio.wait_for(other.comparer.settled(), 30)
    assert [one.correct for one in await outcomes(other, keys)] == [False]
