"""A Redis that hangs, loads, refuses, is emptied or loses its index; an embedder that fails."""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from litestar.testing import AsyncTestClient
from redis import Redis

from service.api.auth import operator
from service.app import create_app
from service.cache.digests import TenantKeys
from service.cache.ports import Budget
from service.errors import EmbedderError, LayoutError, StoreFullError, StoreUnavailableError
from service.model import Hit, Miss, Reason
from service.settings import Settings
from service.store.breaker import IN_A_ROW, WINDOW
from service.store.client import PROBE_S
from service.store.embedded import EmbeddedRedis, running_url
from service.telemetry import BREAKER_OPEN, REDIS_FAILURES
from service.wiring import Loaded, Parts, opened
from tests.acl import acl_options, as_service
from tests.helpers import accepted, keep, look

pytestmark = pytest.mark.anyio

KEY = "acme"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that the test may hurt."""
    (tmp_path / "redis").mkdir()
    options = ["--enable-debug-command", "yes", *acl_options(tmp_path / "redis")]
    with EmbeddedRedis(tmp_path / "redis", options=options) as server:
        yield server


@asynccontextmanager
async def service(
    own: EmbeddedRedis, models: Loaded, timeout_s: float = 0.25, *, admin: bool = False
) -> AsyncIterator[Parts]:
    """As the ACL's user; `admin` where a test sends through it what the service never does."""
    url = own.url if admin else as_service(own.url)
    settings = Settings(redis_url=url, secret="a secret of the tests, 1", redis_timeout_s=timeout_s)
    async with opened(settings, url, models) as parts:
        with anyio.fail_after(30):
            while parts.responses.generation is None:
                try:
                    await parts.attach(lambda _: None)
                except StoreUnavailableError:
                    await anyio.sleep(0.05)
        yield parts


def acme(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator(KEY))


async def degraded(parts: Parts, **fields: Any) -> bool:
    answer = await look(parts, acme(parts), **fields)
    return isinstance(answer, Miss) and answer.reason is Reason.DEGRADED


def is_open(parts: Parts) -> bool:
    return parts.redis.breaker.is_open


def connected_lanes(parts: Parts) -> int:
    return sum(lane._link is not None for lane in parts.redis.lanes._all())


async def closed(parts: Parts) -> None:
    """Wait for the probe."""
    with anyio.fail_after(10):
        while is_open(parts):
            await anyio.sleep(0.05)


async def test_a_hung_redis_makes_misses_and_comes_back(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models) as parts:
        keys = acme(parts)
        await keep(parts, keys, prompt="p")
        assert own.pid
        os.kill(own.pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(10):  # not the 59 s of redis-py's own settings
                assert await degraded(parts, prompt="p")
                with pytest.raises(StoreUnavailableError):
                    await parts.store.answer([accepted(keys, parts, prompt="q")], keys)
        finally:
            os.kill(own.pid, signal.SIGCONT)
        with anyio.fail_after(10):
            while await degraded(parts, prompt="p"):
                pass
        assert isinstance(await look(parts, keys, prompt="p"), Hit)


async def test_the_breaker_opens_and_closes_by_itself(
    own: EmbeddedRedis, models: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with service(own, models, timeout_s=0.05) as parts:
        keys = acme(parts)
        await keep(parts, keys, prompt="p")
        assert connected_lanes(parts) > 1
        assert own.pid
        os.kill(own.pid, signal.SIGSTOP)
        try:
            for _ in range(200):
                assert await degraded(parts, prompt="p")
            assert is_open(parts)
            assert BREAKER_OPEN._value.get() == 1
            assert connected_lanes(parts) == 0
            asked_in_vain = REDIS_FAILURES.labels("timeout")._value.get()
            assert await degraded(parts, prompt="p")
            assert REDIS_FAILURES.labels("timeout")._value.get() == asked_in_vain
        finally:
            os.kill(own.pid, signal.SIGCONT)
        await closed(parts)
        assert isinstance(await look(parts, keys, prompt="p"), Hit)
        assert BREAKER_OPEN._value.get() == 0
        said = [one.getMessage() for one in caplog.records if one.name == "service.store.client"]
        assert [one[:13] for one in said] == ["Redis is away", "Redis is back"]


async def test_a_blocked_event_loop_is_not_redis_fault(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models) as parts:
        answers: list[bool] = []

        async def one() -> None:
            answers.append(await degraded(parts, prompt="p"))

        async with anyio.create_task_group() as group:
            for _ in range(2 * IN_A_ROW):
                group.start_soon(one)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            time.sleep(0.5)  # noqa: ASYNC251 - as decoding a huge body would
        assert len(answers) == 2 * IN_A_ROW
        assert not is_open(parts)


async def test_a_busy_event_loop_does_not_hide_a_hung_redis(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, timeout_s=0.1) as parts:

        async def one() -> None:
            assert await degraded(parts, prompt="p")

        assert own.pid
        os.kill(own.pid, signal.SIGSTOP)
        try:
            with anyio.fail_after(20):
                async with anyio.create_task_group() as group:
                    while not is_open(parts):
                        group.start_soon(one)
                        await anyio.sleep(0.03)
                        time.sleep(0.08)  # noqa: ASYNC251 - the loop is never quite free
        finally:
            os.kill(own.pid, signal.SIGCONT)


async def test_a_read_only_server_is_not_well(own: EmbeddedRedis, models: Loaded) -> None:
    """It answers a PING, and would lose every store."""
    async with service(own, models, timeout_s=5) as parts:
        keys = acme(parts)
        await keep(parts, keys, prompt="p")
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.replicaof("127.0.0.1", 1)
            redis.config_set("replica-serve-stale-data", "yes")
            for _ in range(IN_A_ROW):
                with pytest.raises(StoreUnavailableError):
                    await parts.redis.call("SET", "sc:x", 1)
            assert is_open(parts)
            await anyio.sleep(2 * PROBE_S)
            assert is_open(parts)
            redis.replicaof("NO", "ONE")
        await closed(parts)
        await keep(parts, keys, prompt="q")


async def test_the_budget_is_the_requests_not_the_round_trips(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, timeout_s=5, admin=True) as parts:
        budget = Budget(0.3)
        await parts.redis.run([("DEBUG", "SLEEP", 0.2)], budget)
        assert budget.left_s < 0.1
        with pytest.raises(StoreUnavailableError):
            await parts.redis.run([("DEBUG", "SLEEP", 0.2)], budget)


async def test_no_command_is_repeated(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, admin=True) as parts:
        await parts.redis.call("SET", "count", 0)
        cut = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")  # this connection's end, too
        with pytest.raises(StoreUnavailableError):
            await parts.redis.run([("INCR", "count"), cut, ("PING",)])
        with Redis.from_url(own.url, protocol=2) as redis:
            assert redis.get("count") == b"1"


@pytest.mark.parametrize("code", ["LOADING", "READONLY", "NOAUTH", "CLUSTERDOWN", "NOPERM"])
async def test_an_error_is_not_an_honest_miss(
    own: EmbeddedRedis, models: Loaded, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """The server itself makes the reply, out of a script."""
    async with service(own, models, admin=True) as parts:
        run = type(parts.redis).run

        async def refused(self: Any, commands: Any, *rest: Any) -> Any:
            script = f"return redis.error_reply('{code} for a test')"
            return await run(self, [("EVAL", script, 0) for _ in commands], *rest)

        monkeypatch.setattr(type(parts.redis), "run", refused)
        assert await degraded(parts, prompt="p")
        keys = acme(parts)
        with pytest.raises(StoreUnavailableError):
            await parts.store.answer([accepted(keys, parts, prompt="q")], keys)


async def test_a_full_redis_acknowledges_nothing(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, timeout_s=5) as parts:
        keys = acme(parts)
        await keep(parts, keys, prompt="p")
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.config_set("maxmemory", "1")
            outcomes = await parts.store.answer(
                [accepted(keys, parts, prompt=prompt) for prompt in ("q", "r")], keys
            )
            assert [type(outcome) for outcome in outcomes] == [StoreFullError, StoreFullError]
            for _ in range(2 * WINDOW):  # never opens the breaker: hits go on
                await parts.store.answer([accepted(keys, parts, prompt="q")], keys)
            assert isinstance(await look(parts, keys, prompt="p"), Hit)
            redis.config_set("maxmemory", "0")
        await keep(parts, keys, prompt="q")


@pytest.mark.parametrize("harm", [["FLUSHALL"], ["FT.DROPINDEX", "sc:{0}:responses:index:1"]])
async def test_a_lost_index_is_made_again(own: EmbeddedRedis, models: Loaded, harm: list[str]) -> None:
    async with service(own, models, timeout_s=5) as parts:
        keys = acme(parts)
        await keep(parts, keys, prompt="How do I reset my password?")
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.execute_command(*harm)
        with pytest.raises(StoreUnavailableError):  # as the watch of the service would
            await parts.responses.usable()
        assert await degraded(parts, prompt="p")
        with pytest.raises(StoreUnavailableError):
            await parts.store.answer([accepted(keys, parts, prompt="q")], keys)
        await parts.attach(lambda _: None)
        await parts.responses.usable()
        if harm == ["FLUSHALL"]:
            await keep(parts, keys, prompt="How do I reset my password?")
        with anyio.fail_after(10):
            while True:  # the index fills from the documents
                answer = await look(parts, keys, prompt="How can I reset my password?")
                if isinstance(answer, Hit):
                    break


STRICT = b'{"threshold":0.99}'


def strict(parts: Parts) -> bool:
    policy = parts.policies.of(acme(parts), "a")
    return policy is not None and policy.threshold == 0.99


async def test_policies_outlive_an_emptied_redis(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, timeout_s=5) as parts:
        await parts.policies.put(acme(parts), "a", STRICT)
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.flushall()
        with pytest.raises(StoreUnavailableError):
            await parts.responses.usable()
        assert strict(parts)
        with pytest.raises(StoreUnavailableError):  # not before there is a layout
            await parts.policies.put(acme(parts), "a", b"{}")
        await parts.attach(lambda _: None)
        assert strict(parts)
        async with service(own, models, timeout_s=5) as other:
            assert strict(other)


async def test_policies_stay_in_force_while_redis_is_away(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models) as parts:
        await parts.policies.put(acme(parts), "a", STRICT)
        own.stop()
        for unavailable in (parts.policies.refresh(), parts.policies.put(acme(parts), "a", b"{}")):
            with pytest.raises(StoreUnavailableError):
                await unavailable
        assert strict(parts)
        own.start()
        await closed(parts)
        with anyio.fail_after(10):
            while True:  # it loads first
                try:
                    await parts.policies.put(acme(parts), "b", STRICT)
                except StoreUnavailableError:
                    await anyio.sleep(0.05)
                else:
                    break
        assert strict(parts)


async def test_a_full_redis_keeps_the_policy_before(own: EmbeddedRedis, models: Loaded) -> None:
    async with service(own, models, timeout_s=5) as parts:
        await parts.policies.put(acme(parts), "a", STRICT)
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.config_set("maxmemory", "1")
            with pytest.raises(StoreFullError):
                await parts.policies.put(acme(parts), "a", b"{}")
            await parts.policies.refresh()
            assert strict(parts)
            redis.delete("sc:{0}:policies")
            for _ in range(2):  # no room to write it back
                await parts.policies.refresh()
                assert strict(parts)
            assert not redis.exists("sc:{0}:policies")
            redis.config_set("maxmemory", "0")
            await parts.policies.refresh()
            assert redis.exists("sc:{0}:policies")


async def test_policies_over_http(own: EmbeddedRedis, models: Loaded) -> None:
    url = as_service(own.url)
    settings = Settings(redis_url=url, secret="a secret of the tests, 1")
    async with AsyncTestClient(create_app(settings, url, models)) as http:

        async def status(method: str) -> int:
            body = STRICT if method == "PUT" else None
            answer = await http.request(method, "/v1/policies", params={"agent_type": "a"}, content=body)
            assert (answer.status_code == 503) == ("retry-after" in answer.headers)
            return answer.status_code

        async def reached(method: str) -> None:
            with anyio.fail_after(20):
                while await status(method) != 200:
                    await anyio.sleep(0.05)

        await reached("PUT")
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.config_set("maxmemory", "1")
            assert await status("PUT") == 507
            assert await status("GET") == 200
            redis.config_set("maxmemory", "0")
        own.stop()
        for method in ("PUT", "GET"):
            assert await status(method) == 503
        assert (await http.get("/livez")).status_code == 200
        own.start()
        await reached("GET")
        with Redis.from_url(own.url, protocol=2) as redis:
            redis.flushall()
            with anyio.fail_after(20):  # the watch sets up the layout, and brings the policy back
                while not redis.exists("sc:{0}:policies"):
                    await anyio.sleep(0.05)
        await reached("GET")
        found = await http.get("/v1/policies", params={"agent_type": "a"})
        assert found.json()["threshold"] == 0.99


async def test_a_redis_without_search_is_refused_and_untouched(
    own: EmbeddedRedis, models: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Redis.from_url(own.url, protocol=2) as redis:
        monkeypatch.setattr("service.store.index.LIST_INDEXES", "FT.NO_SUCH_COMMAND")
        settings = Settings(redis_url=own.url, secret="a secret of the tests, 1")
        async with opened(settings, own.url, models) as parts:
            with pytest.raises(LayoutError, match="no search"):
                await parts.attach(lambda _: None)
        assert redis.dbsize() == 0


async def test_a_failing_embedder_leaves_the_exact_tier(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = acme(parts)
    await keep(parts, keys, prompt="p")

    async def fail(*_: Any) -> Any:
        raise EmbedderError("away")

    monkeypatch.setattr(type(parts.embedder), "embed", fail)
    assert isinstance(await look(parts, keys, prompt="p"), Hit)
    assert await degraded(parts, prompt="q")
    too_long = accepted(keys, parts, prompt="long " * 400)
    outcomes = await parts.store.answer([accepted(keys, parts, prompt="q"), too_long], keys)
    assert isinstance(outcomes[0], EmbedderError)
    assert not isinstance(outcomes[1], EmbedderError)
    assert isinstance(await look(parts, keys, prompt="q", tiers=["exact"]), Miss)


def test_the_folder_is_the_owners(tmp_path: Path) -> None:
    odd = tmp_path / "a#b 50%41"
    assert running_url(odd) is None
    with EmbeddedRedis(odd) as server:
        url = running_url(odd)
        assert url == server.url
        with Redis.from_url(server.url) as redis:
            assert redis.ping()
    assert running_url(odd) is None
    assert not (odd / "redis.url").exists()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / ("x" * 120)) as server:
        assert server.url.startswith("redis://127.0.0.1:")
