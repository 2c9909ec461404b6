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
from service.store.client import Command
from service.store.lanes import LARGE, OWN
from service.store.link import Link
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
        raw = [self.get, self.gets, self.hash, self.transaction, self.search, self.error, self.large]
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

    async def large(self, n: int) -> bool:
        """It goes alone."""
        text = b"%d" % n * LARGE
        return bool(await self._parts.redis.call("ECHO", text) == text)

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
    """Nothing is due any more, and as many calls that go alone as there may be get through at once."""
    lanes = parts.redis.lanes
    with anyio.fail_after(10):
        while not all(lane.is_idle for lane in lanes._all()):
            await asyncio.sleep(0.01)
    large = "x" * LARGE
    async with anyio.create_task_group() as group:
        for _ in range(OWN):
            group.start_soon(parts.redis.call, "ECHO", large)
    return len(lanes._own) == OWN and all(lane.is_idle for lane in lanes._all())


async def test_cancelled_callers_harm_nobody(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    async with through_a_proxy(settings, models, 0.004) as (_, parts):
        tally = await many(await Shapes(parts, redis, prefix).prepare(), OPERATIONS, cancel=True)
        log.info("%d operations: %s", OPERATIONS, tally)
        assert tally.wrong == 0
        assert tally.failed == 0
        assert tally.cancelled > OPERATIONS * 0.25  # most are answered before their time
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
    """The same harness over a build that doesn't wait for the replies of cancelled callers."""
    take = Link._take

    def forgetful(self: Link, reply: Any) -> None:
        for batch in list(self.batches)[:1]:
            batch.calls = [call for call in batch.calls if not call[0].cancelled()]
            batch.count = sum(count for _, count, _ in batch.calls)
        take(self, reply)

    monkeypatch.setattr(Link, "_take", forgetful)
    if not checked:
        monkeypatch.setattr("service.store.link.misbound", lambda *_: None)
    async with through_a_proxy(settings, models, 0.004) as (_, parts):
        tally = await many(await Shapes(parts, redis, prefix).prepare(), 2_000, cancel=True)
        log.info("forgetful, %s the nonce: %s", "with" if checked else "without", tally)
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
            monkeypatch.setattr("service.store.link.misbound", lambda *_: None)
        strays = [
            b"$8\r\nstring 1\r\n",
            b"*2\r\n$1\r\nn\r\n$1\r\n1\r\n",
            b"+OK\r\n",
            b"*1\r\n:0\r\n",
            b"$-1\r\n",
        ]
        tally = Tally()
        for at in range(STRAYS):
            operation, number = operations[at % len(operations)], rng.randrange(KEYS)
            with contextlib.suppress(StoreUnavailableError):
                await operation(number)  # the connection is there
            proxy.plants.append(rng.choice(strays))
            await tally.one(operation, number, None)
        log.info("%d strays, %s: %s", proxy.planted, "checked" if checked else "not checked", tally)
        assert proxy.planted >= STRAYS - 5
        if checked:
            assert tally.wrong == 0
            assert await balanced(parts)
        else:
            assert tally.wrong > STRAYS / 4


@pytest.mark.usefixtures("no_breaker")
async def test_stray_replies_among_many(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    """The calls that share a batch with one fail; none takes another's."""
    rng = random.Random(3)  # noqa: S311 - repeatable on purpose
    async with through_a_proxy(settings, models, 0.002) as (proxy, parts):
        operations = await Shapes(parts, redis, prefix).prepare()

        async def plant() -> None:
            while True:
                proxy.plants.append(rng.choice([b"$8\r\nstring 1\r\n", b"+OK\r\n", b"$-1\r\n"]))
                await asyncio.sleep(0.02)

        async with anyio.create_task_group() as group:
            group.start_soon(plant)
            tally = await many(operations, 4_000, cancel=True, seed=3)
            group.cancel_scope.cancel()
        proxy.plants.clear()
        log.info("%d strays among many: %s", proxy.planted, tally)
        assert proxy.planted > 20
        assert tally.wrong == 0
        assert tally.right > 0


async def test_a_queue_for_connections_is_not_redis_fault(settings: Settings, models: Loaded) -> None:
    """Redis is slow, and answers each call in time; ten times as many callers as connections are not."""
    async with through_a_proxy(replace(settings, redis_timeout_s=0.5), models, 0.1) as (_, parts):
        late, text = 0, "x" * LARGE

        async def one() -> None:
            nonlocal late
            try:
                await parts.redis.call("ECHO", text)
            except StoreUnavailableError:
                late += 1

        async with anyio.create_task_group() as group:
            for _ in range(10 * OWN):
                group.start_soon(one)
        assert late > OWN
        assert not parts.redis.breaker.is_open
        assert len(parts.redis.lanes._own) == OWN


async def test_a_budget_that_ends_costs_nobody_else_anything(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    async with through_a_proxy(settings, models, 0.004) as (proxy, parts):
        get, *_ = await Shapes(parts, redis, prefix).prepare()
        connections, late = proxy.connections, 0
        for n in range(200):
            try:
                await parts.redis.run([("GET", "x")], Budget(0.001 + n % 5 / 1000))
            except StoreUnavailableError:
                late += 1
            assert await get(n % KEYS)
        assert late > 0
        assert proxy.connections == connections
        assert await balanced(parts)
