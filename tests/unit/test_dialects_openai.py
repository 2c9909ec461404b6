"""What of a request to OpenAI counts: every parameter of the SDK's types, and requests of any shape."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params

from service.cache import canonical
from service.cache.dialects import fields
from service.cache.dialects.chat import Chat
from service.cache.dialects.dialect import Dialect, Reading
from service.cache.dialects.responses import Responses
from service.cache.digests import Keyring
from service.errors import InvalidInputError
from service.model import LookupRequest, QueryFields, Tenant, Tier
from tests.parameters import CHAT_PARAMS, FUNCTION, KEY, NEUTRAL, RESPONSES_PARAMS, TOOL, Table

KEYS = Keyring(b"dialects").of(Tenant("acme"))
CHAT: Dialect = Chat()
RESPONSES: Dialect = Responses()
BOTH = (Tier.EXACT, Tier.SEMANTIC)

ASKED: dict[str, Any] = {
    "model": "gpt-6-luna",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it warm?"}],
}
SAID: dict[str, Any] = {"model": "gpt-6-luna", "input": "Is it warm?", "instructions": "Be brief."}


def entry_id(reading: Reading) -> str:
    assert reading.fields is not None
    request = msgspec.convert(reading.fields | {"agent_type": "a"}, LookupRequest)
    return canonical.query(request, KEYS, 384).identities[0].entry_id


def chat_id(**fields: Any) -> str:
    return entry_id(CHAT.read(ASKED | fields, {}))


def talk_id(*messages: Any) -> str:
    return chat_id(messages=list(messages))


def input_id(*items: Any) -> str:
    return entry_id(RESPONSES.read(SAID | {"input": list(items)}, {}))


def rows(dialect: Dialect, body: dict[str, Any], table: Table) -> list[Any]:
    return [
        pytest.param(dialect, body, name, kind, value, id=f"{dialect.path}-{name}-{at}")
        for name, cases in table.items()
        for at, (kind, value) in enumerate(cases)
    ]


def test_the_tables_have_every_parameter_of_the_sdk() -> None:
    assert CHAT_PARAMS.keys() == chat_params.CompletionCreateParamsNonStreaming.__annotations__.keys()
    assert RESPONSES_PARAMS.keys() == responses_params.ResponseCreateParamsBase.__annotations__.keys() | {
        "stream"
    }


@pytest.mark.parametrize(
    ("dialect", "body", "name", "kind", "value"),
    rows(CHAT, ASKED, CHAT_PARAMS) + rows(RESPONSES, SAID, RESPONSES_PARAMS),
)
def test_one_parameter_at_a_time(
    dialect: Dialect, body: dict[str, Any], name: str, kind: str, value: Any
) -> None:
    before, after = dialect.read(body, {}), dialect.read(body | {name: value}, {})
    absent = dialect.read(body | {name: None}, {}) if name not in body else before
    assert before.bypass is absent.bypass is None
    assert entry_id(before) == entry_id(absent)
    if kind in {NEUTRAL, KEY}:
        assert after.bypass is None
        assert (entry_id(after) == entry_id(before)) is (kind == NEUTRAL)
    else:
        assert (after.bypass, after.fields, after.tiers) == (kind, None, ())


def test_unknown_fields_count_and_take_no_place_of_ours() -> None:
    names = ["new_option", "endpoint", "body", "before", "agent_type", "params", "system", "messages_"]
    assert len({chat_id(), *(chat_id(**{name: "x"}) for name in names)}) == len(names) + 1
    theirs = CHAT.read(ASKED | {"endpoint": "/v1/responses", "agent_type": "other"}, {}).fields
    assert theirs is not None
    assert "agent_type" not in theirs
    assert theirs["params"]["endpoint"] == "/v1/chat/completions"


def test_the_calls_share_no_answers() -> None:
    chat = CHAT.read({"model": "m", "messages": [{"role": "user", "content": "q"}]}, {})
    assert entry_id(chat) != entry_id(RESPONSES.read({"model": "m", "input": "q"}, {}))


def test_a_stream_is_wanted_with_or_without_usage() -> None:
    def read(**body: Any) -> tuple[bool, bool]:
        reading = CHAT.read(ASKED | body, {})
        return reading.streams, reading.usage_wanted

    assert read() == (False, True)
    assert read(stream=True) == (True, False)
    assert read(stream=True, stream_options={"include_usage": False}) == (True, False)
    assert read(stream=True, stream_options={"include_usage": True}) == (True, True)
    assert read(stream=True, stream_options={"include_usage": True}, audio={}) == (True, True)
    assert RESPONSES.read(SAID | {"stream": True}, {}) == msgspec.structs.replace(
        RESPONSES.read(SAID, {}), streams=True
    )


TEXT = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    "same",
    [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": [TEXT]},
        {"role": "user", "content": [TEXT | {"prompt_cache_breakpoint": {"mode": "explicit"}}]},
        {"role": "user", "content": [TEXT | {"cache_control": {"type": "ephemeral"}}], "name": None},
    ],
)
def test_a_text_is_a_text_however_it_is_written(same: dict[str, Any]) -> None:
    assert talk_id(same) == talk_id({"role": "user", "content": "hi"})
    assert CHAT.read(ASKED | {"messages": [same]}, {}).tiers == BOTH


def test_an_answer_sent_back_is_its_text() -> None:
    question, more = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    dumped: dict[str, Any] = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
    }
    assert talk_id(question, dumped, more) == talk_id(question, {"role": "assistant", "content": "x"}, more)
    part = {"type": "output_text", "text": "x", "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    assert input_id(question, item, more) == input_id(
        question, {"role": "assistant", "content": "x"}, more | {"type": "message"}
    )
    cited = item | {"content": [part | {"annotations": [{"type": "url_citation", "url": "u"}]}]}
    assert input_id(question, cited, more) != input_id(question, item, more)
    assert input_id(question, item | {"status": "incomplete"}, more) != input_id(question, item, more)
    assert input_id(question, item | {"phase": "commentary"}, more) != input_id(question, item, more)


def called(name: str, **more: Any) -> dict[str, Any]:
    call = {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}, **more}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_minted_ids_of_calls_dont_count_but_who_answers_whom_does() -> None:
    def loop(one: str, other: str, first: str, second: str) -> str:
        replies = [{"role": "tool", "tool_call_id": of, "content": "1"} for of in (first, second)]
        return talk_id(ASKED["messages"][1], called(one), called(other), *replies)

    assert loop("call_a", "call_b", "call_a", "call_b") == loop("call_x", "call_y", "call_x", "call_y")
    assert loop("call_a", "call_b", "call_a", "call_b") != loop("call_a", "call_b", "call_b", "call_a")

    def items(call: str, item: str, answers: str) -> str:
        asked = {"type": "function_call", "id": item, "call_id": call, "name": "f", "arguments": "{}"}
        reply = {"type": "function_call_output", "call_id": answers, "output": "1"}
        return input_id({"role": "user", "content": "q"}, asked, reply)

    assert items("call_a", "fc_a", "call_a") == items("call_b", "fc_b", "call_b")
    assert items("call_a", "fc_a", "call_a") != items("call_a", "fc_a", "call_c")


def test_nulls_and_marks_inside_of_a_schema_are_the_callers() -> None:
    def tool(**properties: Any) -> str:
        return chat_id(tools=[{"type": "function", "function": {"name": "f", "parameters": properties}}])

    detailed = PICTURE | {"image_url": PICTURE["image_url"] | {"detail": None}}
    assert talk_id({"role": "user", "content": [detailed]}) != talk_id({"role": "user", "content": [PICTURE]})
    assert tool(default=None) != tool()
    assert tool(cache_control="x") != tool()
    mark = {"cache_control": {"type": "ephemeral"}}
    assert chat_id(tools=[TOOL | mark]) == chat_id(tools=[TOOL | {"function": FUNCTION | mark}])
    assert chat_id(tools=[TOOL | mark]) == chat_id(tools=[TOOL])
    assert chat_id(tools=[TOOL | {"function": FUNCTION | {"strict": None}}]) != chat_id(tools=[TOOL])


def test_what_stands_before_the_conversation_is_of_the_scope() -> None:
    question = {"role": "user", "content": "q"}

    def scope(*before: tuple[str, str]) -> str:
        read = CHAT.read(
            ASKED | {"messages": [{"role": role, "content": text} for role, text in before] + [question]}, {}
        )
        assert read.fields is not None
        request = msgspec.convert(read.fields | {"agent_type": "a"}, LookupRequest)
        identity = canonical.query(request, KEYS, 384).identities[0]
        nothing = canonical.query(LookupRequest(agent_type="a", prompt="q"), KEYS, 384).identities[0]
        assert identity.history == nothing.history  # so that a policy's `history` doesn't keep them apart
        return identity.scope

    both = ("system", "s"), ("developer", "d")
    assert (
        len({scope(*one) for one in [(), both[:1], both[1:], both, both[::-1], (("developer", "s"),)]}) == 6
    )


PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ({}, False),
        ({"tools": [TOOL], "tool_choice": "auto"}, False),
        ({"response_format": {"type": "json_object"}, "n": 1, "logprobs": False, "seed": 1}, False),
        ({"n": 2}, True),
        ({"n": "2"}, True),
        ({"logprobs": True}, True),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": TOOL}, True),
        ({"messages": [{"role": "user", "content": [TEXT, PICTURE]}]}, True),
        ({"messages": [{"role": "user", "content": [PICTURE]}, {"role": "user", "content": "q"}]}, True),
        ({"messages": [called("c"), {"role": "user", "content": "q"}]}, True),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "1"}]}, True),
        ({"messages": [{"role": "function", "name": "f", "content": "1"}, ASKED["messages"][1]]}, True),
        ({"messages": [{"role": "user", "content": "q", "mood": "?"}]}, True),
    ],
)
def test_tiers(change: dict[str, Any], exact: bool) -> None:  # noqa: FBT001 - a row of a table
    reading = CHAT.read(ASKED | change, {})
    assert reading.bypass is None
    assert reading.tiers == ((Tier.EXACT,) if exact else BOTH)


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        ({}, False),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "q"}]}]}, False),
        ({"store": True}, True),
        ({"store": None}, True),
        ({"top_logprobs": 2}, True),
        ({"include": ["message.output_text.logprobs"]}, True),
        ({"tool_choice": {"type": "function", "name": "f"}}, True),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "q"}]}, True),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, ASKED["messages"][1]]}, True),
    ],
)
def test_tiers_of_responses(change: dict[str, Any], exact: bool) -> None:  # noqa: FBT001 - a row of a table
    reading = RESPONSES.read(SAID | {"store": False} | change, {})
    assert reading.tiers == ((Tier.EXACT,) if exact else BOTH)


def test_nothing_said_is_taken_for_an_item_of_ours() -> None:
    odd = {"role": "user", "content": "q", "mood": "?"}
    ours = fields.message(odd)
    assert ours["role"] == "user"
    assert talk_id(odd) != talk_id(ours)
    assert talk_id(odd) != talk_id(fields.message(ours))


def test_what_is_kept_at_the_provider_counts_by_its_id() -> None:
    question = {"role": "user", "content": "q"}
    ids = ["msg_1", "msg_2"]
    assert len({input_id({"type": "item_reference", "id": one}, question) for one in ids}) == 2
    assert len({input_id({"type": "reasoning", "id": one, "summary": []}, question) for one in ids}) == 2


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": 1},
        {"model": ""},
        {"model": "é" * 257},
        {"model": "\ud800"},
        {"messages": None},
        {"messages": {}},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user", "content": " \n"}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [None, 1, "x"]},
        {"tools": {}},
        {"stream": "yes"},
        {"metadata": {}, "seed": deep(101)},
        {"seed": "\udfff"},
    ],
)
def test_what_the_cache_would_refuse_is_left_to_the_provider(change: dict[str, Any]) -> None:
    assert CHAT.read(ASKED | change, {}).bypass == "unreadable"


@pytest.mark.parametrize("change", [{"input": None}, {"input": 1}, {"instructions": ["x"]}, {"input": []}])
def test_what_the_cache_would_refuse_of_responses(change: dict[str, Any]) -> None:
    assert RESPONSES.read(SAID | change, {}).bypass == "unreadable"


WORDS = st.sampled_from(
    ["user", "system", "assistant", "tool", "text", "input_text", "item", "function", "message", "", " ", "x"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "name",
        "tool_calls",
        "tool_call_id",
        "id",
        "call_id",
        "output",
        "tools",
    ]
)
JSON = st.recursive(
    LEAVES | WORDS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool", "function"])},
        optional={
            "content": st.text(max_size=3) | st.lists(JSON, max_size=2) | JSON,
            "name": JSON,
            "tool_calls": JSON,
            "type": WORDS,
        },
    )
    | JSON,
    max_size=4,
)


def bodies(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    known = st.fixed_dictionaries(
        {"model": st.just("m") | JSON}, optional={"messages": MESSAGES, "input": MESSAGES | st.text()}
    )
    return st.builds(
        lambda one, more: more | one, known, st.dictionaries(st.sampled_from(names), JSON, max_size=4)
    )


@settings(max_examples=300, deadline=None)
@given(bodies(sorted(CHAT_PARAMS | RESPONSES_PARAMS)))
def test_whatever_is_read_the_cache_takes(body: dict[str, Any]) -> None:
    before = msgspec.json.encode(body) if "\\ud" not in repr(body) else b""
    for dialect in (CHAT, RESPONSES):
        reading = dialect.read(body, {})
        assert (reading.fields is None) is (reading.bypass is not None)
        if reading.fields is not None:
            assert entry_id(reading)
            assert reading.tiers
            msgspec.convert(reading.fields | {"agent_type": "a"}, QueryFields)
    assert not before or msgspec.json.encode(body) == before  # it is forwarded as it came


@settings(max_examples=300, deadline=None)
@given(MESSAGES.map(lambda given: [fields.message(one) for one in given]), st.just("m") | JSON)
def test_the_check_is_the_caches_own(messages: list[Any], model: Any) -> None:
    made = fields.query("/v1/x", {"model": model}, messages)
    reading = fields.reading(made, BOTH, streams=False)
    try:
        request = msgspec.convert(made | {"agent_type": "a"}, LookupRequest)
        canonical.query(request, KEYS, 384)
        refused = request.model is None  # a provider's call has one
    except (InvalidInputError, msgspec.ValidationError, UnicodeError):
        refused = True
    assert (reading.bypass == "unreadable") is refused
