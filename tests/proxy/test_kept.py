"""What is kept, and what never is: nothing cut, left, filtered, refused or failed."""

import itertools
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

import httpx
import pytest

from bench.processes import Served
from service.cache.dialects.events import Events
from tests.provider.script import Call, Error, Fault, Hold, Script
from tests.provider.server import Provider, wait_until
from tests.proxy.apis import APIS, CHAT, MESSAGES, RESPONSES, Api
from tests.proxy.conftest import kept

OFFSETS = ABORTS = 200
WORDS = " ".join(f"word{number}" for number in range(30))
FRAMINGS: list[Any] = ["length", "chunked", "close"]


@pytest.fixture(params=itertools.product(APIS, [True, False]), ids=lambda one: f"{one[0].name}-{one[1]}")
def form(request: pytest.FixtureRequest) -> tuple[Api, bool]:
    """A call, and whether it is streamed."""
    one: tuple[Api, bool] = request.param
    return one


def test_a_broken_answer_is_not_kept_wherever_it_breaks(
    form: tuple[Api, bool], provider: Provider, http: httpx.Client, question: str
) -> None:
    api, streams = form
    provider.say(Script(text=WORDS))
    asking = api.asking(question, stream=streams)
    httpx.post(provider.root + api.path, json=asking)  # past the service, to know the size
    size = len(provider.replies[-1])
    cuts = [at * (size - 1) // OFFSETS for at in range(OFFSETS)]
    for cut, framing in zip(cuts, itertools.cycle(FRAMINGS), strict=False):
        provider.say(Script(text=WORDS, fault=Fault(cut=cut, framing=framing, reset=cut % 2 == 1)))
        body, status = b"", 0
        with suppress(httpx.TransportError), http.stream("POST", api.path, json=asking) as answer:
            status = answer.status_code
            for piece in answer.iter_bytes():
                body += piece
        assert len(body) < size
        if status != 200:
            assert status == 502
    assert kept(http, question) == []
    assert provider.calls == 1 + len(cuts)
    provider.say(Script(text=WORDS))
    assert [http.post(api.path, json=asking).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    assert len(kept(http, question)) == 1


def test_an_answer_that_its_client_left_is_not_kept(
    api: Api, service: Served, provider: Provider, http: httpx.Client, question: str
) -> None:
    """At 200 points of a stream, and while a whole answer is on its way."""
    text = " ".join(f"w{number}" for number in range(ABORTS + 20))
    for at in range(ABORTS):
        streams = at % 20 != 0
        hold = Hold(at=at if streams else 0)
        provider.say(Script(text=text, fault=Fault(gate=hold)))
        with closing(_sent(service.port, api, api.asking(question, stream=streams))) as client:
            _held(hold)
            if streams:
                assert client.recv(10)
        wait_until(lambda: provider.inside == 0)
    assert (provider.aborted, provider.calls) == (ABORTS, ABORTS)
    assert kept(http, question) == []
    provider.say(Script())
    asked = http.post(api.path, json=api.asking(question))
    assert (asked.status_code, asked.headers["x-cache"], provider.calls) == (200, "MISS", ABORTS + 1)


NOT_KEPT: dict[str, tuple[Script, list[Api]]] = {
    "cut at max_tokens": (Script(end="length"), [CHAT]),
    "filtered": (Script(end="content_filter"), [CHAT]),
    "refused in a field": (Script(refusal="I can't."), [CHAT, RESPONSES]),
    "refused in words": (Script(text="I'm sorry, but I can't help with that."), APIS),
    "incomplete": (Script(end="max_output_tokens"), [RESPONSES]),
    "incomplete by a filter": (Script(end="content_filter"), [RESPONSES]),
    "cut at Anthropic's max_tokens": (Script(end="max_tokens"), [MESSAGES]),
    "paused": (Script(end="pause_turn"), [MESSAGES]),
    "a full window": (Script(end="model_context_window_exceeded"), [MESSAGES]),
    "refused by its end": (Script(end="refusal"), [MESSAGES]),
    "an end that nobody knows": (Script(end="something_new"), [CHAT, MESSAGES]),
    "400": (Script(error=Error(400)), APIS),
    "429": (Script(error=Error(429)), APIS),
    "500": (Script(error=Error(500)), APIS),
    "529": (Script(error=Error(529)), APIS),
}


@pytest.mark.parametrize(
    ("script", "api"),
    [(script, api) for script, apis in NOT_KEPT.values() for api in apis],
    ids=[f"{name}-{api.name}" for name, (_, apis) in NOT_KEPT.items() for api in apis],
)
def test_what_is_not_kept(
    script: Script, api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    for calls, streams in enumerate([True, False, True, False], 1):
        provider.say(script)
        answer = http.post(api.path, json=api.asking(question, stream=streams))
        assert answer.headers["x-cache"] == "MISS"
        assert answer.content == provider.replies[-1] or streams
        assert provider.calls == calls
    assert kept(http, question) == []


def test_an_error_in_the_midst_of_a_stream(
    api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    for at in range(8):
        provider.say(Script(text=WORDS, break_at=at, error=Error(529)))
        with suppress(httpx.TransportError):
            http.post(api.path, json=api.asking(question, stream=True))
    assert kept(http, question) == []
    assert provider.calls == 8


def test_what_is_too_large_passes_and_is_not_kept(
    api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    big = api.asking(question, metadata={"padding": "x" * (2 * 2**20)})
    for _ in range(2):
        answer = http.post(api.path, json=big)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "BYPASS")
    provider.say(Script(text=question + (" " + "long" * 25_000) * 25))
    unbounded = {"max_tokens": 10_000_000} if api is MESSAGES else {}
    for streams in (False, True):
        answer = http.post(api.path, json=api.asking(question, stream=streams, **unbounded))
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS")
        assert len(answer.content) > 2_000_000
    assert provider.calls == 4
    assert kept(http, question) == []


def test_the_limit_of_the_body_is_the_providers(
    provider: Provider, http: httpx.Client, question: str
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (40 * 2**20)}}
    body = {
        "model": "gpt-5.1",
        "messages": [{"role": "user", "content": [{"type": "text", "text": question}, image]}],
    }
    answer = http.post(CHAT.path, json=body)
    assert (answer.status_code, answer.headers["x-cache"], provider.calls) == (200, "BYPASS", 1)
    assert len(provider.requests[-1].raw) > 40 * 2**20
    told = http.post(CHAT.path, content=b" " * (65 * 2**20))
    assert told.status_code == 413
    assert set(told.json()["error"]) == {"message", "type", "param", "code"}


def test_the_body_goes_upstream_as_it_came(
    api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    fields = api.asking(question, seed=3, unknown={"z": 1.0, "a": [None, "\u00e9"]})
    body = (
        httpx.Request("POST", "http://x", json=fields)
        .content.replace(b":", b" : ")
        .replace(b"\xc3\xa9", b"\\u00e9")
    )
    http.post(api.path, content=body)
    assert provider.requests[-1].raw == body
    asked = provider.requests[-1].headers
    assert asked["accept-encoding"] == "identity"


def test_usage_is_asked_for_and_not_told(provider: Provider, http: httpx.Client, question: str) -> None:
    answer = http.post(CHAT.path, json=CHAT.asking(question, stream=True))
    assert provider.requests[-1].body["stream_options"] == {"include_usage": True}
    chunks = _chunks(answer.text)
    assert not any(chunk.get("usage") for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)
    (entry,) = kept(http, question)
    assert entry["usage"]["output_tokens"] > 0
    wanted = CHAT.asking(question, stream=True, stream_options={"include_usage": True})
    again = http.post(CHAT.path, json=wanted)
    assert again.headers["x-cache"] == "HIT"
    assert _chunks(again.text)[-1]["usage"]["completion_tokens"] == entry["usage"]["output_tokens"]


def test_a_similar_question_is_answered_but_by_no_call_of_a_tool(
    api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    one, other = question, question.lower().replace("what is", "what's")
    unkept = {"store": False} if api is RESPONSES else {}  # else an id goes on from another question
    asking = [api.asking(text, **unkept) for text in (one, other)]
    assert [http.post(api.path, json=each).headers["x-cache"] for each in asking] == ["MISS", "HIT"]
    provider.say(Script(calls=(Call("weather", {"city": "Bern"}),)))
    asking = [api.asking(text, **unkept, **api.tools()) for text in (one, other)]
    assert [http.post(api.path, json=each).headers["x-cache"] for each in asking] == ["MISS", "MISS"]
    assert provider.calls == 3


ODD: list[Any] = [
    *(None, 5, -1, 1e308, True, "x", [], {}, [None], [[]], {"a": 1}, {"type": {}}, {"mode": []}),
    *([{"type": {}}], [{"type": []}], [{"role": {}}], [{"role": "user", "content": [{"type": {}}]}]),
    *([{"role": "assistant", "tool_calls": [{"id": {}, "function": 5}]}], [{"type": "function", "name": []}]),
    *(
        [{"type": "function_call", "call_id": {}}],
        [{"role": "tool", "tool_call_id": []}],
        {"include_usage": {}},
    ),
]
ODD_FIELDS = (
    *("messages", "input", "system", "instructions", "tools", "tool_choice", "model", "stream", "max_tokens"),
    *("stream_options", "temperature", "n", "modalities", "thinking", "prompt_cache_options", "metadata"),
)


def test_whatever_is_in_a_body_the_provider_says_what_is_wrong(
    api: Api, provider: Provider, http: httpx.Client, question: str
) -> None:
    calls = 0
    for field in ODD_FIELDS:
        for value in ODD:
            answer = http.post(api.path, json=api.asking(question) | {field: value, "seed": calls})
            calls += 1
            assert answer.status_code < 500, (field, value, answer.text)
    assert len(provider.requests) == calls


def test_a_streams_byte_order_mark_is_no_part_of_its_first_event(
    api: Api, provider: Provider, question: str
) -> None:
    provider.say(Script(text="Hello there, all of you"))
    direct = httpx.post(provider.root + api.path, json=api.asking(question, stream=True)).content
    events = Events()
    (first, *_) = events.add(b"\xef\xbb\xbf" + direct)
    assert first.raw.startswith(b"\xef\xbb\xbf")
    assert first == next(Events().add(direct))._replace(raw=first.raw)


@pytest.mark.parametrize("said", ["no-store", "no-cache", "max-age=0, No-Store"])
def test_cache_control(said: str, provider: Provider, http: httpx.Client, question: str) -> None:
    for _ in range(2):
        answer = http.post(CHAT.path, json=CHAT.asking(question), headers={"Cache-Control": said})
        assert answer.headers["x-cache"] == "BYPASS"
    assert (provider.calls, kept(http, question)) == (2, [])


def test_odd_headers_go_through_as_they_are(provider: Provider, http: httpx.Client, question: str) -> None:
    provider.say(Script(headers={"x-note": "caf\u00e9"}))
    answer = http.post(CHAT.path, json=CHAT.asking(question), headers=[(b"x-title", "\u00fcber".encode())])
    assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS")
    assert dict(answer.headers.raw)[b"x-note"] in {"caf\u00e9".encode("latin-1"), "caf\u00e9".encode()}
    assert provider.requests[-1].headers["x-title"].encode("latin-1") in {
        "\u00fcber".encode(),
        "\u00fcber".encode("latin-1"),
    }


def test_an_answer_that_is_coded_all_the_same_is_handed_on(
    provider: Provider, http: httpx.Client, question: str
) -> None:
    """Nobody here can read it, so nothing of it is kept."""
    for _ in range(2):
        provider.say(Script(headers={"Content-Encoding": "x-unknown"}))
        with http.stream("POST", CHAT.path, json=CHAT.asking(question)) as answer:
            assert b"".join(answer.iter_raw()) == provider.replies[-1]
        assert answer.headers["content-encoding"] == "x-unknown"
    assert (provider.calls, kept(http, question)) == (2, [])


def test_options_reach_the_entry(provider: Provider, http: httpx.Client, question: str) -> None:
    told = {"Tags": "a%2Cb,c", "Sources": "doc", "Attributes": "user=ann", "TTL": "100"}
    headers = {f"X-Semcached-{name}": value for name, value in told.items()}
    http.post(CHAT.path, json=CHAT.asking(question), headers=headers)
    (entry,) = kept(http, question)
    assert (entry["tags"], entry["sources"], entry["attributes"]) == (["a,b", "c"], ["doc"], {"user": "ann"})
    lives = datetime.fromisoformat(entry["expires_at"]) - datetime.fromisoformat(entry["stored_at"])
    assert 95 <= lives.total_seconds() <= 100
    others = [{}, {"X-Semcached-Attributes": "user=bob"}, {"X-Semcached-Agent-Type": "other"}]
    assert [
        http.post(CHAT.path, json=CHAT.asking(question), headers=one).headers["x-cache"] for one in others
    ] == ["MISS"] * 3
    wrong = http.post(CHAT.path, json=CHAT.asking(question), headers={"X-Semcached-Treshold": "1"})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "x-semcached-treshold"
    assert provider.calls == 4


def _sent(port: int, api: Api, asking: dict[str, Any]) -> socket.socket:
    """A client that has asked, and may leave."""
    request = httpx.Request("POST", f"http://127.0.0.1:{port}{api.path}", json=asking)
    lines = [f"POST {api.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
    return client


def _held(hold: Hold) -> None:
    wait_until(lambda: hold.waiting == 1)


def _chunks(text: str) -> list[dict[str, Any]]:
    return list(_decoded(text))


def _decoded(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield httpx.Response(200, text=line.removeprefix("data: ")).json()
