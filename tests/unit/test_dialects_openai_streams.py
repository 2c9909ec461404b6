"""Answers of OpenAI as streams and back; the SDK itself says what a stream means."""

import asyncio
import copy
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import APIError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from service.cache.actions import acts
from service.cache.dialects.chat import Chat
from service.cache.dialects.dialect import Dialect, Gathering, Spent
from service.cache.dialects.events import Events, event
from service.cache.dialects.responses import Responses

CHAT: Dialect = Chat()
RESPONSES: Dialect = Responses()
encode = msgspec.json.encode

ODDS = {
    "content": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.1, "top_logprobs": []}],
    "refusal": None,
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
OWN = {"id": "call_2", "type": "custom", "custom": {"name": "shell", "input": "ls\n" * 300}}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "gpt-6-luna-2026-08-01",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi " * 500, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0, "cache_write_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
PART = {"type": "output_text", "text": "It is\u2028warm. " * 40, "annotations": [], "logprobs": []}
CITED = PART | {
    "annotations": [{"type": "url_citation", "start_index": 0, "end_index": 2, "title": "t", "url": "u"}]
}
ITEMS: list[dict[str, Any]] = [
    {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Thinking. " * 50}],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
        "encrypted_content": "gAAAA",
    },
    {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [PART, CITED],
        "phase": "final_answer",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city":"Rome"}',
    },
    {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls " * 300},
]
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1790000000,
    "status": "completed",
    "completed_at": 1790000002,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {"ticket": "1"},
    "model": "gpt-6-luna-2026-08-01",
    "output": ITEMS,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 8},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    },
    "user": "u-1",
}


def completion(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    numbered = [{"index": at, "finish_reason": "stop"} | one for at, one in enumerate(choices)]
    return COMPLETION | {"choices": numbered} | more


def message(**more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": None} | more}


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return RESPONSE | {"output": list(items)} | more


CALLING = message(tool_calls=[CALL, OWN | {"id": "call_2"}], refusal=None) | {"finish_reason": "tool_calls"}
COMPLETIONS = {
    "text": COMPLETION,
    "calls": completion(CALLING),
    "text and calls": completion(message(content="So:", tool_calls=[CALL]) | {"finish_reason": "tool_calls"}),
    "several": completion(message(content="a"), CALLING, message(content="c", reasoning_content="Hm" * 300)),
    "odds": completion(
        message(content="Hi") | {"logprobs": ODDS}, message(content="Hi") | {"logprobs": ODDS}
    ),
    "odds of a call": completion(CALLING | {"logprobs": ODDS}),
    "legacy": completion(
        message(function_call={"name": "f", "arguments": "{}"}) | {"finish_reason": "function_call"}
    ),
    "cited": completion(message(content="x", annotations=[{"type": "url_citation", "url_citation": {}}])),
    "vLLM": completion(
        message(content="x", tool_calls=[], function_call=None, audio=None) | {"stop_reason": None}
    ),
    "other providers": completion(message(content="x") | {"native_finish_reason": "end"}, provider="p"),
    "moderated": COMPLETION | {"moderation": {"input": {"type": "error"}, "output": {"type": "error"}}},
    "without usage": {name: one for name, one in COMPLETION.items() if name != "usage"},
}
RESPONSES_TOLD = {
    "all": RESPONSE,
    "reasoned": response({"id": "rs_1", "type": "reasoning", "summary": []}, ITEMS[1]),
    "odds": response(ITEMS[1] | {"content": [PART | {"logprobs": ODDS["content"]}]}),
    "call": response(ITEMS[2]),
}
ANSWERS = [
    *(pytest.param(CHAT, one, id=f"chat-{name}") for name, one in COMPLETIONS.items()),
    *(pytest.param(RESPONSES, one, id=f"responses-{name}") for name, one in RESPONSES_TOLD.items()),
]


def gathered(dialect: Dialect, stream: bytes, size: int = 0) -> Gathering:
    cut, gathering = Events(), dialect.gathering()
    for at in range(0, len(stream), size or len(stream) or 1):
        for one in cut.add(stream[at : at + (size or len(stream))]):
            gathering.add(one.name, one.data)
    return gathering


def answers(body: bytes, kind: str = "text/event-stream") -> httpx2.MockTransport:
    return httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": kind}, stream=httpx2.ByteStream(body))
    )


def sdk(body: bytes, kind: str = "text/event-stream") -> OpenAI:
    client = httpx2.Client(transport=answers(body, kind))
    return OpenAI(api_key="k", base_url="http://test/v1", http_client=client, max_retries=0)


ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
SAID: dict[str, Any] = {"model": "m", "input": "q"}


def called_without_stream(answer: dict[str, Any]) -> ChatCompletion:
    made: ChatCompletion = sdk(encode(answer), "application/json").chat.completions.create(**ASKED)
    return made


def responded_without_stream(answer: dict[str, Any]) -> Response:
    made: Response = sdk(encode(answer), "application/json").responses.create(**SAID)
    return made


def bare(value: Any) -> Any:
    """Without what says nothing: an SDK fills in nulls, and leaves `parsed` behind."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {k: bare(one) for k, one in value.items() if one is not None and k not in {"parsed", "index"}}


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_a_replay_is_gathered_to_the_answer(dialect: Dialect, answer: dict[str, Any]) -> None:
    assert dialect.is_whole(answer)
    before = copy.deepcopy(answer)
    stream = b"".join(dialect.replay(answer, usage=True))
    assert answer == before
    for size in (0, 1, 7, 1000):
        gathering = gathered(dialect, stream, size)
        assert gathering.ended
        assert gathering.answer() == answer


@pytest.mark.parametrize("answer", COMPLETIONS.values(), ids=COMPLETIONS.keys())
def test_usage_is_told_to_who_wants_it(answer: dict[str, Any]) -> None:
    quiet = b"".join(CHAT.replay(answer, usage=False))
    assert b'"usage"' not in quiet
    assert gathered(CHAT, quiet).answer() == {name: one for name, one in answer.items() if name != "usage"}
    chunks = list(
        sdk(b"".join(CHAT.replay(answer, usage=True))).chat.completions.create(**ASKED, stream=True)
    )
    told = [chunk for chunk in chunks if chunk.usage is not None]
    assert told == ([chunks[-1]] if "usage" in answer else [])
    assert all(chunk.choices == [] for chunk in told)


def streamed(answer: dict[str, Any]) -> None:
    """Hold what the SDK makes of a replay against what it makes of the answer itself."""
    stream = b"".join(CHAT.replay(answer, usage=True))
    chunks = list(sdk(stream).chat.completions.create(**ASKED, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    if b'"type":"custom"' in stream:  # the SDK's helper can't read such calls, from whomever
        return
    with sdk(stream).chat.completions.stream(**ASKED) as helper:
        told = helper.get_final_completion().model_dump(exclude_unset=True)
    direct = called_without_stream(answer).model_dump(exclude_unset=True)
    assert [one["index"] for one in told["choices"]] == [one["index"] for one in direct["choices"]]
    assert bare(told) == bare(direct)


OWN_FIELDS = {"other providers", "vLLM"}  # of a choice; the SDK's helper leaves out those of its last chunk


@pytest.mark.parametrize("name", sorted(COMPLETIONS.keys() - OWN_FIELDS))
def test_the_sdk_streams_a_completion(name: str) -> None:
    streamed(COMPLETIONS[name])


@pytest.mark.parametrize("answer", RESPONSES_TOLD.values(), ids=RESPONSES_TOLD.keys())
def test_the_sdk_streams_a_response(answer: dict[str, Any]) -> None:
    stream = b"".join(RESPONSES.replay(answer, usage=False))
    direct = responded_without_stream(answer)
    with sdk(stream).responses.stream(**SAID) as helper:
        final = helper.get_final_response()
    assert bare(final.model_dump(exclude_unset=True)) == bare(direct.model_dump(exclude_unset=True))
    assert final.output_text == direct.output_text
    told = list(sdk(stream).responses.create(**SAID, stream=True))
    assert [one.sequence_number for one in told] == list(range(len(told)))
    for one in told:  # strictly: no field that the SDK's type requires is missing, or of another type
        type(one).model_validate(one.to_dict())
    assert told[0].type == "response.created"
    assert told[0].response.status == "in_progress"
    assert told[0].response.output == []
    texts = "".join(one.delta for one in told if one.type == "response.output_text.delta")
    assert texts == direct.output_text


def test_the_asynchronous_sdk_streams_too() -> None:
    async def both() -> tuple[str | None, str]:
        chat, said = (
            b"".join(one.replay(a, usage=True)) for one, a in ((CHAT, COMPLETION), (RESPONSES, RESPONSE))
        )
        options: dict[str, Any] = {"api_key": "k", "base_url": "http://test/v1"}
        one = AsyncOpenAI(**options, http_client=httpx2.AsyncClient(transport=answers(chat)))
        async with one, one.chat.completions.stream(**ASKED) as helper:
            completed = await helper.get_final_completion()
        other = AsyncOpenAI(**options, http_client=httpx2.AsyncClient(transport=answers(said)))
        async with other, other.responses.stream(**SAID) as helper_of_responses:
            responded = await helper_of_responses.get_final_response()
        return completed.choices[0].message.content, responded.output_text

    text = f"{PART['text']}{CITED['text']}"
    assert asyncio.run(both()) == (COMPLETION["choices"][0]["message"]["content"], text)


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_no_prefix_is_an_answer(dialect: Dialect, answer: dict[str, Any]) -> None:
    events = dialect.replay(answer, usage=True)
    for count in range(len(events)):
        gathering = gathered(dialect, b"".join(events[:count]))
        assert not gathering.ended
        assert gathering.answer() is None
    last = len(b"".join(events)) - 1  # the blank line's end is missing
    assert gathered(dialect, b"".join(events)[:last]).answer() is None


@pytest.mark.parametrize("at", range(1, 12))
def test_a_missing_chunk_that_ended_a_choice_is_noticed(at: int) -> None:
    events = CHAT.replay(COMPLETIONS["several"], usage=True)
    ends = [n for n, one in enumerate(events) if b'"finish_reason":"' in one]
    assert len(ends) == 3
    without = [one for n, one in enumerate(events) if n != ends[at % 3]]
    assert gathered(CHAT, b"".join(without)).answer() is None


def chunk(**delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return event(encode({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}))


STRANGE = [
    event(b'{"error": {"message": "overloaded"}}'),
    event(b"{"),
    event(b"[]"),
    event(b"\xff"),
    event(b"{}", "error"),
    event(b'{"object": "chat.completion.chunk", "choices": {}}'),
    event(b'{"object": "chat.completion.chunk", "choices": [1]}'),
    event(b'{"object": "chat.completion.chunk", "choices": [{"delta": {"content": "x"}}]}'),
    event(b'{"object": "chat.completion.chunk", "choices": [{"index": 1, "delta": {"content": "x"}}]}'),
    event(b'{"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": "length"}]}'),
    event(b'{"object": "chat.completion.chunk", "error": {"code": 500}}'),
    event(b'{"object": "chat.completion"}'),
    event(b'{"object": "chat.completion.chunk", "choices": [{"index": 0, "message": {"content": "x"}}]}'),
    event(b'{"object": "", "choices": [{"index": 0, "delta": {"content": "x"}}]}'),
    chunk(refusal="I can't."),
    chunk(audio={"id": "a"}),
    chunk(content=["x"]),
    chunk(content=1),
    chunk(role="tool"),
    chunk(thoughts="x"),
    chunk(tool_calls=[{"id": "x"}]),
    chunk(tool_calls=[{"index": 0, "id": "call_9"}]),
    chunk(tool_calls=[{"index": 7, "id": "call_9", "function": {"arguments": "{}"}}]),
    chunk(tool_calls={"index": 0}),
    chunk(function_call="f"),
    chunk(tool_calls=[{"index": 0, "signature": "x"}]) * 2,
]


@pytest.mark.parametrize("strange", STRANGE)
def test_what_no_replay_would_say_is_no_answer(strange: bytes) -> None:
    events = CHAT.replay(completion(CALLING), usage=True)
    for at in (1, len(events) - 1):
        told = b"".join([*events[:at], strange, *events[at:]])
        assert gathered(CHAT, told).answer() is None


def test_what_providers_repeat_or_leave_out_is_read() -> None:
    """Names on every chunk, comments between, and times of their own per chunk."""
    base = {"id": "c", "object": "chat.completion.chunk", "model": "m", "provider": "p"}

    def told(created: int, delta: Any, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta} | more
        return event(encode(base | {"created": created, "choices": [choice]}))

    def call(arguments: str) -> Any:
        function = {"name": "f", "arguments": arguments}
        return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}

    stream = [
        b": keep-alive\n\n",
        event(b'{"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": []}'),
        told(1, {"role": "assistant", "content": ""}),
        told(2, call('{"a":')),
        told(3, call("1}"), finish_reason=None),
        told(4, None, finish_reason="tool_calls"),
        event(b"[DONE]"),
    ]
    answer = gathered(CHAT, b"".join(stream)).answer()
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    assert answer == {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "provider": "p",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "tool_calls": calls},
                "finish_reason": "tool_calls",
            }
        ],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["response.failed", "response.incomplete", "error"])
def test_a_response_given_up_is_no_answer(kind: str) -> None:
    events = RESPONSES.replay(RESPONSE, usage=True)
    failed = event(encode({"type": kind, "sequence_number": 1, "response": RESPONSE, "message": "x"}), kind)
    gathering = gathered(RESPONSES, b"".join([*events[:-1], failed, events[-1]]))
    assert gathering.ended
    assert gathering.answer() is None


@pytest.mark.parametrize(
    "strange",
    [
        event(b"{}"),
        event(b"["),
        event(b'{"type": 1}'),
        event(b'{"type": "response.web_search_call.completed"}'),
        event(b'{"type": "response.refusal.delta", "delta": "I"}', "response.refusal.delta"),
        event(b'{"type": "response.in_progress"}', "response.created"),
        event(b'{"type": "response.in_progress", "error": {"message": "x"}}'),
        event(b'{"error": {"message": "x"}}'),
        event(b"", "error"),
    ],
)
def test_what_no_replay_of_a_response_would_say_is_no_answer(strange: bytes) -> None:
    events = RESPONSES.replay(RESPONSE, usage=True)
    assert gathered(RESPONSES, b"".join([events[0], strange, *events[1:]])).answer() is None
    assert gathered(RESPONSES, b"".join([*events, strange])).answer() == RESPONSE  # after the end


def test_items_left_out_at_the_end_were_told_before() -> None:
    events = RESPONSES.replay(RESPONSE, usage=True)
    last = {"type": "response.completed", "response": RESPONSE | {"output": None}, "sequence_number": 99}
    stream = b"".join([*events[:-1], event(encode(last), "response.completed")])
    assert gathered(RESPONSES, stream).answer() == RESPONSE
    with sdk(stream).responses.stream(**SAID) as helper:
        assert helper.get_final_response().output_text == responded_without_stream(RESPONSE).output_text


REASONS: list[Any] = [None, "length", "content_filter", "error", "", []]
NO_USAGES: list[Any] = [None, [], {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": True}]
NOT_WHOLE = [
    (CHAT, {}),
    (CHAT, {"error": {"message": "x"}}),
    (CHAT, COMPLETION | {"object": "text_completion"}),
    (CHAT, COMPLETION | {"choices": []}),
    (CHAT, COMPLETION | {"choices": None}),
    (CHAT, COMPLETION | {"choices": ["x"]}),
    (CHAT, COMPLETION | {"error": {"message": "x"}}),
    (CHAT, completion(message())),
    (CHAT, completion(message(content=""))),
    (CHAT, completion(message(content=["x"]))),
    (CHAT, completion(message(content="x", role="user"))),
    (CHAT, completion(message(content="x", refusal="No."))),
    (CHAT, completion(message(content="x", audio={"id": "a"}))),
    (CHAT, completion(message(content="x", thoughts="y"))),
    (CHAT, completion(message(content="x", annotations={}))),
    (CHAT, completion(message(content="x"), message())),
    (CHAT, completion(message(content="x") | {"index": 1})),
    (CHAT, completion(message(content="x") | {"logprobs": [1]})),
    (CHAT, completion(message(tool_calls=[CALL | {"id": None}]))),
    (CHAT, completion(message(tool_calls=[CALL | {"type": "browser"}]))),
    (CHAT, completion(message(tool_calls=[CALL | {"type": []}]))),
    (CHAT, completion(message(tool_calls=[CALL | {"custom": OWN["custom"]}]))),
    (CHAT, completion(message(tool_calls=[CALL | {"function": {"name": "f"}}]))),
    (CHAT, completion(message(tool_calls=["x"]))),
    (CHAT, completion(message(function_call={"name": "f"}))),
    *((CHAT, completion(message(content="x") | {"finish_reason": reason})) for reason in REASONS),
    (RESPONSES, {}),
    (RESPONSES, RESPONSE | {"id": None}),
    (RESPONSES, RESPONSE | {"object": "x"}),
    *(
        (RESPONSES, RESPONSE | {"status": one})
        for one in ("failed", "incomplete", "in_progress", "queued", None)
    ),
    (RESPONSES, RESPONSE | {"error": {"code": "server_error", "message": "x"}}),
    (RESPONSES, RESPONSE | {"incomplete_details": {"reason": "max_output_tokens"}}),
    (RESPONSES, RESPONSE | {"output": None}),
    (RESPONSES, response()),
    (RESPONSES, response(ITEMS[0])),
    (RESPONSES, response("x")),  # type: ignore[arg-type] # no provider's, but JSON
    (RESPONSES, response(ITEMS[1], {"id": "ws_1", "type": "web_search_call", "status": "completed"})),
    (RESPONSES, response(ITEMS[1] | {"content": [PART | {"text": ""}]})),
    (RESPONSES, response(ITEMS[1] | {"content": [{"type": "refusal", "refusal": "No."}]})),
    (RESPONSES, response(ITEMS[1] | {"content": [PART, {"type": "refusal", "refusal": "No."}]})),
    (RESPONSES, response(ITEMS[1] | {"status": "incomplete"})),
    (RESPONSES, response(ITEMS[1] | {"status": []})),
    (RESPONSES, response(ITEMS[1] | {"role": "user"})),
    (RESPONSES, response(ITEMS[1] | {"id": None})),
    (RESPONSES, response(ITEMS[1] | {"content": None})),
    (RESPONSES, response(ITEMS[1] | {"content": [PART | {"annotations": {}}]})),
    (RESPONSES, response(ITEMS[1] | {"type": []})),
    (RESPONSES, response(ITEMS[2] | {"arguments": None})),
    (RESPONSES, response(ITEMS[3] | {"call_id": None})),
    (RESPONSES, response(ITEMS[0] | {"summary": None}, ITEMS[1])),
]


@pytest.mark.parametrize(("dialect", "answer"), NOT_WHOLE)
def test_what_is_not_whole(dialect: Dialect, answer: dict[str, Any]) -> None:
    assert not dialect.is_whole(answer)


def test_what_was_spent() -> None:
    assert CHAT.spent(COMPLETION) == RESPONSES.spent(RESPONSE) == Spent(100, 20, 64, 8)
    assert CHAT.spent(COMPLETION | {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}) == Spent(3, 0)
    for usage in NO_USAGES:
        assert CHAT.spent(COMPLETION | {"usage": usage}) is None
    odd = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}}
    assert CHAT.spent(COMPLETION | {"usage": odd}) == Spent(3, 1)


def test_which_answers_call_tools() -> None:
    calling = {name for name, one in COMPLETIONS.items() if acts(msgspec.json.encode(one))}
    assert calling == {"calls", "text and calls", "several", "odds of a call", "legacy"}
    assert {name for name, one in RESPONSES_TOLD.items() if acts(msgspec.json.encode(one))} == {"all", "call"}


def test_an_answer_repeats_what_its_own_request_said() -> None:
    told = RESPONSES.addressed(RESPONSE, SAID | {"metadata": None})
    assert (told["metadata"], told["user"]) == ({}, None)
    told = RESPONSES.addressed(
        RESPONSE, SAID | {"metadata": {"a": "b"}, "user": "me", "safety_identifier": "x"}
    )
    assert told == RESPONSE | {"metadata": {"a": "b"}, "user": "me"}
    assert RESPONSE["user"] == "u-1"
    assert CHAT.addressed(COMPLETION, ASKED | {"metadata": {}}) == COMPLETION


TEXT = st.text(max_size=40) | st.text('\u2028\u2029\u0085\r\n\0\x1c🦀é"\\', max_size=600)
WORD = st.text(min_size=1, max_size=8)
CALLS = st.builds(
    lambda name, given, own: (
        {"type": "custom", "custom": {"name": name, "input": given}}
        if own
        else {"type": "function", "function": {"name": name, "arguments": given}}
    ),
    WORD,
    TEXT,
    st.booleans(),
)


def made_message(content: str | None, calls: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    told = {"role": "assistant", "content": content, **more}
    if calls or not content:
        told["tool_calls"] = [{"id": f"call_{at}"} | one for at, one in enumerate(calls or [CALL])]
    return told


MESSAGES = st.builds(
    made_message,
    st.none() | TEXT,
    st.lists(CALLS, max_size=3),
    st.fixed_dictionaries({}, optional={"refusal": st.none(), "annotations": st.just([]), "reasoning": TEXT}),
)
CHOICES = st.fixed_dictionaries(
    {"message": MESSAGES, "finish_reason": st.sampled_from(["stop", "tool_calls"])},
    optional={"logprobs": st.none() | st.just(ODDS)},
)
OUTPUTS = st.lists(
    st.one_of(
        st.builds(lambda text: ITEMS[1] | {"content": [PART | {"text": text}]}, TEXT),
        st.builds(lambda text: ITEMS[0] | {"summary": [{"type": "summary_text", "text": text}]}, TEXT),
        st.builds(lambda text: ITEMS[2] | {"arguments": text}, TEXT),
        st.builds(lambda text: ITEMS[3] | {"input": text}, TEXT),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(CHOICES, min_size=1, max_size=3), st.integers(1, 100))
def test_any_completion_comes_back(choices: list[dict[str, Any]], size: int) -> None:
    answer = completion(*choices)
    assert CHAT.is_whole(answer)
    stream = b"".join(CHAT.replay(answer, usage=True))
    assert gathered(CHAT, stream, size).answer() == answer
    streamed(answer)


@settings(max_examples=150, deadline=None)
@given(OUTPUTS, st.integers(1, 100))
def test_any_response_comes_back(output: list[dict[str, Any]], size: int) -> None:
    numbered = [one | {"id": f"id_{at}"} for at, one in enumerate(output)]
    numbered = [
        one | {"call_id": f"call_{at}"} if "call_id" in one else one for at, one in enumerate(numbered)
    ]
    answer = response(*numbered, ITEMS[1] | {"id": "id_last"})
    stream = b"".join(RESPONSES.replay(answer, usage=True))
    assert gathered(RESPONSES, stream, size).answer() == answer
    with sdk(stream).responses.stream(**SAID) as helper:
        final = helper.get_final_response()
    direct = responded_without_stream(answer).model_dump(exclude_unset=True)
    assert bare(final.model_dump(exclude_unset=True)) == bare(direct)


ABOUT = ["object", "type", "status", "usage", "error", "response", "output", "message", "finish_reason"]
NAMES = ["choices", "index", "delta", "content", "tool_calls", "function", "logprobs", *ABOUT]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.sampled_from(["chat.completion.chunk", "response.completed", "chat.completion", "response"]))
def test_nothing_that_comes_makes_it_fail(value: Any, kind: str) -> None:
    told = value | {"object": kind, "type": kind} if isinstance(value, dict) else value
    for dialect in (CHAT, RESPONSES):
        gathering = dialect.gathering()
        gathering.add(None, encode(told))
        gathering.add(None, b"[DONE]")
        gathering.answer()
        if isinstance(told, dict):
            dialect.is_whole(told | {"status": "completed", "id": "x"})
            dialect.spent(told)


def test_the_sdk_says_an_error_in_a_stream() -> None:
    """The oracle is awake: what we take for an error is one to the SDK."""
    with pytest.raises(APIError):
        list(sdk(STRANGE[0]).chat.completions.create(**ASKED, stream=True))
