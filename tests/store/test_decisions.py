"""Decisions: found by their lookup id, bounded, and nobody else's."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.decided import UNIT, Decided
from service.cache.decisions import Decisions, Gathered
from service.cache.digests import TenantKeys
from service.cache.ports import Work
from service.cache.tickets import issued
from service.errors import StoreUnavailableError
from service.model import Hit, Miss, Origin, Policy, Reason
from service.store.client import Command
from service.store.decisions import RedisDecisions, bucket_of
from service.wiring import Parts, now_ms
from tests.helpers import Same, asked, keep, near, vector

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def look(parts: Parts, keys: TenantKeys, **fields: object) -> Hit | Miss:
    """As the HTTP layer does: answered and counted."""
    question, work = asked(keys, parts, **fields), Work()
    (answer,) = await parts.lookup.answer([question], keys, work)
    parts.accounting.looked_up(keys, [question], [answer], work)
    return answer


async def test_each_lookup_is_found_before_and_after_it_is_written(parts: Parts, keys: TenantKeys) -> None:
    stored = await keep(parts, keys, prompt="q", embedding=vector(1))
    exact = await look(parts, keys, prompt="q", embedding=vector(1))
    semantic = await look(parts, keys, prompt="Q", embedding=near(1, 0.9), threshold=0.8, tiers=["semantic"])
    miss = await look(parts, keys, prompt="third", embedding=near(1, 0.3))
    decisions = parts.ledger.decisions
    for flush in (False, True):
        if flush:
            await decisions.flush()
        found = [await decisions.find(keys, one.lookup_id) for one in (exact, semantic, miss)]
        told = [one.decided for one in found if one is not None]
        assert [one.outcome for one in told] == [Origin.EXACT, Origin.SEMANTIC, Reason.BELOW_THRESHOLD]
        assert {one.entry_id for one in told} == {bytes.fromhex(stored.entry_id)}
        assert [round(one.similarity / UNIT, 2) for one in told] == [1.0, 0.9, 0.3]
        assert told[1].threshold == round(0.8 * UNIT)
        assert {one.generation for one in told} == {1}
        assert all(one is not None and one.agent_type == "a" for one in found)


async def test_another_tenant_finds_nothing_nor_does_a_wrong_id(parts: Parts, keys: TenantKeys) -> None:
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    await parts.ledger.decisions.flush()
    other = parts.keyring.of(operator("other"))
    assert await parts.ledger.decisions.find(other, answer.lookup_id) is None
    assert await parts.ledger.decisions.find(keys, issued(1, now_ms())) is None
    assert await parts.ledger.decisions.find(keys, "no id") is None
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is not None


async def test_what_was_altered_is_nothing(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    await parts.ledger.decisions.flush()
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:decisions:*:*:*")
    (field,) = redis.hkeys(name)
    redis.hset(name, field, "altered")
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is None


async def test_a_policy_keeps_none_or_for_its_time(
    parts: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.lookup, "_policies", Same(Policy(decisions_s=0)))
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    await parts.ledger.decisions.flush()
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is None
    monkeypatch.setattr(parts.lookup, "_policies", Same(Policy(decisions_s=100)))
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    await parts.ledger.decisions.flush()
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is not None
    (name,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:decisions:*:*:*")
    assert 99_000 < redis.pexpiretime(name) - now_ms() < 110_000
    monkeypatch.setattr(parts.ledger.decisions, "_clock", lambda: now_ms() + 101_000)
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is None


async def test_a_process_keeps_so_many(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    """The oldest go; in whole hashes."""
    gathering = Decisions()
    decisions = RedisDecisions(
        parts.redis, parts.target.keys, parts.responses, gathering, clock=now_ms, most=20
    )
    begun, ids = now_ms(), list[str]()
    for turn in range(5):
        ids = [issued(1, begun + turn * 10_000) for _ in range(8)]
        some = [Decided(bytes.fromhex(one), 3, seconds=1000) for one in ids]
        gathering._gathered[keys.tenant, "a"] = Gathered(keys, "a", some)
        await decisions.flush()
    names = set(redis.scan_iter(f"{parts.settings.key_prefix}:*:decisions:*:*:*"))
    assert len(names) == 2
    assert {name.decode().rpartition(":")[2] for name in names} == {
        bucket_of(issued(1, begun + turn * 10_000)).rpartition(":")[2] for turn in (3, 4)
    }
    (listed,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:decisions:list:*")
    assert redis.zcard(listed) == 2
    assert [one.decided.lookup_id.hex() async for one in decisions.all(keys)][-8:] == ids


async def test_what_another_process_just_decided_is_waited_for(
    parts: Parts, other: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feedback and fresh answers may come to another process than the lookup, before that one wrote it."""
    with monkeypatch.context() as its:
        its.setattr("service.cache.tickets._chance", 12345)
        answer = await look(other, keys, prompt="q", embedding=vector(1))
    finding = asyncio.create_task(parts.ledger.decisions.find(keys, answer.lookup_id))
    await asyncio.sleep(0.3)
    await other.ledger.decisions.flush()
    found = await finding
    assert found is not None
    assert found.decided.lookup_id.hex() == answer.lookup_id
    for issued_at in (now_ms() - 1000, now_ms() - 60_000, now_ms() + 60_000):  # not for ever
        with monkeypatch.context() as its:
            its.setattr("service.cache.tickets._chance", 12345)
            unknown = issued(1, issued_at)
        assert await parts.ledger.decisions.find(keys, unknown) is None


async def test_what_is_written_again_is_there_once(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis took it, and its answer was lost."""
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    whole = parts.redis.values

    async def unheard(*commands: Any) -> None:
        await whole(*commands)
        raise StoreUnavailableError("away")

    monkeypatch.setattr(parts.redis, "values", unheard)
    with pytest.raises(StoreUnavailableError):
        await parts.ledger.decisions.flush()
    monkeypatch.setattr(parts.redis, "values", whole)
    await parts.ledger.decisions.flush()
    found = [one.decided.lookup_id.hex() async for one in parts.ledger.decisions.all(keys)]
    assert found == [answer.lookup_id]


async def test_the_list_forgets_what_has_ended(
    parts: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes itself when the last has ended."""
    gathering, now = Decisions(), now_ms()
    decisions = RedisDecisions(parts.redis, parts.target.keys, parts.responses, gathering, clock=lambda: now)
    some = [Decided(bytes.fromhex(issued(1, now + at * 600_000)), 3, seconds=60) for at in range(60)]
    for one in some:
        now += 600_000
        gathering._gathered[keys.tenant, "a"] = Gathered(keys, "a", [one])
        await decisions.flush()
    (listed,) = redis.scan_iter(f"{parts.settings.key_prefix}:*:decisions:list:*")
    assert redis.zcard(listed) < 10
    assert redis.pexpiretime(listed) < now + 2 * 3_600_000
    trips, whole = list[int](), parts.redis.run

    async def counted(commands: Sequence[Command], *more: Any, **named: Any) -> Any:
        trips.append(len(commands))
        return await whole(commands, *more, **named)

    monkeypatch.setattr(parts.redis, "run", counted)
    assert [one.decided async for one in decisions.all(keys)][-1] == some[-1]
    assert len(trips) == 2


async def test_what_redis_did_not_take_is_written_later(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await look(parts, keys, prompt="q", embedding=vector(1))
    whole = parts.redis.values

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(parts.redis, "values", away)
    with pytest.raises(StoreUnavailableError):
        await parts.ledger.decisions.flush()
    monkeypatch.setattr(parts.redis, "values", whole)
    await parts.ledger.decisions.flush()
    assert await parts.ledger.decisions.find(keys, answer.lookup_id) is not None


async def test_a_bounded_number_waits(
    keys: TenantKeys, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cache.decisions.MOST_WAITING", 2)
    gathering = Decisions()
    question = asked(keys, parts, prompt="q", embedding=vector(1))
    answer = question.answer(parts.responses.generation, now_ms(), {}, 0.1)
    for _ in range(3):
        gathering.note(keys, question, answer)
    assert sum(len(one.decided) for one in gathering.drain()) == 2
    assert gathering.take_dropped() == 1
