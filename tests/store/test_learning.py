"""What is learned outlives processes: nothing is counted twice, whoever says it, and all go by the same."""

import asyncio
from typing import Any

import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.accounting import DAY_MS
from service.cache.decided import PLACES, UNIT, model_of
from service.cache.digests import Keyring, TenantKeys
from service.cache.learning.adaptive import State, Why
from service.cache.learning.learned import Learned
from service.cache.learning.quality import verdicts
from service.cache.outcomes import Outcome, Said
from service.cache.tickets import issued
from service.errors import InvalidInputError
from service.model import Origin, Policy, Reason
from service.store.learning import MEASURED_MS
from service.store.outcomes import RedisOutcomes, sealed
from service.telemetry import FALSE_HITS
from service.wiring import Loaded, Parts, now_ms, opened
from tests.helpers import Same

pytestmark = pytest.mark.anyio

AGENT = "a"


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


def outcome(parts: Parts, at: int, *, correct: bool, **more: object) -> Outcome:
    """Of a semantic hit."""
    assert parts.responses.generation is not None
    fields = {
        "lookup_id": bytes.fromhex(issued(1, now_ms())),
        "source": "feedback",
        "at": PLACES[Origin.SEMANTIC],
        "entry_id": at.to_bytes(16),
        "similarity": round(0.7 * UNIT),
        "threshold": round(0.65 * UNIT),
        "model": model_of(parts.responses.generation),
    }
    return Outcome(correct=correct, **(fields | more))  # type: ignore[arg-type] # a test's


async def test_said_twice_is_said_once(parts: Parts, other: Parts, keys: TenantKeys) -> None:
    """By a client that tries again, by two processes, and read again after a restart."""
    some = [outcome(parts, at % 3, correct=at % 4 > 0, source="explore") for at in range(40)]
    for one in some:
        await asyncio.gather(*(each.judging.outcomes.put(keys, AGENT, one) for each in (parts, other, parts)))
    for each in (parts, other):
        each.learning.of(keys, AGENT)
        await each.learning.refresh()
        await each.learning.refresh()
        assert len(each.learning.of(keys, AGENT).said) == 40
    mine, theirs = parts.learning.of(keys, AGENT), other.learning.of(keys, AGENT)
    assert mine.prior == theirs.prior
    assert mine.prior.observed == 40
    assert mine.rows()[1] == theirs.rows()[1]


async def test_what_changed_holds(parts: Parts, keys: TenantKeys) -> None:
    one = outcome(parts, 1, correct=True)
    model = one.model
    for correct in (True, False, True, False):
        await parts.judging.outcomes.put(keys, AGENT, msgspec.structs.replace(one, correct=correct))
    (said,) = await parts.judging.outcomes.read(keys, AGENT, model)
    assert said.outcome.correct is False
    review = msgspec.structs.replace(one, source="review", correct=True)
    await parts.judging.outcomes.put(keys, AGENT, review)
    parts.learning.of(keys, AGENT)
    await parts.learning.refresh()
    learned = parts.learning.of(keys, AGENT)
    assert {it.outcome.source for it in learned.said.values()} == {"feedback", "review"}
    assert [seen.correct for seen in learned.rows()[1]] == [True]  # the reviewer's word holds
    (verdict,) = verdicts(learned.said.values())
    assert verdict.right


async def test_a_clock_that_is_ahead_hides_nothing(
    parts: Parts, keys: TenantKeys, models: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has read what such a process kept reads what others keep then, and what they change."""
    monkeypatch.setattr("service.wiring.now_ms", lambda: now_ms() + 60_000)
    async with opened(parts.settings, parts.settings.redis_url or "", models) as ahead:
        await ahead.attach(lambda _: None)
        changed = outcome(parts, 1, correct=True)
        await ahead.judging.outcomes.put(keys, AGENT, changed)
        parts.learning.of(keys, AGENT)
        await parts.learning.refresh()
        for at in range(10):
            await parts.judging.outcomes.put(keys, AGENT, outcome(parts, at, correct=True))
        await parts.judging.outcomes.put(keys, AGENT, msgspec.structs.replace(changed, correct=False))
        await parts.learning.refresh()
        said = parts.learning.of(keys, AGENT).said
        assert len(said) == 11
        assert said[changed.lookup_id, "feedback"].outcome.correct is False


async def test_what_changed_holds_over_a_rotation(parts: Parts, keys: TenantKeys) -> None:
    """What was said under the previous secret is taken back with it."""
    secrets = b"another secret of the tests", (parts.settings.secret or "").encode()
    rotated = Keyring(*secrets).of(keys.tenant)
    one = outcome(parts, 1, correct=True)
    contrary = msgspec.structs.replace(one, correct=False)
    await parts.judging.outcomes.put(keys, AGENT, one)
    assert await parts.judging.outcomes.are_kept(rotated, AGENT, [one, contrary]) == [True, False]
    await parts.judging.outcomes.put(rotated, AGENT, contrary)
    assert await parts.judging.outcomes.are_kept(rotated, AGENT, [one, contrary]) == [False, True]
    (said,) = await parts.judging.outcomes.read(rotated, AGENT, one.model)
    assert said.outcome == contrary


async def test_what_is_old_goes(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    """Also while the agent_type is told of all the time."""
    old, new = outcome(parts, 1, correct=True), outcome(parts, 2, correct=True)
    await parts.judging.outcomes.put(keys, AGENT, old)
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:outcomes:*")
    (member,) = redis.zrange(name, 0, 0)
    redis.zadd(name, {member: now_ms() - 91 * 86_400_000})  # type: ignore[type-var] # its stubs
    await parts.judging.outcomes.put(keys, AGENT, new)
    assert [it.outcome for it in await parts.judging.outcomes.read(keys, AGENT, old.model)] == [new]


async def test_a_bounded_number_is_kept(parts: Parts, keys: TenantKeys) -> None:
    outcomes = RedisOutcomes(parts.redis, parts.target.keys, parts.responses, most=10)
    some = [outcome(parts, at, correct=True) for at in range(25)]
    for one in some:
        await outcomes.put(keys, AGENT, one)
    found = await outcomes.read(keys, AGENT, some[0].model)
    assert [it.outcome for it in found] == some[-10:]


async def test_what_was_altered_is_nothing(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    one = outcome(parts, 1, correct=True)
    await parts.judging.outcomes.put(keys, AGENT, one)
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:outcomes:*")
    newer = sealed(msgspec.structs.replace(one, lookup_id=bytes(16), at=99), keys.current)
    redis.zadd(name, {b"\x01" + b"x" * 40: 5, b"": 6, newer: 7})
    assert [it.outcome for it in await parts.judging.outcomes.read(keys, AGENT, one.model)] == [one]
    other = parts.keyring.of(operator("other"))
    assert await parts.judging.outcomes.read(other, AGENT, one.model) == []


async def test_one_moves_and_all_follow(
    parts: Parts, other: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever process reads the verdicts first; one that is killed before it wrote has moved nothing."""
    policies = Same(Policy(mode="adaptive", threshold=0.65))
    for each in (parts, other):
        monkeypatch.setattr(each.learning, "_policies", policies)
        each.learning.of(keys, AGENT)
    for at in range(30):
        await parts.judging.outcomes.put(keys, AGENT, outcome(parts, at, correct=at % 2 > 0))
    write = parts.learning._write

    async def killed(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(parts.learning, "_write", killed)
    with pytest.raises(asyncio.CancelledError):
        await parts.learning.refresh()
    monkeypatch.setattr(parts.learning, "_write", write)
    await asyncio.gather(parts.learning.refresh(), other.learning.refresh())
    await asyncio.gather(parts.learning.refresh(), other.learning.refresh())
    found = [await each.learning.state(keys, AGENT) for each in (parts, other)]
    assert found[0] == found[1]
    assert found[0] is not None
    assert len(found[0].moves) == 1
    assert found[0].threshold > 0.65
    policy = policies.of(keys, AGENT)
    assert policy is not None
    known = [each.learning.threshold(keys, AGENT, policy) for each in (parts, other)]
    assert known == [found[0].threshold] * 2


async def test_undone_by_two_at_once_it_is_undone_once(
    parts: Parts, other: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = Same(Policy(mode="adaptive", threshold=0.65))
    for each in (parts, other):
        monkeypatch.setattr(each.learning, "_policies", policies)
        each.learning.of(keys, AGENT)
    for at in range(30):
        await parts.judging.outcomes.put(keys, AGENT, outcome(parts, at, correct=at % 2 > 0))
    await parts.learning.refresh()
    undone = await asyncio.gather(
        *(each.learning.undo(keys, AGENT, 1) for each in (parts, other, parts)), return_exceptions=True
    )
    assert [type(one) for one in undone].count(State) == 1
    assert [str(one) for one in undone if isinstance(one, InvalidInputError)] == [
        "number: is not the last move's"
    ] * 2
    found = await other.learning.state(keys, AGENT)
    assert found is not None
    assert [(move.number, move.why) for move in found.moves] == [(1, Why.WRONG), (2, Why.UNDONE)]
    assert found.threshold == 0.65


async def test_a_state_that_was_altered_or_put_elsewhere_is_none(
    parts: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.learning, "_policies", Same(Policy(mode="adaptive", threshold=0.7)))
    parts.learning.of(keys, AGENT)
    await parts.learning.refresh()
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:threshold:*")
    there: Any = redis.hgetall(name)
    ((number, blob),) = there.items()
    redis.hset(name, mapping={b"77": blob, b"78": blob[:-1] + b"?", b"\xff": b""})
    found = await parts.learning.state(keys, AGENT)
    assert (number, found) == (b"0", State(0.7, asked=0.7))


async def test_where_it_is_not_known_yet_the_threshold_is_high(parts: Parts, keys: TenantKeys) -> None:
    policy = Policy(mode="adaptive", threshold=0.7, threshold_bounds=(0.6, 0.9))
    assert parts.learning.threshold(keys, AGENT, policy) == 0.9


def test_an_answer_of_its_own_begins_anew() -> None:
    """Observations are of an entry's answer, not of its id."""
    learned = Learned()
    outcomes = [
        Outcome(bytes([at]) * 16, "explore", at > 0, PLACES[Reason.EXPLORE], bytes(16), 8000, answer=at % 2)
        for at in range(8)
    ]
    learned.take(Said(at, one) for at, one in enumerate(outcomes))
    names, _ = learned.rows()
    assert sorted(set(names)) == [(bytes(16), 0), (bytes(16), 1)]
    assert learned.fit((bytes(16), 2)) == learned.fit((bytes(16), 3))
    assert learned.fit((bytes(16), 0)) != learned.fit((bytes(16), 1))


async def test_questions_about_others_push_nobody_out(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read could ask about agent_types that don't exist, one after the other."""
    monkeypatch.setattr("service.store.learning.MOST", 3)
    await parts.policies.put(keys, AGENT, b'{"mode":"verified"}')
    await parts.judging.outcomes.put(keys, AGENT, outcome(parts, 1, correct=True, source="explore"))
    await parts.learning.refresh()
    mine = parts.learning.of(keys, AGENT)
    for at in range(5):
        quality, _, counts = await parts.learning.told(keys, f"made-up {at}")
        assert (quality.verdicts, counts) == (0, (0, 0))
        assert await parts.learning.state(keys, f"made-up {at}") is None
    assert len(parts.learning._known) == 1
    for at in range(5):
        parts.learning.of(keys, f"with verdicts {at}")
    assert len(parts.learning._known) == 3
    assert parts.learning.of(keys, AGENT) is mine
    assert len(mine.said) == 1


async def test_gauges_follow_hits_and_are_there_after_a_restart(
    parts: Parts, other: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gauge() -> float:
        return float(FALSE_HITS.labels("acme", AGENT, "rate")._value.get())

    async def hits(times: int) -> None:
        for _ in range(times):
            parts.accounting._cell(keys, AGENT)["strata", str(now_ms() // DAY_MS), "2"] += 1
        await parts.ledger.counted.flush(parts.accounting)

    await hits(1)
    one = outcome(parts, 1, correct=False, stratum=2)
    await parts.judging.outcomes.put(keys, AGENT, one)
    monkeypatch.setattr(other.learning, "_named", frozenset({"acme"}))
    monkeypatch.setattr(other.learning, "_named_at", 0)
    await other.learning.refresh()
    assert gauge() == 1.0
    await hits(9)
    monkeypatch.setattr(other.learning, "_clock", lambda: now_ms() + MEASURED_MS)
    await other.learning.refresh()
    assert gauge() == 0.1
