"""Concurrent lookups of tool results, over two services."""

from typing import Any

import anyio
import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.ports import Work
from service.model import Hit, Miss, ToolCall, ToolHit, ToolMiss, ToolStoreRequest
from service.settings import Settings
from service.store.policies import TOOLS
from service.wiring import Loaded, Parts, opened
from tests.helpers import keep as store_answer
from tests.helpers import look

pytestmark = pytest.mark.anyio

CALL = {"agent_type": "a", "tool": "get_weather", "arguments": {"city": "Paris"}}


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def ask(parts: Parts, keys: TenantKeys, wait_s: float | None = 60) -> ToolHit | ToolMiss:
    call = parts.tools.call(msgspec.json.decode(msgspec.json.encode(CALL), type=ToolCall), keys)
    return await parts.tools.look_up(call, wait_s, Work(), leads=True)


async def keep(parts: Parts, keys: TenantKeys, result: Any, **more: Any) -> None:
    body = msgspec.json.encode(CALL | {"result": result} | more)
    await parts.tools.store(msgspec.json.decode(body, type=ToolStoreRequest), keys)


async def many(parts: Parts, other: Parts, keys: TenantKeys, number: int, result: str) -> list[Any]:
    """That many callers at once, of both services; who leads stores."""
    answers: list[ToolHit | ToolMiss] = []

    async def one(service: Parts) -> None:
        answer = await ask(service, keys)
        answers.append(answer)
        if isinstance(answer, ToolMiss) and answer.lease:
            await anyio.sleep(0.3)  # the tool runs
            await keep(parts, keys, result, lookup_id=answer.lookup_id)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for at in range(number):
                group.start_soon(one, other if at % 2 else parts)
    return answers


async def test_of_a_thousand_one_runs_the_tool(parts: Parts, other: Parts, keys: TenantKeys) -> None:
    answers = await many(parts, other, keys, 1000, "sun")
    assert [one.lease for one in answers if isinstance(one, ToolMiss)] == [True]
    assert [bytes(one.result) for one in answers if isinstance(one, ToolHit)] == [b'"sun"'] * 999


async def test_of_concurrent_stale_hits_one_is_told_to_refresh(
    parts: Parts, other: Parts, keys: TenantKeys
) -> None:
    given = b'{"tool":"get_weather","stale_while_revalidate_s":60}'
    await parts.policies.put(keys, "get_weather", given, TOOLS)
    await other.policies.refresh()
    await keep(parts, keys, "old", ttl_s=1)
    await anyio.sleep(1.05)
    answers = await many(parts, other, keys, 100, "new")
    assert [(one.lease, one.rule) for one in answers if isinstance(one, ToolMiss)] == [(True, "stale")]
    hits = [(one.stale, bytes(one.result)) for one in answers if isinstance(one, ToolHit)]
    assert len(hits) == 99
    assert {(True, b'"old"')} <= set(hits) <= {(True, b'"old"'), (False, b'"new"')}
    fresh = await ask(other, keys, None)
    assert isinstance(fresh, ToolHit)
    assert (fresh.stale, bytes(fresh.result)) == (False, b'"new"')


async def test_who_refreshes_and_dies_is_followed_by_another(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cache.tools.REFRESH_S", 0.2)
    given = b'{"tool":"get_weather","stale_while_revalidate_s":60}'
    await parts.policies.put(keys, "get_weather", given, TOOLS)
    await keep(parts, keys, "old", ttl_s=1)
    await anyio.sleep(1.05)
    told = [await ask(parts, keys, None) for _ in range(3)]
    assert [isinstance(one, ToolMiss) for one in told] == [True, False, False]
    await anyio.sleep(0.25)
    assert isinstance(await ask(parts, keys, None), ToolMiss)


async def test_what_invalidation_could_not_find_is_not_served(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    """Redis evicts key by key, and a store may be cut off: a record without its document is passed over."""
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        keys = parts.keyring.of(operator("acme"))
        await keep(parts, keys, "sun", sources=["s"])
        await store_answer(parts, keys, prompt="p", sources=["s"])
        assert isinstance(await ask(parts, keys, None), ToolHit)
        assert isinstance(await look(parts, keys, prompt="p"), Hit)
        for key in [*redis.scan_iter(f"{prefix}:*:document:*")]:
            redis.delete(key)
        assert isinstance(await ask(parts, keys, None), ToolMiss)
        assert isinstance(await look(parts, keys, prompt="p"), Miss)
