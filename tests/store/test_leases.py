"""Of callers that miss the same at the same time one leads; the others are served what it stores."""

import asyncio
from typing import Any

import anyio
import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.ports import Work
from service.cache.tickets import issued, ticket
from service.errors import StoreUnavailableError
from service.model import Hit, LookupRequest, Miss
from service.store.keys import Keys
from service.store.leases import RedisLeases
from service.wiring import Parts
from tests.helpers import keep

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def waiting(
    parts: Parts, keys: TenantKeys, wait_s: float, *, leads: bool = True, **fields: Any
) -> Hit | Miss:
    request = msgspec.convert({"agent_type": "a", "prompt": "who leads?", **fields}, LookupRequest)
    _, answer = await parts.lookup.answer_waiting(request, keys, wait_s, Work(), leads=leads)
    return answer


async def test_of_a_thousand_one_leads_and_the_others_are_served(
    parts: Parts, other: Parts, keys: TenantKeys
) -> None:
    answers: list[Hit | Miss] = []

    async def ask(service: Parts) -> None:
        answer = await waiting(service, keys, 60)
        answers.append(answer)
        if isinstance(answer, Miss) and answer.lease:
            await anyio.sleep(0.3)  # the work
            await keep(parts, keys, prompt="who leads?", response='"I"', lookup_id=answer.lookup_id)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for at in range(1000):
                group.start_soon(ask, other if at % 2 else parts)
    misses = [answer for answer in answers if isinstance(answer, Miss)]
    assert [miss.lease for miss in misses] == [True]
    hits = [answer for answer in answers if isinstance(answer, Hit)]
    assert len(hits) == 999
    assert {bytes(hit.response) for hit in hits} == {b'"I"'}
    assert len({hit.lookup_id for hit in hits}) == 999


async def test_a_dead_leaders_lease_is_passed_on_to_one(parts: Parts, other: Parts, keys: TenantKeys) -> None:
    leader = await waiting(parts, keys, 1)
    assert isinstance(leader, Miss)
    assert leader.lease
    answers: list[Hit | Miss] = []

    async def ask(service: Parts) -> None:
        answer = await waiting(service, keys, 30)
        answers.append(answer)
        if isinstance(answer, Miss):
            await keep(parts, keys, prompt="who leads?", response='"next"', lookup_id=answer.lookup_id)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for at in range(40):
                group.start_soon(ask, other if at % 2 else parts)
    assert [one.lease for one in answers if isinstance(one, Miss)] == [True]


async def test_without_a_wait_nobody_waits_or_leads(parts: Parts, keys: TenantKeys) -> None:
    assert (await waiting(parts, keys, 30)).lease is True  # type: ignore[union-attr] # a hit has none
    (answer,) = await parts.lookup.answer(
        [parts.lookup.question(LookupRequest(agent_type="a", prompt="who leads?"), keys)], keys
    )
    assert isinstance(answer, Miss)
    assert not answer.lease


async def test_the_wait_has_an_end(parts: Parts, keys: TenantKeys) -> None:
    await waiting(parts, keys, 30)
    answer = await waiting(parts, keys, 0.1)
    assert isinstance(answer, Miss)
    assert (answer.lease, answer.reason) == (False, "empty")
    assert parts.leases._rooms == {}


async def test_zero_asks_for_the_lease_only(parts: Parts, keys: TenantKeys) -> None:
    first, second = await waiting(parts, keys, 0), await waiting(parts, keys, 0)
    assert [first.lease, second.lease] == [True, False]  # type: ignore[union-attr] # hits have none


async def test_readers_get_none_but_may_wait(parts: Parts, keys: TenantKeys) -> None:
    with anyio.fail_after(10):
        alone = await waiting(parts, keys, 60, leads=False)
    assert isinstance(alone, Miss)
    assert not alone.lease
    leader = await waiting(parts, keys, 60)
    got: list[Hit | Miss] = []

    async def read() -> None:
        got.append(await waiting(parts, keys, 60, leads=False))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.sleep(0.1)
            await keep(parts, keys, prompt="who leads?", lookup_id=leader.lookup_id)
    assert isinstance(got[0], Hit)


async def test_what_is_refused_holds_nobody_up(parts: Parts, keys: TenantKeys) -> None:
    leader = await waiting(parts, keys, 60)
    name = parts.lookup.name(LookupRequest(agent_type="a", prompt="who leads?"), keys)
    answers: list[Hit | Miss] = []

    async def ask() -> None:
        answers.append(await waiting(parts, keys, 60))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask)
            await anyio.sleep(0.1)
            await parts.leases.release(keys, name, leader.lookup_id, refused=True)
    assert [answer.lease for answer in answers if isinstance(answer, Miss)] == [False] * 5


async def test_another_question_or_tenant_has_a_lease_of_its_own(parts: Parts, keys: TenantKeys) -> None:
    others = parts.keyring.of(operator("another"))
    answers = [
        await waiting(parts, keys, 5),
        await waiting(parts, others, 5),
        await waiting(parts, keys, 5, prompt="another"),
        await waiting(parts, keys, 5, agent_type="b"),
    ]
    assert [answer.lease for answer in answers if isinstance(answer, Miss)] == [True] * 4


async def test_a_hit_takes_no_lease(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt="who leads?")
    assert isinstance(await waiting(parts, keys, 60), Hit)
    assert await parts.leases.take(
        keys, parts.lookup.name(LookupRequest(agent_type="a", prompt="who leads?"), keys), "token", 1
    )


def test_a_ticket_says_when_it_was_issued() -> None:
    assert ticket(issued(1_800_000_000_000, 1_800_000_000_123)) == (1_800_000_000_000, 1_800_000_000_123)
    assert ticket("not one of ours") == ticket("g" * 32) == (0, 0)


async def test_a_full_redis_makes_nobody_wait(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    redis.config_set("maxmemory", 1)
    try:
        with anyio.fail_after(10):
            answer = await waiting(parts, keys, 60)
    finally:
        redis.config_set("maxmemory", 0)
    assert isinstance(answer, Miss)
    assert not answer.lease


async def test_a_late_reply_of_redis_sends_nobody_on(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await waiting(parts, keys, 60)
    held, failures = type(parts.leases._book).held, 2

    async def late(self: Any, names: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailableError("no answer in time")
        return await held(self, names)

    monkeypatch.setattr(type(parts.leases._book), "held", late)
    got: list[Hit | Miss] = []

    async def ask() -> None:
        got.append(await waiting(parts, keys, 60))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            while failures:
                await anyio.sleep(0.01)
            await keep(parts, keys, prompt="who leads?", lookup_id=leader.lookup_id)
    assert isinstance(got[0], Hit)


async def test_who_is_cancelled_while_he_takes_one_gives_it_back(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str
) -> None:
    """What takes it may still be on its way, behind a long write."""
    book = RedisLeases(parts.redis, Keys(prefix), parts.responses)
    for number in range(40):
        name, much = f"{number:032x}", [("SET", f"{prefix}:long", "x" * 30_000)]
        long = [asyncio.create_task(parts.redis.run(much)) for _ in range(30)]
        taking = asyncio.create_task(book.take(keys, name, "token", 30_000))
        for _ in range(2):
            await asyncio.sleep(0)  # it is sent
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await book.release(keys, name, "token", refused=False)
        await asyncio.gather(*long)
    assert list(redis.scan_iter(f"{prefix}:*leases*", count=1000)) == []
