"""Too many requests, too many bytes, too often."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import msgspec
import pytest
from redis import Redis

from service.api.auth import Role, create_key
from service.app import create_app
from service.settings import Settings
from service.store.client import connected
from service.store.embedded import EmbeddedRedis
from service.store.rates import Rates
from service.wiring import Loaded, Parts

pytestmark = pytest.mark.anyio

LOOKUP, BATCH = "/v1/cache/lookup", "/v1/cache/lookup/batch"
QUESTION = {"agent_type": "a", "prompt": "p"}


@contextlib.asynccontextmanager
async def limited(settings: Settings, models: Loaded, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(replace(settings, **limits), settings.redis_url or "", models)
    # Not Litestar's client, which has a loop for the app and sends one request after the other.
    transport = httpx.ASGITransport(cast("Any", app))
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        yield http


async def statuses(http: httpx.AsyncClient, count: int, path: str, **request: Any) -> list[int]:
    """Of as many requests at once."""
    found: list[int] = []

    async def one() -> None:
        found.append((await http.post(path, **request)).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return found


async def test_requests_in_flight_are_bounded_per_key(
    settings: Settings, models: Loaded, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    greedy, other = ({"Authorization": f"Bearer {create_key(keys, 'acme', Role.reader)}"} for _ in range(2))
    async with limited(settings, models, max_in_flight=4, keys_file=keys) as http:
        found: dict[str, list[int]] = {}

        async def run(name: str, count: int, headers: dict[str, str]) -> None:
            found[name] = await statuses(http, count, LOOKUP, json=QUESTION, headers=headers)

        async with anyio.create_task_group() as group:
            group.start_soon(run, "greedy", 40, greedy)
            group.start_soon(run, "other", 4, other)
        assert set(found["greedy"]) == {200, 429}
        assert found["greedy"].count(200) >= 4
        assert found["other"] == [200] * 4
        await http.post(LOOKUP, json={"prompt": 7}, headers=greedy)  # an error gives its place back, too
        assert await statuses(http, 4, LOOKUP, json=QUESTION, headers=greedy) == [200] * 4


async def test_bodies_in_flight_are_bounded(settings: Settings, models: Loaded) -> None:
    async with limited(settings, models, max_body_bytes_in_flight=2**25) as http:
        body = msgspec.json.encode({"items": [QUESTION]}) + b" " * (15 * 2**20)
        found = await statuses(http, 4, BATCH, content=body)
        assert sorted(found) == [200, 429, 429, 429]
        assert await statuses(http, 1, BATCH, content=body) == [200]
        assert await statuses(http, 1, LOOKUP, content=body) == [413]


async def test_the_rate_limit(settings: Settings, models: Loaded, tmp_path: Path) -> None:
    """Ten at once, then one each tenth of a second; a key may have its own limit."""
    keys = tmp_path / "keys.json"
    plain, slow, free = (
        {"Authorization": f"Bearer {create_key(keys, 'acme', Role.reader, rate)}"} for rate in (None, 1, 0)
    )
    async with limited(settings, models, rate_limit=10, keys_file=keys) as http:
        found = [(await http.post(LOOKUP, json=QUESTION, headers=slow)).status_code for _ in range(3)]
        assert found[0] == 200
        assert found.count(429) >= 1
        assert 429 not in await statuses(http, 40, LOOKUP, json=QUESTION, headers=free)
        found = await statuses(http, 60, LOOKUP, json=QUESTION, headers=plain)
        assert 10 <= found.count(200) < 60
        refused = await http.post(LOOKUP, json=QUESTION, headers=slow)
        with anyio.fail_after(10):
            while refused.status_code == 200:  # a slow machine
                refused = await http.post(LOOKUP, json=QUESTION, headers=slow)
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["title"] == "Too many requests"
            await anyio.sleep(1)
            assert (await http.post(LOOKUP, json=QUESTION, headers=slow)).status_code == 200


async def test_a_clock_that_went_back_locks_nobody_out(parts: Parts, redis: Redis, prefix: str) -> None:
    rates, key = Rates(parts.redis, parts.target.keys, 5), f"{prefix}:{{rate:k}}"
    for spoilt in (str((redis.time()[0] + 3600) * 10**6), "inf", "nan", "abc", "-1e300"):
        redis.set(key, spoilt)
        assert await rates.wait_s("k", 1) == 0
        assert 0 < await rates.wait_s("k", 1) <= 1


async def test_a_full_redis_counts_all_the_same(parts: Parts, redis: Redis) -> None:
    rates = Rates(parts.redis, parts.target.keys, 5)
    redis.config_set("maxmemory", 1)
    try:
        assert await rates.wait_s("k", 1) == 0
        assert await rates.wait_s("k", 1) > 0
    finally:
        redis.config_set("maxmemory", 0)


async def test_a_function_that_is_gone_is_loaded_again(
    parts: Parts, redis: Redis, redis_server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(redis_server.url, 5, "probe") as admin:
        rates = Rates(admin, parts.target.keys, 5)
        redis.function_flush()
        for _ in range(3):
            await rates.wait_s("k", 1)
        assert await rates.wait_s("k", 1) > 0
        assert len([one for one in caplog.records if "not in force" in one.getMessage()]) == 1


async def test_gcra_counts_exactly(parts: Parts, redis: Redis, prefix: str) -> None:
    """Of 200 at once at 100 per second, the burst of 100 and what its time brings."""
    rates = Rates(parts.redis, parts.target.keys, 5)
    before = redis.time()
    waits: list[float] = []

    async def one() -> None:
        waits.append(await rates.wait_s("k", 100))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    after = redis.time()
    took_s = after[0] - before[0] + (after[1] - before[1]) / 1e6
    admitted = waits.count(0)
    assert 100 <= admitted <= 100 + took_s * 100
    assert all(0 < wait <= 0.011 for wait in waits if wait)
    assert 0 < redis.pttl(f"{prefix}:{{rate:k}}") <= 1100


async def test_without_redis_nobody_is_held_up_by_the_rate_limit(settings: Settings, models: Loaded) -> None:
    away = replace(settings, redis_url="redis://127.0.0.1:1")
    async with limited(away, models, rate_limit=1) as http:
        for _ in range(20):
            answer = await http.post(LOOKUP, json=QUESTION)
            assert (answer.status_code, answer.headers["x-cache"]) == (200, "BYPASS")
