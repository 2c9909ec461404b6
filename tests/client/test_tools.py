"""`cached_tool` on a real service: what is shared, what is kept, who runs."""

import asyncio
import enum
import functools
import inspect
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from semcached import AsyncClient, Client, ToolMiss, ToolPolicy, cached_tool, is_testing, set_testing

pytestmark = pytest.mark.anyio


class Counting:
    """A tool that counts its runs."""

    def __init__(self, client: Client, agent: str, **options: Any) -> None:
        self.runs: list[Any] = []

        @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, **options)
        def tool(x: Any, y: Any = 2, *rest: Any, flag: bool = False, **named: Any) -> Any:
            self.runs.append((x, y, rest, flag, named))
            return {"x": str(x), "n": len(self.runs)}

        self.tool = tool


def test_equal_calls_run_once_however_they_are_written(client: Client, agent: str) -> None:
    counting = Counting(client, agent)
    first = counting.tool(1)
    assert [counting.tool(x=1), counting.tool(1, 2), counting.tool(1, y=2, flag=False)] == [first] * 3
    assert len(counting.runs) == 1
    for n, call in enumerate(
        [
            lambda: counting.tool("1"),
            lambda: counting.tool(x=True),
            lambda: counting.tool(1, 3),
            lambda: counting.tool(1, 2, 3),
            lambda: counting.tool(1, flag=True),
            lambda: counting.tool(1, z=1),
            lambda: counting.tool(None),
            lambda: counting.tool([1]),
        ]
    ):
        call()
        call()
        assert len(counting.runs) == n + 2


def test_versions_and_names_keep_tools_apart(client: Client, agent: str) -> None:
    def made(**options: Any) -> Any:
        @cached_tool(client=client, agent_type=agent, timeout_s=30, **options)
        def get() -> int:
            return next(RUNS)

        return get

    first = made()()
    assert made()() == first  # one function, by module and name
    assert made(version="2")() != first
    named = made(name=agent)()
    assert named != first
    assert made(name=agent)() == named


def test_ignored_parameters(client: Client, agent: str) -> None:
    counting = Counting(client, agent, ignore=["y", "request_id"])
    assert counting.tool(1, 2, request_id="a") == counting.tool(1, 3, request_id="b")
    counting.tool(1, object())
    assert len(counting.runs) == 1


RUNS = itertools.count()


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0

    @cached_tool(timeout_s=30)
    def price(self, item: str) -> str:
        self.runs += 1
        return f"{item} of {self.name}"

    @classmethod
    @cached_tool(timeout_s=30)
    def kind(cls, n: int) -> list[Any]:
        return [cls.__name__, n]

    @staticmethod
    @cached_tool(timeout_s=30)
    def tax(amount: int) -> int:
        return amount * 2

    @cached_tool(timeout_s=30)
    async def stock(self, item: str) -> list[str]:
        self.runs += 1
        return [item, self.name]


async def test_methods_without_their_self(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    one, other = Shop("one"), Shop("other")
    assert one.price("tea") == other.price(item="tea") == Shop.price(other, "tea") == "tea of one"
    assert (one.runs, other.runs) == (1, 0)
    assert [Shop.kind(1), Shop("x").kind(n=1), Shop.tax(2), Shop.tax(amount=2)] == [["Shop", 1]] * 2 + [4, 4]
    assert await one.stock("tea") == await other.stock("tea") == ["tea", "one"]


async def test_async(url: str, agent: str) -> None:
    runs: list[int] = []
    async with AsyncClient(url, connect_timeout_s=30) as client:

        @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
        async def tool(x: int) -> dict[str, int]:
            runs.append(x)
            await asyncio.sleep(0.3)
            return {"x": x}

        answers = await asyncio.gather(*(tool(1) for _ in range(50)), *(tool(x=2) for _ in range(50)))
    assert answers == [{"x": 1}] * 50 + [{"x": 2}] * 50
    assert sorted(runs) == [1, 2]


def test_threads(client: Client, agent: str) -> None:
    runs: list[int] = []

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(x: int) -> list[int]:
        runs.append(x)
        threading.Event().wait(0.5)
        return [x]

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(tool, [1] * 40)) == [[1]] * 40
    assert runs == [1]


@pytest.mark.parametrize(
    "value", [{"a": [1, 1.5, "é", None, True, 10**30, {}]}, "", 0, None, [], -0.0, 1e300]
)
def test_json_comes_back_as_it_was(client: Client, agent: str, value: Any) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool() -> Any:
        runs.append(1)
        return value

    runs: list[int] = []
    assert repr([tool(), tool()]) == repr([value, value])
    assert runs == [1]


class Colour(enum.StrEnum):
    RED = "red"


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [(1,), {"a": (1,)}, {1: 2}, {"a", "b"}, b"x", float("nan"), Colour.RED, object(), "\ud800", CYCLE],
    ids=lambda value: type(value).__name__,
)
def test_what_json_would_change_isnt_kept(
    client: Client, agent: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(x: Any = None) -> Any:
        runs.append(x)
        return value

    runs: list[Any] = []
    for _ in range(2):
        assert tool() is value
    assert len(runs) == 2
    assert [one.getMessage() for one in caplog.records if "isn't kept" in one.getMessage()] != []
    warned = len(caplog.records)
    tool()
    for _ in range(2):
        assert tool(value) is value  # nor is it an argument
    assert len(runs) == 5
    assert len(caplog.records) == warned + 1
    assert "no plain JSON: x" in caplog.text


def test_a_tool_that_changes_its_argument_stores_under_what_it_was_given(client: Client, agent: str) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(x: list[int]) -> int:
        x.append(9)
        return len(x)

    assert tool([1]) == 2
    assert tool([1, 9]) == 3
    assert tool([1]) == 2


def test_errors_propagate_and_are_never_kept(client: Client, agent: str) -> None:
    runs: list[int] = []

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(x: int) -> Any:
        runs.append(x)
        if len(runs) < 3:
            raise KeyError(x)
        return {"error": "refused by the service"} if len(runs) == 3 else "fine"

    for _ in range(2):
        with pytest.raises(KeyError):
            tool(1)
    assert tool(1) == {"error": "refused by the service"}
    assert [tool(1), tool(1)] == ["fine", "fine"]
    assert len(runs) == 4


async def test_who_fails_passes_the_lease_on_at_once(url: str, agent: str) -> None:
    began, runs = asyncio.Event(), []
    async with AsyncClient(url, connect_timeout_s=30) as client:

        @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, wait=60)
        async def tool(x: int) -> str:
            runs.append(x)
            if len(runs) == 1:
                began.set()
                await asyncio.sleep(0.5)
                raise ValueError(x)
            return "fine"

        with anyio.fail_after(25):  # a lease that isn't given back lives for 30 s
            first = asyncio.create_task(tool(1))
            await began.wait()
            assert await tool(1) == "fine"
            with pytest.raises(ValueError, match="1"):
                await first
    assert runs == [1, 1]


async def test_who_is_cancelled_passes_the_lease_on_too(url: str, agent: str) -> None:
    began, runs = asyncio.Event(), []
    async with AsyncClient(url, connect_timeout_s=30) as client:

        @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, wait=60)
        async def tool(x: int) -> str:
            runs.append(x)
            if len(runs) == 1:
                began.set()
                await asyncio.sleep(3600)
            return "fine"

        with anyio.fail_after(25):
            first = asyncio.create_task(tool(1))
            await began.wait()
            second = asyncio.create_task(tool(1))
            await asyncio.sleep(0.2)
            first.cancel()
            assert await second == "fine"
            with pytest.raises(asyncio.CancelledError):
                await first


def test_a_result_that_cant_be_kept_doesnt_hold_up_who_waits(client: Client, agent: str) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, wait=60)
    def tool() -> tuple[int, ...]:
        threading.Event().wait(0.3)
        return (1,)

    async def run() -> list[tuple[int, ...]]:
        with anyio.fail_after(25):
            return list(await asyncio.gather(asyncio.to_thread(tool), asyncio.to_thread(tool)))

    assert asyncio.run(run()) == [(1,), (1,)]


def test_lives_and_sources(client: Client, agent: str) -> None:
    runs: list[int] = []

    @cached_tool(
        client=client,
        agent_type=agent,
        name=agent,
        timeout_s=30,
        ttl=None,
        sources=lambda result: [result["doc"]],
    )
    def tool(doc: str) -> dict[str, str]:
        runs.append(1)
        return {"doc": doc}

    tool("doc:1")
    found = client.lookup_tool(agent_type=agent, tool=agent, arguments={"doc": "doc:1"})
    assert getattr(found, "sources", None) == ["doc:1"]
    assert getattr(found, "expires_in_s", 0) is None
    assert client.invalidate({"source": "doc:1"}).deleted == 1
    tool("doc:1")
    assert len(runs) == 2


def test_sources_that_fail_cost_the_caller_nothing(
    client: Client, agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    counting = Counting(client, agent, sources=lambda result: result["none"])
    assert [counting.tool(1)["n"], counting.tool(1)["n"]] == [1, 2]
    assert caplog.text.count("KeyError") == 1


def test_a_stale_result_is_refreshed_by_one(client: Client, agent: str) -> None:
    client.put_tool_policy(ToolPolicy(tool=agent, stale_while_revalidate_s=3600))
    counting = Counting(client, agent, ttl=1)
    counting.tool(1)
    threading.Event().wait(1.2)
    assert counting.tool(1)["n"] == 2
    assert counting.tool(1)["n"] == 2


def test_a_tool_that_writes_runs_each_time_and_says_so_once(
    client: Client, agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    @cached_tool(client=client, agent_type=agent, name="book_flight")
    def book_flight(x: int) -> int:
        runs.append(x)
        return x

    assert [book_flight(1) for _ in range(3)] == [1, 1, 1]
    assert len(runs) == 3
    assert caplog.text.count("side_effects") == 1


def test_what_is_larger_than_the_service_takes(
    client: Client, agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(size: int) -> str:
        return "x" * size

    for _ in range(2):
        assert len(tool(2_000_000)) == 2_000_000
    assert caplog.text.count("aren't kept") == 1
    assert not client.breaker.rests


def test_tests_switch_it_off(client: Client, agent: str) -> None:
    counting = Counting(client, agent)
    with set_testing():
        assert is_testing()
        assert [counting.tool(1)["n"], counting.tool(1)["n"]] == [1, 2]
        with set_testing(False):
            assert [counting.tool(1)["n"], counting.tool(1)["n"]] == [3, 3]
        assert counting.tool(1)["n"] == 4
    assert not is_testing()
    set_testing(True)
    assert counting.tool(1)["n"] == 5
    set_testing(False)
    assert counting.tool(1)["n"] == 3


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("fn", [generator, async_generator])
def test_generators_are_refused(fn: Any) -> None:
    with pytest.raises(TypeError, match="generator"):
        cached_tool(fn)


def test_what_doesnt_fit_is_refused_at_the_decoration(client: Client, url: str) -> None:
    def sync(x: int) -> int:
        return x

    async def later(x: int) -> int:
        return x

    with pytest.raises(TypeError, match="ignore"):
        cached_tool(ignore=["z"])(sync)
    with pytest.raises(TypeError, match="must be a Client"):
        cached_tool(client=AsyncClient(url))(sync)  # type: ignore[arg-type] # that is what is refused
    with pytest.raises(TypeError, match="must be an AsyncClient"):
        cached_tool(client=client)(later)
    with pytest.raises(TypeError, match="below @staticmethod"):
        cached_tool(staticmethod(sync))
    with pytest.raises(TypeError, match="not Counting"):
        cached_tool(Counting(client, "x"))  # type: ignore[call-overload] # that is what is refused
    with pytest.raises(TypeError, match="name"):
        cached_tool(lambda x: x)


def test_wrong_arguments_are_the_functions_own_error(client: Client, agent: str) -> None:
    counting = Counting(client, agent)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        counting.tool(y=1)  # type: ignore[call-arg] # that is what is wrong


def test_a_decorated_function_looks_like_itself(client: Client) -> None:
    def tool(x: int, *, y: str = "a") -> list[str]:
        """A docstring."""
        return [y] * x

    decorated = cached_tool(client=client)(tool)
    assert inspect.signature(decorated) == inspect.signature(tool)
    assert (decorated.__name__, decorated.__doc__) == ("tool", "A docstring.")
    assert inspect.isfunction(decorated)
    assert not inspect.iscoroutinefunction(decorated)

    @cached_tool
    async def later() -> int:
        return 1

    assert inspect.iscoroutinefunction(later)


async def test_a_sync_wrapper_of_an_async_function_is_told_once(
    client: Client, agent: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def later(x: int) -> int:
        return x

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    @functools.wraps(later)
    def tool(x: int) -> Any:
        return later(x)

    assert [await tool(1), await tool(1), await tool(2)] == [1, 1, 2]
    assert caplog.text.count("put the decorator right above `async def`") == 1
    assert "isn't kept" not in caplog.text
    found = client.lookup_tool(agent_type=agent, tool=agent, arguments={"x": 1}, wait_s=0)
    assert isinstance(found, ToolMiss)
    assert found.lease


def test_the_logger_has_a_name() -> None:
    assert "semcached" in logging.root.manager.loggerDict
