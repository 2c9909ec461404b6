"""LiteLLM by `api_base`: asked once, then served; streams and tool calls as well."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import litellm
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.router import Router

from bench.processes import Served
from tests.provider.script import Call, Script
from tests.provider.server import Provider

pytestmark = pytest.mark.anyio

MODELS = {"openai/gpt-5.1": "/v1", "openai/responses/gpt-5.1": "/v1", "anthropic/claude-sonnet-5": ""}
"""Model → what its `api_base` ends in."""
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "suppress_debug_info", True)


@pytest.fixture(params=MODELS)
def asking(request: pytest.FixtureRequest, service: Served, question: str) -> dict[str, Any]:
    model: str = request.param
    return {
        "model": model,
        "api_base": f"http://127.0.0.1:{service.port}{MODELS[model]}",
        "api_key": "sk-test",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
        "max_retries": 0,
    }


@pytest.fixture
async def logged() -> AsyncIterator[None]:
    """What LiteLLM logs in a task of this loop is over with it; else its coroutines are never awaited."""
    yield
    with anyio.fail_after(10):
        await GLOBAL_LOGGING_WORKER.flush()
        await GLOBAL_LOGGING_WORKER.stop()


def x_cache(answer: Any) -> str:
    return str(answer._hidden_params["additional_headers"]["llm_provider-x-cache"])


def told(answer: Any) -> tuple[Any, ...]:
    """What was said, and what it took."""
    message = answer.choices[0].message
    calls = [one.model_dump() for one in message.tool_calls or []]
    return message.content, calls, answer.choices[0].finish_reason, answer.usage.total_tokens


def test_asked_once(asking: dict[str, Any], provider: Provider) -> None:
    first, second = (litellm.completion(**asking) for _ in range(2))
    assert (x_cache(first), x_cache(second)) == ("MISS", "HIT")
    assert told(first) == told(second)
    assert provider.calls == 1


@pytest.mark.usefixtures("logged")
async def test_asked_once_later(asking: dict[str, Any], provider: Provider) -> None:
    first, second = [await litellm.acompletion(**asking) for _ in range(2)]
    assert (x_cache(first), x_cache(second)) == ("MISS", "HIT")
    assert told(first) == told(second)
    assert provider.calls == 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # LiteLLM's log, of a bridge
def test_streamed(asking: dict[str, Any], provider: Provider) -> None:
    """A stream, told again as a stream and whole."""
    first, second = (_text(litellm.completion(**asking, stream=True)) for _ in range(2))
    whole = litellm.completion(**asking)
    assert x_cache(whole) == "HIT"
    assert first == second == whole.choices[0].message.content
    assert provider.calls == 1


@pytest.mark.usefixtures("logged")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # as above
async def test_streamed_later(asking: dict[str, Any], provider: Provider) -> None:
    said = []
    for _ in range(2):
        stream = await litellm.acompletion(**asking, stream=True)
        said.append("".join([one.choices[0].delta.content or "" async for one in stream]))
    assert said[0] == said[1] != ""
    assert provider.calls == 1


def test_a_tools_loop(asking: dict[str, Any], provider: Provider) -> None:
    """The call, its result sent back, and the answer: all of it a second time from the cache."""
    provider.mode = lambda asked: (
        Script(text="Warm.")
        if "sunny" in str(asked.body)
        else Script(calls=(Call("weather", {"city": "Bern"}),))
    )
    asking |= {"tools": [TOOL]}
    runs = [list(_loop(asking)) for _ in range(2)]
    assert [x_cache(one) for run in runs for one in run] == ["MISS", "MISS", "HIT", "HIT"]
    assert [told(one) for one in runs[0]] == [told(one) for one in runs[1]]
    assert runs[0][1].choices[0].message.content == "Warm."
    assert provider.calls == 2


def test_the_router(asking: dict[str, Any], provider: Provider) -> None:
    """It names what it does in metadata of its own, which must not get into the request."""
    names = ("model", "api_base", "api_key")
    listed = {"model_name": "any", "litellm_params": {name: asking[name] for name in names}}
    router = Router(model_list=[listed], num_retries=0)
    answers = [router.completion(model="any", messages=asking["messages"]) for _ in range(2)]
    direct = litellm.completion(**asking)
    assert [x_cache(one) for one in [*answers, direct]] == ["MISS", "HIT", "HIT"]
    assert provider.calls == 1


def test_headers_for_the_cache(asking: dict[str, Any], provider: Provider) -> None:
    other = {"extra_headers": {"X-Semcached-Agent-Type": "research"}}
    answers = [litellm.completion(**asking | more) for more in ({}, other, other)]
    assert [x_cache(one) for one in answers] == ["MISS", "MISS", "HIT"]
    assert provider.calls == 2


def _text(stream: Any) -> str:
    return "".join(one.choices[0].delta.content or "" for one in stream)


def _loop(asking: dict[str, Any]) -> Iterator[Any]:
    first = litellm.completion(**asking)
    yield first
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    yield litellm.completion(**asking | {"messages": [*asking["messages"], message.model_dump(), result]})
