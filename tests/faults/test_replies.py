"""No caller ever gets the reply of another: cancelled callers, slow connections, replies nobody asked for."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from redis import Redis

from bench.proxy import Proxy, proxied
from service.api.auth import operator
from service.cache.ports import Budget
from service.errors import StoreUnavailableError
from service.model import Hit
from service.settings import Settings
from service.store import connections
from service.store.client import Command
from service.wiring import Loaded, Parts, opened
from tests.helpers import accepted, keep, look, vector

pytestmark = pytest.mark.anyio

log = logging.getLogger(__name__)

OPERATIONS = 20_000
STRAYS = 1_000
AT_ONCE = 64
KEYS = 50

Operation = Callable[[int], Awaitable[bool]]
"""Does something for a number; whether the answer was that number's."""


class Tally:
    """What became of the operations."""

    def __init__(self) -> None:
        self.right = self.wrong = self.failed = self.cancelled = 0

    async def one(self, operation: Operation, number: int, cancel_after_s: float | None) -> None:
        task = asyncio.ensure_future(operation(number))
        if cancel_after_s is not None:
            await asyncio.sleep(cancel_after_s)
            task.cancel()
        try:
            right = await task
        except asyncio.CancelledError:
            self.cancelled += 1
        except StoreUnavailableError:
            self.failed += 1
        except Exception:  # noqa: BLE001 - what a reply of another makes of the code
            self.wrong += 1
        else:
            self.right += right
            self.wrong += not right

    def __str__(self) -> str:
        return f"{self.right} right, {self.wrong} wrong, {self.failed} failed, {self.cancelled} cancelled"


async def many(operations: list[Operation], count: int, *, cancel: bool, seed: int = 1) -> Tally:
    """Run `count` operations, some at a time; half of them cancelled at a random point if asked."""
    tally, rng = Tally(), random.Random(seed)  # noqa: S311 - repeatable on purpose
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def limited(operation: Operation, number: int, after: float | None) -> None:
        async with limiter:
            await tally.one(operation, number, after)

    async with anyio.create_task_group() as group:
        for at in range(count):
            after = rng.uniform(0, 0.02) if cancel and rng.random() < 0.6 else None
            group.start_soon(limited, operations[at % len(operations)], rng.randrange(KEYS), after)
    return tally


@contextlib.asynccontextmanager
async def through_a_proxy(
    settings: Settings, models: Loaded, delay_s: float
) -> AsyncIterator[tuple[Proxy, Parts]]:
    """A service whose Redis is behind a proxy."""
    assert settings.redis_url
    async with proxied(settings.redis_url, delay_s) as proxy:
        behind = replace(settings, redis_url=proxy.url)
        async with opened(behind, proxy.url, models) as parts:
            await parts.attach(lambda _: None)
            yield proxy, parts


class Shapes:
    """Every shape of command that the program sends, and the calls over them, on entries of known answers."""

    def __init__(self, parts: Parts, redis: Redis, prefix: str) -> None:
        self._parts, self._redis, self._prefix = parts, redis, prefix
        self._keys = parts.keyring.of(operator("acme"))
        self._tags = [self._keys.current.digest("tag", b"%d" % n) for n in range(KEYS)]

    async def prepare(self) -> list[Operation]:
        for n in range(KEYS):
            self._redis.set(self._key("string", n), f"string {n}")
            self._redis.hset(self._key("hash", n), mapping={"n": n})
            self._redis.hset(self._key("responses:document:1", n), "tag", self._tags[n])
            await keep(self._parts, self._keys, response=str(n), **self._question(n))
        raw = [self.get, self.gets, self.hash, self.transaction, self.search, self.error]
        return [*raw, self.lookup, self.semantic, self.store]

    def _key(self, kind: str, n: int) -> str:
        return f"{self._prefix}:{{0}}:{kind}:{n:032d}"

    def _question(self, n: int) -> dict[str, Any]:
        return {"prompt": f"p{n}", "agent_type": f"a{n}", "embedding": vector(n)}

    async def get(self, n: int) -> bool:
        return bool(await self._parts.redis.call("GET", self._key("string", n)) == b"string %d" % n)

    async def gets(self, n: int) -> bool:
        numbers = [n, (n + 1) % KEYS, (n + 2) % KEYS]
        replies = await self._parts.redis.run([("GET", self._key("string", one)) for one in numbers])
        return replies == [b"string %d" % one for one in numbers]

    async def hash(self, n: int) -> bool:
        reply = await self._parts.redis.call("HGETALL", self._key("hash", n))
        return bool(reply == [b"n", b"%d" % n])

    async def transaction(self, n: int) -> bool:
        key = self._key("string", n)
        commands: list[Command] = [("MULTI",), ("GET", key), ("SET", key, f"string {n}"), ("EXEC",)]
        replies = await self._parts.redis.run(commands)
        return bool(replies[-1] == [b"string %d" % n, b"OK"])

    async def search(self, n: int) -> bool:
        index, found = f"{self._prefix}:{{0}}:responses:index:1", self._key("responses:document:1", n)
        query = ("@tag:{$tag}", "PARAMS", 2, "tag", self._tags[n], "NOCONTENT", "DIALECT", 2)
        reply = await self._parts.redis.call("FT.SEARCH", index, *query)
        return bool(reply == [1, found.encode()])

    async def error(self, n: int) -> bool:
        (reply,) = await self._parts.redis.run([("HGETALL", self._key("string", n))])
        return isinstance(reply, Exception) and "WRONGTYPE" in str(reply)

    async def lookup(self, n: int) -> bool:
        answer = await look(self._parts, self._keys, **self._question(n))
        return not isinstance(answer, Hit) or bytes(answer.response) == str(n).encode()

    async def semantic(self, n: int) -> bool:
        answer = await look(self._parts, self._keys, **self._question(n), tiers=["semantic"])
        return not isinstance(answer, Hit) or bytes(answer.response) == str(n).encode()

    async def store(self, n: int) -> bool:
        entry = accepted(self._keys, self._parts, str(n), **self._question(n))
        (receipt,) = await self._parts.store.answer([entry], self._keys)
        return not isinstance(receipt, Exception)


async def balanced(parts: Parts) -> bool:
    """Nothing is lent, and as many calls as there are connections get through at once."""
    lent = parts.redis.connections.lent
    async with anyio.create_task_group() as group:
        for _ in range(connections.MOST):
            group.start_soon(parts.redis.call, "ECHO", "x")
    return lent == 0 == parts.redis.connections.lent


async def test_cancelled_callers_harm_nobody(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    async with through_a_proxy(settings, models, 0.004) as (_, parts):
        tally = await many(await Shapes(parts, redis, prefix).prepare(), OPERATIONS, cancel=True)
        log.info("%d operations: %s", OPERATIONS, tally)
        assert tally.wrong == 0
        assert tally.failed == 0
        assert tally.cancelled > OPERATIONS * 0.4
        assert await balanced(parts)


@pytest.fixture
def no_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand faults in a row are the point of some tests."""
    monkeypatch.setattr("service.store.breaker.IN_A_ROW", 10**9)
    monkeypatch.setattr("service.store.breaker.OF_WINDOW", 10**9)


@pytest.mark.usefixtures("no_breaker")
@pytest.mark.parametrize("checked", [True, False])
async def test_the_harness_finds_replies_of_others(
    settings: Settings,
    models: Loaded,
    redis: Redis,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    checked: bool,
) -> None:
    """The same harness over a build that keeps the connections of cancelled callers."""

    @contextlib.asynccontextmanager
    async def one(self: connections.Connections) -> AsyncIterator[Any]:
        connection: Any = self._idle.pop() if self._idle else self._made()
        await connection.connect()
        read = type(connection).read_response
        connection.read_response = lambda: read(connection, disconnect_on_error=False)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    monkeypatch.setattr(connections.Connections, "one", one)
    if not checked:
        monkeypatch.setattr("service.store.client.is_bound", lambda *_: True)
    async with through_a_proxy(settings, models, 0.004) as (_, parts):
        tally = await many(await Shapes(parts, redis, prefix).prepare(), 2_000, cancel=True)
        log.info("without the drop, %s the nonce: %s", "with" if checked else "without", tally)
        assert tally.wrong == 0 if checked else tally.wrong > 100


@pytest.mark.usefixtures("no_breaker")
@pytest.mark.parametrize("checked", [True, False])
async def test_stray_replies(
    settings: Settings,
    models: Loaded,
    redis: Redis,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    checked: bool,
) -> None:
    """A reply that nobody asked for comes before the next one. Without the check, it is taken for it."""
    rng = random.Random(2)  # noqa: S311 - repeatable on purpose
    async with through_a_proxy(settings, models, 0) as (proxy, parts):
        operations = await Shapes(parts, redis, prefix).prepare()
        if not checked:
            monkeypatch.setattr("service.store.client.is_bound", lambda *_: True)
        strays = [
            b"$8\r\nstring 1\r\n",
            b"*2\r\n$1\r\nn\r\n$1\r\n1\r\n",
            b"+OK\r\n",
            b"*1\r\n:0\r\n",
            b"$-1\r\n",
        ]
        tally = Tally()
        for at in range(STRAYS):
            proxy.plants.append(rng.choice(strays))
            await tally.one(operations[at % len(operations)], rng.randrange(KEYS), None)
        log.info("%d strays, %s: %s", proxy.planted, "checked" if checked else "not checked", tally)
        assert proxy.planted >= STRAYS - 5
        if checked:
            assert tally.wrong == 0
            assert await balanced(parts)
        else:
            assert tally.wrong > STRAYS / 20  # many spoil only the login of a connection made anew


async def test_a_queue_for_connections_is_not_redis_fault(settings: Settings, models: Loaded) -> None:
    """Redis is slow, and answers each call in time; ten times as many callers as connections are not."""
    async with through_a_proxy(replace(settings, redis_timeout_s=0.5), models, 0.15) as (_, parts):
        late = 0

        async def one() -> None:
            nonlocal late
            try:
                await parts.redis.call("ECHO", "x")
            except StoreUnavailableError:
                late += 1

        async with anyio.create_task_group() as group:
            for _ in range(10 * connections.MOST):
                group.start_soon(one)
        assert late > connections.MOST
        assert not parts.redis.breaker.is_open
        assert parts.redis.connections.lent == 0


async def test_a_budget_that_ends_costs_the_connection_not_the_next_caller(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    async with through_a_proxy(settings, models, 0.004) as (_, parts):
        get, *_ = await Shapes(parts, redis, prefix).prepare()
        late = 0
        for n in range(200):
            try:
                await parts.redis.run([("GET", "x")], Budget(0.001 + n % 5 / 1000))
            except StoreUnavailableError:
                late += 1
            with contextlib.suppress(StoreUnavailableError):
                assert await get(n % KEYS)
        assert late > 0
        assert await balanced(parts)
