"""Calls that share a connection: what befalls one, and what befalls them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import hiredis
import pytest

from bench.proxy import Proxy, proxied
from service.cache.ports import Budget
from service.errors import StoreUnavailableError
from service.settings import Settings
from service.store import lanes
from service.store.client import Command, RedisClient, connected
from service.store.connections import Connections, Taken
from service.store.lanes import IN_FLIGHT, LARGE
from service.telemetry import REDIS_FAILURES

pytestmark = pytest.mark.anyio

SEARCH: Command = ("FT.SEARCH", "none", "*")


@asynccontextmanager
async def behind(settings: Settings, timeout_s: float = 5) -> AsyncIterator[tuple[Proxy, RedisClient]]:
    """A client whose Redis is behind a proxy."""
    assert settings.redis_url
    async with (
        proxied(settings.redis_url) as proxy,
        connected(proxy.url, timeout_s, f"{settings.key_prefix}:probe") as client,
    ):
        yield proxy, client


@asynccontextmanager
async def held(proxy: Proxy, what: bytes) -> AsyncIterator[None]:
    """The next request with these bytes doesn't come through before the end."""
    proxy.hold = what
    proxy.go.clear()
    try:
        yield
    finally:
        proxy.go.set()


async def begun(*calls: Any) -> list[asyncio.Task[Any]]:
    """Sent, and on their way."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0.05)
    return tasks


class Told(Taken):
    """The first reply, on a connection of its own."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self.reply = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self.reply.set_result(self._reader.gets())

    def connection_lost(self, exc: Exception | None) -> None:
        assert exc is None
        self.gone.set()


@pytest.mark.parametrize(("resp", "empty"), [(2, []), (3, {})])
async def test_a_connection_for_a_protocol_of_ours(
    settings: Settings, resp: Literal[2, 3], empty: Any
) -> None:
    told = Told()
    await Connections(settings.redis_url or "", 5).opened(told, resp)
    told.transport.write(b"HGETALL sc:none\r\n")
    with anyio.fail_after(10):
        assert await told.reply == empty
        told.transport.abort()
        await told.gone.wait()


async def test_many_calls_share_a_connection_and_a_batch(settings: Settings) -> None:
    async with behind(settings) as (proxy, client):
        before = await client.call("INFO", "commandstats")
        connections = proxy.connections
        replies = await asyncio.gather(*[client.run([("ECHO", str(n)), ("PTTL", "sc:x")]) for n in range(64)])
        assert replies == [[b"%d" % n, -2] for n in range(64)]
        assert proxy.connections == connections + 1
        after = await client.call("INFO", "commandstats")
        assert echoes(after) - echoes(before) == 64 + 1 + 1  # theirs, the batch's, the first INFO's


def echoes(info: bytes) -> int:
    told = [line for line in info.splitlines() if line.startswith(b"cmdstat_echo:calls=")]
    return int(told[0].split(b"=")[1].split(b",")[0]) if told else 0


async def test_a_connection_that_dies_half_way_answers_nobody(settings: Settings) -> None:
    """Also those whose replies had come: nothing shows yet that they are theirs. It is one failure."""
    async with behind(settings) as (proxy, client):
        await client.call("ECHO", "x")
        proxy.cut_after = 100
        failed = REDIS_FAILURES.labels("connection")._value.get()
        calls = [client.call("ECHO", f"{n:04d}") for n in range(64)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, StoreUnavailableError) for one in outcomes)
        assert REDIS_FAILURES.labels("connection")._value.get() == failed + 64
        assert not client.breaker.is_open
        assert await client.call("ECHO", "y") == b"y"


async def test_a_planted_reply_fails_its_batch_once(settings: Settings) -> None:
    async with behind(settings) as (proxy, client):
        await client.call("ECHO", "x")
        proxy.plants.append(b"$1\r\nz\r\n")
        failed = REDIS_FAILURES.labels("unbound")._value.get()
        calls = [client.call("ECHO", f"{n:04d}") for n in range(64)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(one, StoreUnavailableError) for one in outcomes)
        assert REDIS_FAILURES.labels("unbound")._value.get() == failed + 64
        assert not client.breaker.is_open
        assert await client.call("ECHO", "y") == b"y"


async def test_a_reply_on_an_idle_connection_ends_it(settings: Settings) -> None:
    async with behind(settings) as (_, client):
        await client.call("ECHO", "x")
        (link,) = [one._link for one in client.lanes._all() if one._link is not None]
        link.data_received(b"+OK\r\n")
        assert link not in [one._link for one in client.lanes._all()]
        assert await client.call("ECHO", "y") == b"y"
        assert not client.breaker.is_open


async def test_a_transaction_without_an_end_harms_nobody(settings: Settings) -> None:
    async with behind(settings) as (_, client):
        for _ in range(3):  # the other is on the same lane
            calls = (client.run([("MULTI",), ("PTTL", "sc:x")]), client.run([("SET", "sc:x", 1, "PX", 1000)]))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(one, StoreUnavailableError) for one in outcomes)
        assert await client.call("SET", "sc:x", 2, "PX", 1000) == b"OK"


async def test_one_gives_up_and_the_others_of_its_batch_do_not(settings: Settings) -> None:
    async with behind(settings) as (proxy, client):
        await client.call("ECHO", "x")
        connections = proxy.connections
        async with held(proxy, b"patient"):
            others = (client.call("ECHO", "patient"), client.call("ECHO", "gone"))
            hasty, patient, gone = await begun(client.run([("ECHO", "hasty")], Budget(0.1)), *others)
            gone.cancel()
            with pytest.raises(StoreUnavailableError):
                await hasty
            assert not patient.done()
        assert await patient == b"patient"
        assert await client.call("ECHO", "y") == b"y"
        assert proxy.connections == connections


@pytest.mark.parametrize("slow", [SEARCH, ("ECHO", "x" * LARGE), ("TYPE", "slow"), ("MULTI",)])
async def test_what_is_slow_does_not_hold_up_reads(settings: Settings, slow: Command) -> None:
    async with behind(settings) as (proxy, client):
        commands = [slow, ("EXEC",)] if slow == ("MULTI",) else [slow]
        name, *rest = slow
        async with held(proxy, str(rest[0] if rest else name).encode()[:1000]):
            (task,) = await begun(client.run(commands))
            assert await client.call("ECHO", "y") == b"y"
            assert not task.done()
        await task


async def test_what_may_wait_longer_goes_alone(settings: Settings) -> None:
    async with behind(settings, timeout_s=1) as (proxy, client):
        async with held(proxy, b"patient"):
            (task,) = await begun(client.call("ECHO", "patient", timeout_s=30))
            assert await client.call("ECHO", "y") == b"y"
        assert await task == b"patient"


async def test_a_silent_connection_is_left(settings: Settings) -> None:
    """One that a firewall has forgotten, say: no later call waits for it, and no breaker is needed."""
    async with behind(settings, timeout_s=0.3) as (proxy, client):
        await client.call("ECHO", "x")
        async with held(proxy, b"lost"):
            with pytest.raises(StoreUnavailableError):
                await client.call("ECHO", "lost")
            assert await client.call("ECHO", "y") == b"y"
            assert not client.breaker.is_open
            with anyio.fail_after(10):
                while client.lanes._shared["read"]._old:
                    await asyncio.sleep(0.01)


async def test_what_waits_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST_BYTES", 10_000)
    async with behind(settings) as (proxy, client):
        await client.call("ECHO", "x")
        async with held(proxy, b"first"):
            calls = [client.call("ECHO", "first" + "x" * 900) for _ in range(10)]
            tasks = await begun(*calls)
            with pytest.raises(StoreUnavailableError, match="busy"):
                await client.call("ECHO", "x" * 900)
            assert not client.breaker.is_open
        assert len(await asyncio.gather(*tasks)) == 10
        assert await client.call("ECHO", "x" * 900)


def searched(info: bytes) -> int:
    """Those of an index that isn't there are rejected."""
    told = [line for line in info.splitlines() if line.startswith(b"cmdstat_FT.SEARCH:")]
    return int(told[0].split(b"rejected_calls=")[1].split(b",")[0]) if told else 0


async def test_few_searches_are_in_redis_at_once(settings: Settings) -> None:
    async with behind(settings) as (proxy, client):
        await client.run([SEARCH])
        lane = client.lanes._shared["search"]
        before = searched(await client.call("INFO", "commandstats"))
        async with held(proxy, b"FT.SEARCH"):
            tasks = await begun(*[client.run([SEARCH]) for _ in range(8)])
            hasty = await begun(*[client.run([SEARCH], Budget(0.1)) for _ in range(4)])
            assert lane._link is not None
            assert len(lane._link.batches) == IN_FLIGHT
            outcomes = await asyncio.gather(*hasty, return_exceptions=True)
            assert all(isinstance(one, StoreUnavailableError) for one in outcomes)
        assert len(await asyncio.gather(*tasks)) == 8
        assert lane.is_idle
        assert searched(await client.call("INFO", "commandstats")) - before == 8  # of the hasty ones none


async def test_searches_that_were_not_sent_outlive_a_connection(settings: Settings) -> None:
    async with behind(settings) as (proxy, client):
        await client.run([SEARCH])
        async with held(proxy, b"FT.SEARCH"):
            tasks = await begun(*[client.run([SEARCH]) for _ in range(8)])
            link = client.lanes._shared["search"]._link
            assert link is not None
            link.end(ConnectionError("cut"))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        lost = [one for one in outcomes if isinstance(one, StoreUnavailableError)]
        assert len(lost) == IN_FLIGHT


async def test_closing_fails_who_waits(settings: Settings) -> None:
    async with behind(settings) as (proxy, client), held(proxy, b"late"):
        (task,) = await begun(client.call("ECHO", "late"))
        await client.close()
        with pytest.raises(StoreUnavailableError):
            await task
