"""Anthropic's messages as the cache reads and replays them; the unmodified SDK says what is right."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_type_hints

import anthropic
import httpx2
import msgspec
import pytest
from anthropic.types import message_create_params
from anthropic.types.beta import message_create_params as beta_params
from hypothesis import given
from hypothesis import strategies as st

from service.cache import canonical
from service.cache.actions import acts
from service.cache.dialects.dialect import Body, Dialect, Reading, Spent
from service.cache.dialects.events import Event, Events, event
from service.cache.dialects.messages import Messages
from service.cache.digests import Keyring
from service.model import LookupRequest, Tenant, Tier
from tests.parameters import KEY, MESSAGES_BEYOND, MESSAGES_PARAMS, NEUTRAL
from tests.provider import messages as provider

KEYS = Keyring(b"test vector secret").of(Tenant("acme"))
DIALECT: Dialect = Messages()
HEADERS = {"anthropic-version": "2026-10-21"}
ASKED: Body = {
    "model": "claude-opus-5",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Zürich", "n": [1, 2.5, None]}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]}
CITED = {
    "type": "char_location",
    "cited_text": "Paris",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 5,
    "file_id": None,
}
ANSWER: Body = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5",
    "content": [
        {"type": "thinking", "thinking": "Hm, Paris.", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
        {"type": "text", "text": "I'll look…", "citations": [CITED, CITED | {"document_index": 1}]},
        {"type": "text", "text": "Now.", "citations": None},
        CALL,
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}, "caller": {"type": "direct"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "stop_details": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 77,
        "output_tokens_details": {"thinking_tokens": 20},
        "service_tier": "standard",
    },
}
PLAIN = ANSWER | {"content": [{"type": "text", "text": "Paris."}], "stop_reason": "end_turn"}


def read(body: Body, headers: Mapping[str, str] = HEADERS) -> Reading:
    return DIALECT.read(body, headers)


def question(reading: Reading) -> canonical.Query:
    fields = (reading.fields or {}) | {"agent_type": "support"}
    return canonical.query(msgspec.convert(fields, LookupRequest), KEYS, 384)


def entry(body: Body, headers: Mapping[str, str] = HEADERS) -> str:
    """The entry's id, or why there is none."""
    reading = read(body, headers)
    return f"bypass {reading.bypass}" if reading.bypass else question(reading).identities[0].entry_id


def gathered(events: Iterable[Event]) -> Body | None:
    gathering = DIALECT.gathering()
    for one in events:
        gathering.add(one.name, one.data)
    return gathering.answer()


def taken(stream: bytes) -> Body | None:
    return gathered(Events().add(stream))


def replayed(answer: Body) -> bytes:
    return b"".join(DIALECT.replay(answer, usage=True))


def client(answer: Body, stream: bytes) -> anthropic.Anthropic:
    """The SDK; it is given the answer, or the stream where it asks for one."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, content=stream, headers={"content-type": "text/event-stream"})
        return httpx2.Response(200, json=answer)

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    return anthropic.Anthropic(api_key="k", max_retries=0, http_client=http)


# What an answer can be.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)
SAID = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": TEXT},
        optional={"citations": st.none() | st.lists(OBJECT, max_size=3)},
    ),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXT}),
)
CALLED = st.fixed_dictionaries(
    {"type": st.just("tool_use"), "id": TEXT, "name": TEXT, "input": OBJECT},
    optional={"caller": st.just({"type": "direct"}), "toolset_name": st.none() | TEXT},
)
COUNT = st.integers(0, 10**9)
USAGE = st.fixed_dictionaries(
    {"input_tokens": COUNT, "output_tokens": COUNT},
    optional={
        "cache_creation_input_tokens": st.none() | COUNT,
        "cache_read_input_tokens": st.none() | COUNT,
        "cache_creation": OBJECT,
        "output_tokens_details": st.none() | OBJECT,
        "server_tool_use": st.none() | OBJECT,
        "service_tier": TEXT,
    },
)


@st.composite
def answers(draw: st.DrawFn) -> Body:
    said = draw(st.lists(SAID, min_size=1, max_size=4))
    calls = draw(st.lists(CALLED, max_size=2))
    reason = "tool_use" if calls else draw(st.sampled_from(["end_turn", "stop_sequence"]))
    more = draw(st.sampled_from([{}, {"stop_details": None}, {"container": None, "diagnostics": None}]))
    return {
        "id": draw(TEXT),
        "type": "message",
        "role": "assistant",
        "model": draw(TEXT),
        "content": [*said, *calls],
        "stop_reason": reason,
        "stop_sequence": draw(TEXT) if reason == "stop_sequence" else None,
        "usage": draw(USAGE),
    } | more


@given(answers())
def test_a_replay_says_the_answer_again(answer: Body) -> None:
    assert DIALECT.is_whole(answer)
    assert taken(replayed(answer)) == answer


@given(answers())
def test_a_providers_stream_is_the_answer(answer: Body) -> None:
    """The stub's writer shares no code with ours."""
    stream = b"".join(provider.events({"stop_details": None} | answer))
    assert taken(stream) == {"stop_details": None} | answer


@given(answers(), st.lists(st.integers(1, 60), max_size=30))
def test_pieces_of_any_size(answer: Body, sizes: list[int]) -> None:
    stream, events, at, found = replayed(answer), Events(), 0, []
    for size in [*sizes, 10**9]:
        found += list(events.add(stream[at : at + size]))
        at += size
    assert gathered(found) == answer


def test_no_beginning_is_an_answer() -> None:
    stream = replayed(ANSWER)
    assert taken(stream) == ANSWER
    for end in range(len(stream)):
        assert taken(stream[:end]) is None


@given(
    answers(),
    st.dictionaries(st.sampled_from([*ANSWER, "container"]), JSON, max_size=2),
    st.dictionaries(st.sampled_from(["type", "text", "citations", "id", "input", "data"]), JSON, max_size=1),
    st.dictionaries(st.sampled_from(sorted(ANSWER["usage"])), JSON, max_size=1),
)
def test_whatever_is_whole_is_said_again(answer: Body, top: Body, inner: Body, usage: Body) -> None:
    first, *rest = answer["content"]
    changed = answer | {"content": [first | inner, *rest], "usage": answer["usage"] | usage} | top
    if DIALECT.is_whole(changed):
        assert taken(replayed(changed)) == changed


# The SDK as the judge.


@pytest.mark.parametrize(
    "answer", [ANSWER, PLAIN, PLAIN | {"stop_reason": "stop_sequence", "stop_sequence": "x"}]
)
def test_the_sdk_reads_a_replay_as_it_reads_the_answer(answer: Body) -> None:
    with client(answer, replayed(answer)) as sdk:
        whole = sdk.messages.create(**cast("Any", ASKED))
        with sdk.messages.stream(**cast("Any", ASKED)) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        events = list(sdk.messages.create(**cast("Any", ASKED), stream=True))
    assert final.model_dump(exclude={"content"}) == whole.model_dump(exclude={"content"})
    blocks = [one.model_dump(exclude={"parsed_output"}) for one in final.content]
    assert blocks == [one.model_dump() for one in whole.content]
    assert text == "".join(one.text for one in whole.content if one.type == "text")
    kinds = [one.type for one in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(answer["content"])


# What isn't stored.


def with_block(block: Body) -> Body:
    return PLAIN | {"content": [*PLAIN["content"], block]}


NOT_WHOLE: dict[str, Body] = {
    "max_tokens": PLAIN | {"stop_reason": "max_tokens"},
    "pause_turn": PLAIN | {"stop_reason": "pause_turn"},
    "refusal": PLAIN | {"stop_reason": "refusal"},
    "context": PLAIN | {"stop_reason": "model_context_window_exceeded"},
    "compaction": PLAIN | {"stop_reason": "compaction"},
    "null": PLAIN | {"stop_reason": None},
    "list": PLAIN | {"stop_reason": ["end_turn"]},
    "details": PLAIN | {"stop_details": {"type": "refusal"}},
    "sequence without one": PLAIN | {"stop_reason": "stop_sequence"},
    "container": PLAIN | {"container": {"id": "c"}},
    "nothing said": PLAIN | {"content": []},
    "no list": PLAIN | {"content": "Paris."},
    "error": {"type": "error", "error": {"type": "api_error", "message": "m"}},
    "role": PLAIN | {"role": "user"},
    "usage": PLAIN | {"usage": None},
    "count": PLAIN | {"usage": {"input_tokens": -1, "output_tokens": 1}},
    "call that isn't told": PLAIN | {"stop_reason": "tool_use"},
    "call at the end": with_block(CALL),
    "server tool": with_block({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
    "search": with_block({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
    "fallback": with_block({"type": "fallback", "from": {}, "to": {}}),
    "no block": PLAIN | {"content": ["Paris."]},
    "no text": with_block({"type": "text", "text": None}),
    "citation": with_block({"type": "text", "text": "a", "citations": ["b"]}),
    "input": ANSWER | {"content": [CALL | {"input": "{}"}]},
    "program": ANSWER | {"content": [CALL | {"caller": {"type": "code_execution_20260120", "tool_id": "s"}}]},
    "empty": {},
}


@pytest.mark.parametrize("answer", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_what_is_not_whole(answer: Body) -> None:
    assert DIALECT.is_whole(PLAIN)
    assert not DIALECT.is_whole(answer)


@pytest.mark.parametrize("reason", ["max_tokens", "pause_turn", "refusal", None])
def test_a_stream_that_does_not_end_by_itself(reason: str | None) -> None:
    answer = PLAIN | {"stop_reason": reason}
    gathering = DIALECT.gathering()
    for one in Events().add(b"".join(provider.events(answer))):
        gathering.add(one.name, one.data)
    assert gathering.ended
    assert gathering.answer() is None


STREAM = list(Events().add(replayed(ANSWER)))
STRANGE: dict[str, bytes] = {
    "error": event(b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', "error"),
    "unknown": event(b'{"type":"message_note"}', "message_note"),
    "unnamed": event(b'{"type":"ping"}'),
    "other name": event(b'{"type":"message_stop"}', "message_delta"),
    "no json": event(b"{", "message_delta"),
    "no object": event(b"[]", "message_delta"),
    "not utf-8": event(b'{"type":"\xff"}', "message_delta"),
    "deep": event(b'{"type":' + b"[" * 100_000, "message_delta"),
    "again": STREAM[0].raw,
    "gap": event(
        b'{"type":"content_block_start","index":9,"content_block":{"type":"text","text":""}}',
        "content_block_start",
    ),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_an_event_that_no_replay_would_say_again(strange: bytes) -> None:
    (one,) = Events().add(strange)
    for at in range(len(STREAM) + 1):
        assert gathered([*STREAM[:at], one, *STREAM[at:]]) is None


def test_an_event_that_is_missing() -> None:
    for at, one in enumerate(STREAM):
        if one.name != "content_block_delta":
            assert gathered([*STREAM[:at], *STREAM[at + 1 :]]) is None


def changed(one: Event, **more: Any) -> Event:
    return Event(b"", one.name, json.dumps(json.loads(one.data) | more).encode())


@pytest.mark.parametrize(
    "name", ["message_start", "content_block_start", "content_block_delta", "message_delta"]
)
def test_a_field_that_no_replay_would_say_again(name: str) -> None:
    for at, one in enumerate(STREAM):
        same = [*STREAM[:at], changed(one), *STREAM[at + 1 :]]
        assert gathered(same) == ANSWER
        if one.name == name:
            assert gathered([*STREAM[:at], changed(one, more=1), *STREAM[at + 1 :]]) is None


def test_an_end_that_says_more() -> None:
    *head, end, stop = STREAM
    told = json.loads(end.data)["delta"]
    assert gathered([*head, changed(end, delta=told), stop]) == ANSWER
    assert gathered([*head, changed(end, delta=told | {"more": 1}), stop]) is None


def test_blocks_are_numbered_in_their_order() -> None:
    numbered = [json.loads(one.data).get("index") for one in STREAM]
    for wrong in (0, 7):
        moved = [
            changed(one, index=wrong) if at == 5 else one for one, at in zip(STREAM, numbered, strict=True)
        ]
        assert gathered(moved) is None


def test_nothing_comes_behind_the_end() -> None:
    *_, end, _ = STREAM
    assert gathered([*STREAM, end]) is None


def test_what_betas_tell_at_the_end() -> None:
    edits = {"context_management": {"applied_edits": [{"type": "clear_thinking", "cleared": 1}]}}
    *head, end, stop = Events().add(b"".join(provider.events(PLAIN)))
    late = Event(b"", end.name, json.dumps(json.loads(end.data) | edits).encode())
    assert gathered([*head, late, stop]) == PLAIN | edits
    assert b"applied_edits" in DIALECT.replay(PLAIN | edits, usage=True)[-2]
    assert taken(replayed(PLAIN | edits)) == PLAIN | edits


def test_pings_and_comments_say_nothing() -> None:
    ping = Event(b"", "ping", b'{"type": "ping"}')
    said = [more for one in STREAM for more in (one, ping, Event(b": alive\n\n", None, b""))]
    assert gathered(said) == ANSWER


@pytest.mark.parametrize(
    "delta",
    [
        {"type": "text_delta", "text": "a", "more": 1},
        {"type": "text_delta", "text": 1},
        {"type": "thinking_delta", "thinking": "a"},
        {"type": "compaction_delta", "content": "a"},
        {"type": "citations_delta", "citation": "a"},
    ],
)
def test_a_delta_that_no_replay_would_say_again(delta: Body) -> None:
    start, block, _, *rest = Events().add(replayed(PLAIN))
    told = json.dumps({"type": "content_block_delta", "index": 0, "delta": delta}).encode()
    good = json.dumps(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    )
    assert gathered([start, block, Event(b"", "content_block_delta", good.encode()), *rest]) is not None
    assert gathered([start, block, Event(b"", "content_block_delta", told), *rest]) is None


# What counts of a request.


def test_every_parameter_of_the_sdk_is_decided() -> None:
    known = get_type_hints(message_create_params.MessageCreateParamsStreaming)
    assert MESSAGES_PARAMS.keys() == known.keys()
    betas = get_type_hints(beta_params.MessageCreateParamsStreaming)
    assert (MESSAGES_PARAMS | MESSAGES_BEYOND).keys() >= betas.keys()


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        (name, *case)
        for table in (MESSAGES_PARAMS, MESSAGES_BEYOND)
        for name, cases in table.items()
        for case in cases
    ],
)
def test_a_field_and_the_key(name: str, kind: str, value: Any) -> None:
    before, after = entry(ASKED), entry(ASKED | {name: value})
    assert not before.startswith("bypass")
    if kind in {NEUTRAL, KEY}:
        assert (after == before) == (kind == NEUTRAL)
        assert not after.startswith("bypass")
    else:
        assert after == f"bypass {kind}"


def test_every_change_is_another_question() -> None:
    changed = [
        entry(ASKED | {name: value})
        for name, cases in MESSAGES_PARAMS.items()
        for kind, value in cases
        if kind == KEY
    ]
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20260318",
        "web_fetch_20250910",
        "code_execution_20260521",
        "computer_toolset_20260801",
        "browser_toolset_20260801",
        "tool_search_tool_bm25",
        "mcp_toolset",
        "something_of_tomorrow",
        5,
    ],
)
def test_tools_that_the_provider_runs(kind: Any) -> None:
    own = {"name": "look", "input_schema": {"type": "object"}}
    assert entry(ASKED | {"tools": [own, {"type": kind, "name": "n"}]}) == "bypass server_tools"


@pytest.mark.parametrize("kind", ["custom", "bash_20250124", "text_editor_20250728", "memory_20250818"])
def test_tools_that_the_client_runs(kind: str) -> None:
    reading = read(ASKED | {"tools": [{"type": kind, "name": "n"}]})
    assert reading.bypass is None
    assert reading.tiers == tuple(Tier)


def talk(*contents: Any, **more: Any) -> Body:
    roles = ("user", "assistant") * len(contents)
    said = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ASKED | {"messages": said} | more


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LOOK = {"name": "look", "input_schema": {"type": "object", "properties": {"cache_control": None}}}


def block(text: str) -> Body:
    return {"type": "text", "text": text}


BILLED = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch={};"

SAME: dict[str, tuple[Body, Body]] = {
    "who is billed": (
        talk("Hi.", system=[block(BILLED.format("36ee5")), block("a")]),
        talk("Hi.", system=[block(BILLED.format("0aaa9")) | MARK, block("a")]),
    ),
    "only who is billed": (talk("Hi."), talk("Hi.", system=[block(BILLED.format("36ee5"))])),
    "text and a block": (talk("Hi."), talk([block("Hi.")])),
    "of the system": (talk("Hi.", system="Brief."), talk("Hi.", system=[block("Brief.") | MARK])),
    "marks": (
        talk("Hi.", [block("a"), CALL], [RESULT], tools=[LOOK], system=[block("a"), block("b")]),
        talk(
            "Hi.",
            [block("a") | MARK, CALL | MARK],
            [RESULT | MARK | {"content": [block("rain") | MARK]}],
            tools=[LOOK | MARK],
            system=[block("a") | MARK, block("b") | MARK],
        ),
    ),
    "nulls": (talk([block("Hi.")]), talk([block("Hi.") | {"citations": None}])),
    "ids of calls": (
        talk("Hi.", [CALL], [RESULT]),
        talk("Hi.", [CALL | {"id": "toolu_9"}], [RESULT | {"tool_use_id": "toolu_9"}]),
    ),
}
OTHER: dict[str, tuple[Body, Body]] = {
    "order of blocks": (talk([block("a"), block("b")]), talk([block("b"), block("a")])),
    "blocks aren't one text": (talk([block("a"), block("b")]), talk([block("ab")])),
    "blocks of the system": (
        talk("Hi.", system=[block("a"), block("b")]),
        talk("Hi.", system=[block("ab")]),
    ),
    "whose result it is": (
        talk("Hi.", [CALL, CALL | {"id": "toolu_2"}], [RESULT]),
        talk("Hi.", [CALL, CALL | {"id": "toolu_2"}], [RESULT | {"tool_use_id": "toolu_2"}]),
    ),
    "a result's text": (talk("Hi.", [CALL], [RESULT]), talk("Hi.", [CALL], [RESULT | {"content": "sun"}])),
    "an error": (talk("Hi.", [CALL], [RESULT]), talk("Hi.", [CALL], [RESULT | {"is_error": True}])),
    "a call's input": (talk("Hi.", [CALL], [RESULT]), talk("Hi.", [CALL | {"input": {}}], [RESULT])),
    "a schema's null": (
        talk("Hi.", tools=[LOOK]),
        talk("Hi.", tools=[LOOK | {"input_schema": {"type": "object", "properties": {}}}]),
    ),
    "more than who is billed": (
        talk("Hi.", system=[block(BILLED.format("36ee5") + "\nBe brief.")]),
        talk("Hi.", system=[block(BILLED.format("36ee5") + "\nBe kind.")]),
    ),
    "who is billed, but not first": (
        talk("Hi.", system=[block("a"), block(BILLED.format("36ee5"))]),
        talk("Hi.", system=[block("a"), block(BILLED.format("0aaa9"))]),
    ),
    "prefill": (talk("Hi."), talk("Hi.", "Well")),
    "a system message": (
        ASKED | {"messages": [{"role": "system", "content": "Brief."}, *ASKED["messages"]]},
        ASKED,
    ),
    "an item of ours": (
        talk([{"type": "item", "item": 5}]),
        ASKED | {"messages": [{"role": "user", "content": 5}]},
    ),
    "a picture": (
        talk([block("a"), {"type": "image", "source": {"type": "url", "url": "https://x/1"}}]),
        talk([block("a"), {"type": "image", "source": {"type": "url", "url": "https://x/2"}}]),
    ),
}


@pytest.mark.parametrize(("first", "second"), SAME.values(), ids=SAME)
def test_the_same_question(first: Body, second: Body) -> None:
    assert entry(first) == entry(second)
    assert not entry(first).startswith("bypass")


@pytest.mark.parametrize(("first", "second"), OTHER.values(), ids=OTHER)
def test_another_question(first: Body, second: Body) -> None:
    assert entry(first) != entry(second)
    assert not entry(first).startswith("bypass")


def test_versions_and_betas_are_in_the_key() -> None:
    ids = [
        entry(ASKED, {}),
        entry(ASKED),
        entry(ASKED, {"anthropic-version": "2023-06-01"}),
        entry(ASKED, HEADERS | {"anthropic-beta": "a-1"}),
        entry(ASKED, HEADERS | {"anthropic-beta": "a-1,b-2"}),
    ]
    assert len(set(ids)) == len(ids)
    assert entry(ASKED, HEADERS | {"anthropic-beta": " b-2 ,a-1"}) == ids[-1]
    assert entry(ASKED, HEADERS | {"user-agent": "x", "x-api-key": "k"}) == ids[1]


def test_only_plain_text_is_compared() -> None:
    assert question(read(talk([block("Hi.") | MARK]))).text == "Hi."
    assert read(ASKED).tiers == tuple(Tier)
    assert (
        question(read(ASKED | {"messages": [*ASKED["messages"], {"role": "system", "content": "s"}]})).text
        is None
    )
    for body in (
        talk("Hi.", [CALL], [RESULT]),
        talk("Hi.", [CALL], [RESULT], "Rain.", "And now?"),
        talk("Hi.", [{"type": "thinking", "thinking": "t", "signature": "s"}, block("a")], "And now?"),
        talk([block("a"), {"type": "document", "source": {"type": "text", "data": "d"}}]),
        talk("Hi.", tools=[LOOK], tool_choice={"type": "any"}),
        talk("Hi.", tools=[LOOK], tool_choice={"type": "tool", "name": "look"}),
    ):
        assert read(body).tiers == (Tier.EXACT,)


def test_what_is_deep_is_not_read() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert read(ASKED | {"messages": deep}).bypass == "unreadable"
    assert not DIALECT.is_whole(PLAIN | {"more": deep})


ROLE = st.sampled_from(["user", "assistant", "system", "tool", 5, None])
KIND = st.sampled_from(["text", "item", "tool_use", "tool_result", "image", 5, None])
BLOCK = JSON | st.fixed_dictionaries(
    {"type": KIND}, optional={"text": JSON, "id": JSON, "tool_use_id": JSON, "content": JSON, "input": JSON}
)
MESSAGE = JSON | st.fixed_dictionaries(
    {"role": ROLE, "content": JSON | st.lists(BLOCK, max_size=3)}, optional={"name": JSON, "tool_calls": JSON}
)
REQUEST = st.fixed_dictionaries(
    {"model": TEXT | JSON, "messages": st.lists(MESSAGE, max_size=4) | JSON},
    optional={
        name: JSON
        for name in [*MESSAGES_PARAMS, "temperature", "mcp_servers", "thread"]
        if name not in {"model", "messages"}
    },
)


@given(
    REQUEST | st.dictionaries(st.sampled_from(sorted(MESSAGES_PARAMS)), JSON),
    st.dictionaries(TEXT, TEXT, max_size=2),
)
def test_any_request_is_read_or_bypassed(body: Body, headers: dict[str, str]) -> None:
    reading = read(body, headers)
    assert (reading.bypass is None) == (reading.fields is not None)
    if reading.fields is not None:
        assert question(reading).identities


@given(st.lists(st.tuples(st.none() | TEXT, st.binary(max_size=30)), max_size=4), st.dictionaries(TEXT, JSON))
def test_nothing_fails(events: list[tuple[str | None, bytes]], answer: Body) -> None:
    assert gathered(Event(b"", name, data) for name, data in events) is None
    assert not DIALECT.is_whole(answer)
    assert DIALECT.spent(answer) is None


def test_what_was_spent() -> None:
    assert DIALECT.spent(ANSWER) == Spent(input=2310, output=77, cached=2000, written=300)
    assert DIALECT.spent({"usage": {"input_tokens": 3, "output_tokens": 4}}) == Spent(3, 4)
    assert acts(msgspec.json.encode(ANSWER))
    assert not acts(msgspec.json.encode(PLAIN))
    assert DIALECT.addressed(PLAIN, ASKED) == PLAIN
