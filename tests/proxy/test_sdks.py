"""Unmodified SDKs through the service: forwarded once, then served; only the headers tell which."""

from inspect import isawaitable
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import pytest

from bench.processes import Served
from tests.provider.script import Call, Error, Script
from tests.provider.server import Provider
from tests.proxy.apis import CHAT, MESSAGES, Api, plain
from tests.proxy.conftest import kept

pytestmark = pytest.mark.anyio

SCRIPTS = {
    "a text": Script(),
    "a long text of all kinds": Script(text='Zürich\u2028\n\n"quoted" \\ \x00 😀 ' * 40),
    "one call": Script(calls=(Call("weather", {"city": "Zürich"}),)),
    "two calls and a text": Script(
        text="Both.",
        calls=(Call("weather", {"city": "Bern"}), Call("weather", {"city": "Basel", "days": [1, 2.5, None]})),
    ),
    "thinking": Script(text="42", thinking="6 times 7"),
}


class Through(NamedTuple):
    """The service's port, and what stands behind it."""

    port: int
    provider: Provider


@pytest.fixture
def through(service: Served, provider: Provider) -> Through:
    return Through(service.port, provider)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
@pytest.mark.parametrize("first", ["whole", "streamed"])
def test_an_answer_is_served_as_the_provider_gave_it(
    api: Api, through: Through, question: str, script: Script, first: str
) -> None:
    provider = through.provider
    provider.say(script)
    asking = api.asking(question, **(api.tools() if script.calls else {}))
    with api.connected(through.port) as client:
        calls = {
            "whole": lambda: _whole(api, client, asking),
            "streamed": lambda: _streamed(api, client, asking),
        }
        made, x_cache = calls[first]()
        assert x_cache == "MISS"
        again = [calls[name]() for name in ("whole", "streamed", "whole", "streamed")]
    assert [told for _, told in again] == ["HIT"] * 4
    assert [answer for answer, _ in again] == [made] * 4
    assert provider.calls == 1


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_the_same_with_the_async_sdks(
    api: Api, service: Served, provider: Provider, question: str, script: Script
) -> None:
    provider.say(script)
    asking = api.asking(question, **(api.tools() if script.calls else {}))
    async with api.connected_later(service.port) as client:
        raw = await api.of(client).with_raw_response.create(**asking)
        parsed = raw.parse()
        made = plain(await parsed if isawaitable(parsed) else parsed)
        async with api.of(client).stream(**asking, **_usage(api)) as stream:
            async for _ in stream:
                pass
            streamed = _bare(plain(await getattr(stream, api.final)()))
        whole = plain(await api.of(client).create(**asking))
    assert (raw.headers["x-cache"], whole, streamed) == ("MISS", made, _bare(made))
    assert provider.calls == 1


@pytest.mark.parametrize("first", ["provider", "cache"])
def test_every_event_is_one_that_the_sdk_knows(
    api: Api, service: Served, provider: Provider, question: str, first: str
) -> None:
    """The order of kinds of events is the provider's own, run-on deltas aside."""
    asking = api.asking(question)
    with api.connected(service.port) as client, api.connected(provider.port) as direct:
        if first == "cache":
            api.of(client).create(**asking)
        told = [_kind(one) for one in api.of(client).create(stream=True, **asking)]
        own = [_kind(one) for one in api.of(direct).create(stream=True, **asking)]
    assert _once(told) == _once(own)


@pytest.mark.usefixtures("provider")
def test_request_ids_and_usage(api: Api, service: Served, question: str) -> None:
    with api.connected(service.port) as client:
        made, again = (api.of(client).create(**api.asking(question)) for _ in range(2))
    header = "request-id" if api is MESSAGES else "x-request-id"
    assert made._request_id == again._request_id or made._request_id.startswith("req_")
    assert again._request_id.startswith("req_")
    assert made._request_id != again._request_id, header
    assert plain(made.usage) == plain(again.usage)


def test_a_tools_result_is_asked_once_more_and_then_served(
    api: Api, service: Served, provider: Provider, question: str
) -> None:
    """The whole loop of an agent a second time: each step is the same request again."""
    answers = []
    with api.connected(service.port) as client:
        for _ in range(2):
            provider.mode = lambda asked: Script(
                calls=() if _has_result(asked.body) else (Call("weather", {"city": "Bern"}),)
            )
            asking = api.asking(question, **api.tools())
            first = api.of(client).create(**asking)
            answers += [plain(first), plain(api.of(client).create(**_with_result(api, asking, plain(first))))]
    assert answers[:2] == answers[2:]
    assert provider.calls == 2


ERRORS: dict[str, dict[int, Any]] = {
    "openai": {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        409: openai.ConflictError,
        413: openai.APIStatusError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
        500: openai.InternalServerError,
        503: openai.InternalServerError,
    },
    "anthropic": {
        400: anthropic.BadRequestError,
        401: anthropic.AuthenticationError,
        403: anthropic.PermissionDeniedError,
        404: anthropic.NotFoundError,
        409: anthropic.ConflictError,
        413: anthropic.APIStatusError,
        422: anthropic.UnprocessableEntityError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
        503: anthropic.InternalServerError,
        529: anthropic.InternalServerError,
    },
}


@pytest.mark.parametrize("stream", [{"stream": True}, {}])
def test_errors_are_the_providers_own(
    api: Api, through: Through, http: httpx.Client, question: str, stream: dict[str, bool]
) -> None:
    provider = through.provider
    kinds = ERRORS["anthropic" if api is MESSAGES else "openai"]
    asking = api.asking(question, **stream)
    with api.connected(through.port) as client, api.connected(provider.port) as direct:
        for status, kind in kinds.items():
            provider.say(
                Script(error=Error(status, retry_after="7", retry_after_ms="7000", should_retry=False))
            )
            with pytest.raises(kind) as told:
                api.of(client).create(**asking)
            with pytest.raises(kind) as own:
                api.of(direct).create(**asking)
            assert _told(told.value) == _told(own.value)
            assert told.value.response.headers["x-cache"] == "MISS"
    assert kept(http, question) == []
    assert provider.calls == 2 * len(kinds)


def test_retries_of_the_sdk_find_the_answer(service: Served, provider: Provider, question: str) -> None:
    scripts = [Script(error=Error(503, retry_after="0")), Script()]
    provider.mode = lambda _: scripts.pop(0) if len(scripts) > 1 else scripts[0]
    with CHAT.connected(service.port, max_retries=2) as client:
        raw = CHAT.of(client).with_raw_response.create(**CHAT.asking(question))
    assert (raw.headers["x-cache"], raw.retries_taken, provider.calls) == ("MISS", 1, 2)


def test_what_is_only_passed_on(service: Served, provider: Provider, question: str) -> None:
    with MESSAGES.connected(service.port) as claude, CHAT.connected(service.port) as gpt:
        messages = [{"role": "user", "content": question}]
        counted = claude.messages.count_tokens(model="claude-sonnet-5", messages=messages)
        assert counted.input_tokens > 0
        assert gpt.responses.input_tokens.count(model="gpt-5.1", input=question).input_tokens > 0
        assert {one.id for one in gpt.models.list()} & {"gpt-5.1", "gpt-4o"}
        assert all(one.id.startswith("claude") for one in claude.models.list())
    assert provider.calls == 0


def _whole(api: Api, client: Any, asking: dict[str, Any]) -> tuple[dict[str, Any], str]:
    raw = api.of(client).with_raw_response.create(**asking)
    return _bare(plain(raw.parse())), raw.headers["x-cache"]


def _streamed(api: Api, client: Any, asking: dict[str, Any]) -> tuple[dict[str, Any], str]:
    with api.of(client).stream(**asking, **_usage(api)) as stream:
        for _ in stream:
            pass
        final = plain(getattr(stream, api.final)())
        response = stream._response if api is not MESSAGES else stream.response
    return _bare(final), response.headers["x-cache"]


def _usage(api: Api) -> dict[str, Any]:
    """A chat's stream tells it only to those who ask."""
    return {"stream_options": {"include_usage": True}} if api is CHAT else {}


def _bare(answer: Any) -> Any:
    """Without what the stream helpers add: arguments and texts once more, parsed."""
    if isinstance(answer, dict):
        gone = {"parsed", "parsed_arguments", "parsed_output", *(["index"] if "function" in answer else [])}
        return {name: _bare(one) for name, one in answer.items() if name not in gone and one is not None}
    if isinstance(answer, list):
        return [_bare(one) for one in answer]
    return answer


def _kind(event: Any) -> str:
    if hasattr(event, "type"):
        return str(event.type)
    if not event.choices:
        return "usage"
    delta = event.choices[0].delta
    named = [name for name, one in plain(delta).items() if one]
    return f"{event.choices[0].finish_reason}:{','.join(named)}"


def _once(kinds: list[str]) -> list[str]:
    """Runs of equal ones as one."""
    kinds = [kind for kind in kinds if kind != "ping"]
    return [kind for at, kind in enumerate(kinds) if at == 0 or kind != kinds[at - 1]]


def _told(error: Any) -> Any:
    passed = ("retry-after", "retry-after-ms", "x-should-retry", "content-type")
    body = error.body
    if isinstance(body, dict):
        body = {name: one for name, one in body.items() if name != "request_id"}
    return error.status_code, body, {name: error.response.headers.get(name) for name in passed}


def _has_result(body: dict[str, Any]) -> bool:
    return "sunny" in str(body)


def _with_result(api: Api, asking: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The next request of the loop."""
    if api.name == "chat":
        message = answer["choices"][0]["message"]
        call = message["tool_calls"][0]
        said = {"role": "assistant", "content": message["content"], "tool_calls": message["tool_calls"]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
        return asking | {"messages": [*asking["messages"], said, result]}
    if api.name == "responses":
        call = next(one for one in answer["output"] if one["type"] == "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        question = {"role": "user", "content": asking["input"]}
        called = {name: call[name] for name in ("type", "call_id", "name", "arguments")}
        return asking | {"input": [question, called, result]}
    call = next(one for one in answer["content"] if one["type"] == "tool_use")
    said = {"role": "assistant", "content": [{name: call[name] for name in ("type", "id", "name", "input")}]}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}
    return asking | {"messages": [*asking["messages"], said, {"role": "user", "content": [result]}]}
