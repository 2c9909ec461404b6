"""Nobody waits for who is gone: a lease is given back whatever ends a run; options are checked."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from semcached import AsyncClient, Client, ToolMiss, cached_answer, cached_tool
from semcached.langchain import SemcachedCache

pytestmark = pytest.mark.anyio

SOON_S = 25
"""A lease of `wait=60` that isn't given back lives for 30 s."""
UNSTORABLE: dict[str, Callable[[Any], Any]] = {
    "a long source": lambda _: ["x" * 600],
    "many sources": lambda _: [f"doc{n}" for n in range(300)],
    "a number": lambda _: [1],
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def free(client: Client, agent: str, arguments: dict[str, Any]) -> bool:
    """Whether the next caller would lead at once."""
    found = client.lookup_tool(agent_type=agent, tool=agent, arguments=arguments, wait_s=0)
    return isinstance(found, ToolMiss) and found.lease


@pytest.mark.parametrize("name", [*UNSTORABLE, "a deep result"])
async def test_a_store_that_fails_gives_the_lease_back(
    client: Client, url: str, agent: str, name: str
) -> None:
    options: dict[str, Any] = {"sources": UNSTORABLE.get(name, ()), "name": agent, "agent_type": agent}

    @cached_tool(client=client, timeout_s=30, wait=60, **options)
    def tool(x: int) -> Any:
        return nested(100 + x)

    assert tool(1) == nested(101)
    assert free(client, agent, {"x": 1})
    async with AsyncClient(url, connect_timeout_s=30) as async_client:

        @cached_tool(client=async_client, timeout_s=30, wait=60, **options)
        async def later(x: int) -> Any:
            return nested(100 + x)

        assert await later(2) == nested(102)
    assert free(client, agent, {"x": 2})


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, BaseException])
def test_whatever_ends_a_run_gives_the_lease_back(
    client: Client, agent: str, kind: type[BaseException]
) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, wait=60)
    def tool(x: int) -> int:
        raise kind(x)

    with pytest.raises(kind):
        tool(1)
    assert free(client, agent, {"x": 1})


def test_a_loop_that_ends_with_a_cancelled_call_gives_the_lease_back(
    client: Client, url: str, agent: str
) -> None:
    @cached_tool(client=AsyncClient(url), agent_type=agent, name=agent, timeout_s=30, wait=60)
    async def tool(x: int) -> int:
        await asyncio.sleep(3600)
        return x

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tool(1), 0.5)

    asyncio.run(cancelled())
    assert free(client, agent, {"x": 1})


def test_a_coroutine_that_is_closed_is_closed(url: str, agent: str) -> None:
    """Its lease ends by itself: nothing can be awaited any more."""
    client, begun = AsyncClient(url, connect_timeout_s=30), asyncio.Event()

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    async def tool() -> None:
        begun.set()
        await asyncio.sleep(3600)

    loop, coroutine = asyncio.new_event_loop(), tool()
    task = loop.create_task(coroutine)
    loop.run_until_complete(begun.wait())
    coroutine.close()
    task.cancel()
    loop.run_until_complete(asyncio.wait({task}))
    assert isinstance(task.exception(), RuntimeError)  # asyncio's, of a coroutine that is closed
    loop.run_until_complete(client.aclose())
    loop.close()


class Shop:
    @cached_tool(agent_type="leases", name="get_price", timeout_s=30, wait=60)
    def price(self, item: str) -> list[str]:
        return [item]

    @cached_tool(agent_type="leases", name="get_stock", timeout_s=30, wait=60)
    async def stock(self, item: str) -> list[str]:
        return [item]


class Sale(Shop):
    @cached_tool(agent_type="leases", name="get_price", timeout_s=30, wait=60)
    def price(self, item: str) -> list[str]:
        return [*super().price(item), "less"]

    @cached_tool(agent_type="leases", name="get_stock", timeout_s=30, wait=60)
    async def stock(self, item: str) -> list[str]:
        return [*await super().stock(item), "less"]


async def test_a_call_inside_an_equal_one_doesnt_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    with anyio.fail_after(SOON_S):
        for _ in range(2):
            assert await anyio.to_thread.run_sync(Sale().price, "tea") == ["tea", "less"]
            assert await Sale().stock("tea") == ["tea", "less"]
    assert [Shop().price("tea"), await Shop().stock("tea")] == [["tea"]] * 2


def test_what_is_decorated_already_is_refused() -> None:
    def tool(prompt: str) -> str:
        return prompt

    async def later(prompt: str) -> str:
        return prompt

    for fn in (tool, later):
        for twice in (cached_tool, cached_answer(agent_type="a", model=None)):
            with pytest.raises(TypeError, match="decorated already"):
                twice(cached_tool(fn))


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("ttl", 0, ValueError),
        ("ttl", -5, ValueError),
        ("ttl", float("nan"), ValueError),
        ("ttl", float("inf"), ValueError),
        ("ttl", "60", TypeError),
        ("ttl", True, TypeError),
        ("wait", -1, ValueError),
        ("wait", 61, ValueError),
        ("wait", "10", TypeError),
        ("timeout_s", 0, ValueError),
        ("timeout_s", float("nan"), ValueError),
        ("timeout_s", None, TypeError),
        ("sources", "doc:1", TypeError),
    ],
)
def test_options_are_checked_at_the_decoration(option: str, value: Any, kind: type[Exception]) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(kind, match=f"^{option}: must be"):
        cached_tool(**options)
    with pytest.raises(kind, match=f"^{option}: must be"):
        cached_answer(agent_type="a", model=None, **options)
    if option in {"ttl", "timeout_s"}:
        with pytest.raises(kind, match=f"^{option}: must be"):
            SemcachedCache(**options)
    cached_tool(ttl=1, wait=0, timeout_s=0.1, sources=["doc:1"])
    cached_tool(ttl=None, wait=60)


def test_threads_that_wait_hear_of_a_failed_store(client: Client, agent: str) -> None:
    runs: list[int] = []

    @cached_tool(
        client=client, agent_type=agent, name=agent, timeout_s=30, wait=60, sources=UNSTORABLE["a number"]
    )
    def tool(x: int) -> int:
        runs.append(x)
        threading.Event().wait(0.3)
        return x

    async def run() -> list[int]:
        with anyio.fail_after(SOON_S):
            return list(await asyncio.gather(asyncio.to_thread(tool, 1), asyncio.to_thread(tool, 1)))

    assert asyncio.run(run()) == [1, 1]
    assert runs == [1, 1]


async def test_who_waits_and_is_cancelled_gets_no_lease(url: str, agent: str) -> None:
    """Else, when the leader fails, it would go to somebody who is gone."""
    leading, failing = asyncio.Event(), asyncio.Event()
    async with AsyncClient(url, connect_timeout_s=30) as client:

        @cached_tool(client=client, timeout_s=30, wait=60, name=agent, agent_type=agent)
        async def leads(x: int) -> int:
            leading.set()
            await failing.wait()
            raise ValueError(x)

        @cached_tool(client=client, timeout_s=30, wait=60, name=agent, agent_type=agent)
        async def follows(x: int) -> int:
            return x

        leader = asyncio.create_task(leads(1))
        await leading.wait()
        waiting = [asyncio.create_task(follows(1)) for _ in range(5)]
        await anyio.sleep(0.5)  # they wait by now
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await anyio.sleep(0.5)  # the service has noticed
        failing.set()
        with anyio.fail_after(SOON_S):
            assert await follows(1) == 1
        with pytest.raises(ValueError, match="1"):
            await leader
