"""What type checkers know of the API. `make lint` checks this file; nobody runs it.

A `type: ignore` here says that the line must be an error: mypy complains about one that isn't needed.
"""

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from semcached import (
    AsyncClient,
    Client,
    Failed,
    Hit,
    Miss,
    Policy,
    Refused,
    Stored,
    ToolHit,
    ToolMiss,
    cached_answer,
    cached_tool,
    set_testing,
)


@cached_tool
def plain(x: int, *, y: str = "") -> list[str]:
    return [y] * x


@cached_tool(ttl=60, version="2", ignore=["trace"], sources=lambda result: [result["id"]])
async def later(x: int, trace: object = None) -> dict[str, int]:
    return {"x": x, "trace": id(trace)}


@cached_tool(client=Client(), ttl=None)
def of_client(x: int, y: str = "") -> list[str]:
    return [y] * x


@cached_tool(client=AsyncClient(), wait=None)
async def of_async_client(x: int) -> list[int]:
    return [x]


@cached_answer(agent_type="support", model="m")
def answer(prompt: str, *, tone: str = "") -> str:
    return prompt + tone


class Shop:
    @cached_tool
    def price(self, item: str) -> float:
        return float(len(item))

    @cached_tool(ttl=1)
    async def stock(self, item: str) -> int:
        return len(item)

    @classmethod
    @cached_tool
    def kind(cls, n: int) -> str:
        return cls.__name__ * n

    @cached_answer(agent_type="support", model="m")
    async def reply(self, prompt: str) -> str:
        return prompt


async def functions(shop: Shop) -> None:
    assert_type(plain(1, y="a"), list[str])
    assert_type(await later(1), dict[str, int])
    assert_type(of_client(1, y="a"), list[str])
    assert_type(await of_async_client(x=1), list[int])
    assert_type(answer("q", tone="kind"), str)
    assert_type(shop.price("tea"), float)
    stock: Coroutine[Any, Any, int] = shop.stock("tea")
    assert_type(await stock, int)
    assert_type(Shop.kind(n=1), str)
    assert_type(await shop.reply("q"), str)
    keeps: Callable[[int], Coroutine[Any, Any, list[int]]] = of_async_client
    await keeps(1)
    plain("1")  # type: ignore[arg-type]
    plain(1, z=2)  # type: ignore[call-arg]
    shop.price(1)  # type: ignore[arg-type]
    of_client(1, z=2)  # type: ignore[call-arg]
    with set_testing():
        plain(1)


async def calls(client: Client, async_client: AsyncClient) -> None:
    assert_type(client.lookup(agent_type="a", prompt="q"), Hit | Miss)
    assert_type(await async_client.lookup(agent_type="a", prompt="q", wait_s=1), Hit | Miss)
    assert_type(client.store(agent_type="a", prompt="q", response=[1]), Stored | Refused)
    assert_type(client.lookup_batch([{"agent_type": "a"}]), list[Hit | Miss | Failed])
    assert_type(client.lookup_tool(agent_type="a", tool="t", arguments={}), ToolHit | ToolMiss)
    assert_type(await async_client.policy("a"), Policy)
    found = client.lookup(agent_type="a", prompt="q")
    if isinstance(found, Miss):
        assert_type(found.lease, bool)
    client.lookup(agent_type="a", prompt="q", treshold=0.9)  # type: ignore[call-arg]
    client.lookup(prompt="q")  # type: ignore[call-arg]
    client.invalidate({"agent": "a"})  # type: ignore[typeddict-unknown-key]


def refused(client: Client, async_client: AsyncClient) -> None:
    @cached_answer(agent_type="a", model="m")  # type: ignore[type-var]
    def number(prompt: str) -> int:
        return len(prompt)

    @cached_tool(client=async_client)  # type: ignore[arg-type]
    def sync(x: int) -> int:
        return x

    cached_tool(client=client, ttl="60")  # type: ignore[call-overload]
