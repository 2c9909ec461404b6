"""The stub speaks to the unmodified SDKs as the providers do."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, cast

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest

from service.cache.dialects.chat import Chat
from service.cache.dialects.dialect import Dialect
from service.cache.dialects.events import Events
from service.cache.dialects.messages import Messages
from service.cache.dialects.responses import Responses
from tests.provider import server
from tests.provider.script import Api, Asked, Call, Error, Fault, Hold, Script, in_turn
from tests.provider.server import Provider, running, threaded, until

ASK: Any = [{"role": "user", "content": "What is the capital of France?"}]
CALLS = (Call("weather", {"city": "Zürich", "days": 3}), Call("time", {}))
TOLD = [
    Script(),
    Script(calls=CALLS, text="One moment."),
    Script(calls=CALLS),
    Script(thinking="Hm, Paris."),
    Script(refusal="I can't."),
]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with threaded(Provider(clock=lambda: 1_800_000_000.5)) as provider:
        yield provider


def openai_client(provider: Provider, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.url, api_key="sk-a", max_retries=0, **more)


def anthropic_client(provider: Provider, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=provider.root, api_key="sk-a", max_retries=0, **more)


def without_ids(value: Any) -> Any:
    """Two calls never share their ids."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in {"id", "call_id", "item_id", "signature"}}
        return {name: without_ids(one) for name, one in kept.items()}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("script", TOLD)
def test_chat_streams_what_it_says(provider: Provider, script: Script) -> None:
    provider.say(script)
    told: Any = {"model": "gpt-4.1", "messages": ASK}
    with openai_client(provider) as client:
        whole = client.chat.completions.create(**told)
        with client.chat.completions.stream(**told, stream_options={"include_usage": True}) as stream:
            gathered = stream.get_final_completion()
        chunks = list(client.chat.completions.create(**told, stream=True))
    dropped = {"annotations", "parsed", "parsed_arguments", "system_fingerprint", "index"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in dropped and v is not None}
        return [plain(one) for one in value] if isinstance(value, list) else value

    assert plain(without_ids(gathered.to_dict())) == plain(without_ids(whole.to_dict()))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.created == 1_800_000_000
    assert whole._request_id
    assert len(chunks) >= 4


@pytest.mark.parametrize("script", TOLD)
def test_responses_streams_what_it_says(provider: Provider, script: Script) -> None:
    provider.say(script)
    told: Any = {"model": "gpt-4.1", "input": ASK}
    with openai_client(provider) as client:
        whole = client.responses.create(**told)
        with client.responses.stream(**told) as stream:
            kinds = [event.type for event in stream]
            gathered = stream.get_final_response()
        numbers = [event.sequence_number for event in client.responses.create(**told, stream=True)]
    assert without_ids(gathered.model_dump(exclude={"output"})) == without_ids(
        whole.model_dump(exclude={"output"})
    )
    assert gathered.output_text == whole.output_text
    assert [one.type for one in gathered.output] == [one.type for one in whole.output]
    assert numbers == list(range(len(numbers)))
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


@pytest.mark.parametrize("script", TOLD)
def test_messages_streams_what_it_says(provider: Provider, script: Script) -> None:
    provider.say(script)
    told: Any = {"model": "claude-opus-5", "max_tokens": 1000, "messages": ASK}
    with anthropic_client(provider) as client:
        whole = client.messages.create(**told)
        with client.messages.stream(**told) as stream:
            gathered = stream.get_final_message()
        kinds = [event.type for event in client.messages.create(**told, stream=True)]
    assert without_ids(gathered.to_dict()) == without_ids(whole.to_dict())
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert whole._request_id


DIALECTS: dict[Api, Dialect] = {"chat": Chat(), "responses": Responses(), "messages": Messages()}
REQUESTS: dict[Api, Any] = {
    "chat": {"model": "gpt-4.1", "messages": ASK, "stream_options": {"include_usage": True}},
    "responses": {"model": "gpt-4.1", "input": ASK},
    "messages": {"model": "claude-opus-5", "max_tokens": 1000, "messages": ASK},
}


def spoken(api: Api, script: Script, **more: Any) -> tuple[Any, list[bytes]]:
    """The same answer, whole and as a stream."""
    body = REQUESTS[api] | more
    asked = Asked(0, api, "POST", DIALECTS[api].path, {}, b"", body, "", "")
    provider = Provider()
    answer = provider._answer(asked, script, cast("Any", api))
    return answer, server._events(asked, answer)


def untold(answer: Any) -> Any:
    """Without what a stream of chat completions doesn't tell, as the provider's."""
    for choice in answer.get("choices", []):
        choice["message"].pop("annotations")
    return answer


@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("script", TOLD)
def test_the_cache_reads_what_it_says(api: Api, script: Script) -> None:
    answer, stream = spoken(api, script)
    gathering = DIALECTS[api].gathering()
    for event in Events().add(b"".join(stream)):
        gathering.add(event.name, event.data)
    if script.refusal is None:
        assert gathering.ended
        assert DIALECTS[api].is_whole(answer)
        assert gathering.answer() == untold(answer)
    else:
        assert not DIALECTS[api].is_whole(answer)
        assert gathering.answer() is None


@pytest.mark.anyio
async def test_the_asynchronous_sdks_too() -> None:
    async with running(Provider()) as provider:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="a") as client:
            chat = await client.chat.completions.create(model="gpt-4.1", messages=ASK)
            async with client.responses.stream(model="gpt-4.1", input=ASK) as stream:
                response = await stream.get_final_response()
            listed = [one.id async for one in client.models.list()]
        async with anthropic.AsyncAnthropic(base_url=provider.root, api_key="a") as other:
            message = await other.messages.create(model="claude-opus-5", max_tokens=99, messages=ASK)
            count = await other.messages.count_tokens(model="claude-opus-5", messages=ASK)
            models = [one.id async for one in other.models.list()]
    (block,) = message.content
    assert block.type == "text"
    assert chat.choices[0].message.content == response.output_text == block.text
    assert count.input_tokens == message.usage.input_tokens
    assert "gpt-4.1" in listed
    assert "claude-opus-5" in models
    assert provider.calls == 3
    assert provider.counts()["finished"] == 6


def test_usage_is_told_in_a_chat_stream_where_it_is_wanted(provider: Provider) -> None:
    with openai_client(provider) as client:
        chunks = list(
            client.chat.completions.create(
                model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert provider.replies[-1].count(b'"usage":null') == len(chunks) - 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, ("InternalServerError", "ServiceUnavailableError")),
        (413, ("APIStatusError", "ContentTooLargeError")),
        (529, ("InternalServerError", "OverloadedError")),
    ],
)
def test_errors_are_the_providers_own(provider: Provider, status: int, kind: str | tuple[str, str]) -> None:
    provider.say(Script(error=Error(status, "No.", "7", "7000", should_retry=False)))
    first, second = (kind, kind) if isinstance(kind, str) else kind
    with openai_client(provider) as client, pytest.raises(openai.APIStatusError) as told:
        client.chat.completions.create(model="m", messages=ASK)
    assert type(told.value).__name__ == first
    assert cast("Any", told.value.body)["message"] == "No."
    assert told.value.response.headers["retry-after-ms"] == "7000"
    with anthropic_client(provider) as other, pytest.raises(anthropic.APIStatusError) as said:
        other.messages.create(model="m", max_tokens=9, messages=ASK)
    assert type(said.value).__name__ == second
    assert cast("Any", said.value.body)["error"]["message"] == "No."
    assert said.value.request_id == cast("Any", said.value.body)["request_id"]


def test_an_error_in_the_midst_of_a_stream(provider: Provider) -> None:
    provider.say(Script(break_at=2, error=Error(529, "Busy.")))
    with openai_client(provider) as client, anthropic_client(provider) as other:
        with pytest.raises(openai.APIError, match="Busy"):
            list(client.chat.completions.create(model="m", messages=ASK, stream=True))
        told = list(client.responses.create(model="m", input=ASK, stream=True))
        with pytest.raises(anthropic.APIError, match="Busy"):
            list(other.messages.create(model="m", max_tokens=9, messages=ASK, stream=True))
    assert [event.type for event in told] == ["response.created", "response.in_progress", "error"]


def post(provider: Provider, **more: Any) -> httpx.Response:
    body = {"model": "m", "messages": ASK} | more
    return httpx.post(f"{provider.url}/chat/completions", json=body, timeout=10)


@pytest.mark.parametrize("streams", [False, True])
def test_a_body_is_cut_where_it_is_told(provider: Provider, *, streams: bool) -> None:
    provider.say(Script())
    size = len(post(provider, stream=streams).content)
    for cut in (-1, 0, 1, size // 2, size - 1):
        for reset in (False, True):
            provider.say(Script(fault=Fault(cut=cut, reset=reset)))
            with pytest.raises(httpx.TransportError):
                post(provider, stream=streams)
    assert provider.counts()["aborted"] == 0


def test_a_body_that_the_connection_ends(provider: Provider) -> None:
    provider.say(Script(text="x" * 100, fault=Fault(framing="close")))
    whole = post(provider).json()
    assert whole["choices"][0]["message"]["content"] == "x" * 100
    provider.say(Script(text="x" * 100, fault=Fault(framing="close", cut=50)))
    assert len(post(provider).content) == 50


def test_gzip_and_single_bytes(provider: Provider) -> None:
    provider.say(Script(fault=Fault(gzip=True, drip=1, drip_s=0)))
    zipped = post(provider)
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.json()["object"] == "chat.completion"
    url = f"{provider.url}/chat/completions"
    plain = httpx.post(url, content=b'{"model":"m","messages":[]}', headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_keys_have_accounts(provider: Provider) -> None:
    provider.keys = {"sk-a": "first"}
    with openai_client(provider) as client:
        client.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="sk-b").chat.completions.create(model="m", messages=ASK)
    assert [one.account for one in provider.requests] == ["first", ""]


def test_prompts_are_cached_by_account(provider: Provider) -> None:
    system: Any = [{"type": "text", "text": "Be brief. " * 1000, "cache_control": {"type": "ephemeral"}}]
    told: Any = {"model": "claude-opus-5", "max_tokens": 9, "messages": ASK}
    with anthropic_client(provider) as client:
        usages = [client.messages.create(**told, system=system).usage for _ in range(2)]
        other = client.with_options(api_key="sk-b").messages.create(**told, system=system).usage
        with pytest.raises(anthropic.BadRequestError, match="maximum of 4"):
            client.messages.create(**told, system=system * 5)
    written = usages[0].cache_creation_input_tokens
    assert written is not None
    assert written > 2000
    assert usages[1].cache_read_input_tokens == written
    assert other.cache_read_input_tokens == 0


def test_answers_are_cut_at_the_limit_of_tokens(provider: Provider) -> None:
    with openai_client(provider) as client, anthropic_client(provider) as other:
        chat = client.chat.completions.create(model="m", messages=ASK, max_completion_tokens=2)
        response = client.responses.create(model="m", input="Hello?", max_output_tokens=2)
        message = other.messages.create(model="m", messages=ASK, max_tokens=2)
    assert chat.choices[0].finish_reason == "length"
    assert response.status == "incomplete"
    assert message.stop_reason == "max_tokens"


@pytest.mark.anyio
async def test_it_holds_between_events_and_sees_its_client_leave() -> None:
    hold = Hold(at=3)
    async with running(Provider()) as provider, httpx2.AsyncClient(timeout=10) as client:
        provider.mode = in_turn(Script(fault=Fault(gate=hold)), Script(fault=Fault(hang="head")))
        body = {"model": "m", "messages": ASK, "stream": True}
        async with client.stream("POST", f"{provider.url}/chat/completions", json=body) as answer:
            await until(lambda: hold.waiting == 1)
            assert provider.inside == 1
            hold.release()
            assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
        with anyio.move_on_after(0.1):
            await client.post(f"{provider.url}/chat/completions", json=body)
        await until(lambda: provider.aborted == 1)
        assert provider.counts() == {
            "calls": 2,
            "inside": 0,
            "most_inside": 1,
            "finished": 1,
            "aborted": 1,
            "requests": 2,
        }


@pytest.mark.parametrize("before", ["head", "body"])
def test_it_hangs(provider: Provider, before: Literal["head", "body"]) -> None:
    provider.say(Script(fault=Fault(hang=before)))
    url, body = f"{provider.url}/chat/completions", {"model": "m", "messages": ASK}
    heads: list[int] = []

    def ask() -> None:
        with client.stream("POST", url, json=body) as answer:
            heads.append(answer.status_code)
            answer.read()

    with httpx.Client(timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        ask()
    assert heads == ([200] if before == "body" else [])


def test_latency_is_per_token() -> None:
    with threaded(Provider(first_s=0.05, token_s=0.001)) as provider:
        tokens = post(provider).json()["usage"]["completion_tokens"]
        body = provider.requests[0].body
        whole = provider._reply(provider.requests[0])
        streamed = provider._reply(replace(provider.requests[0], body=body | {"stream": True}))
    assert whole.first_s == pytest.approx(0.05 + 0.001 * tokens)
    assert streamed.first_s == 0.05
    assert streamed.each_s * len(streamed.pieces) == pytest.approx(0.001 * tokens)


def script_for(asked: Any) -> Script:
    """What the process below says."""
    return Script(text=asked.last.upper())


def run_alone(check: Callable[[str], None], *arguments: str) -> None:
    command = [sys.executable, "-m", "tests.provider", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            check(process.stdout.readline().strip())
        finally:
            process.terminate()


def test_it_runs_in_a_process_of_its_own() -> None:
    def check(root: str) -> None:
        body = {"model": "m", "messages": ASK}
        answer = httpx.post(f"{root}/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "WHAT IS THE CAPITAL OF FRANCE?"
        counts = json.loads(httpx.get(f"{root}/_stub/calls").content)
        assert counts["calls"] == counts["finished"] == 1

    run_alone(check, "--mode", "tests.provider.test_provider:script_for")
