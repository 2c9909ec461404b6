"""The helpers against the providers' rules and the SDKs' types, on transcripts that are made up."""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import ConfigDict, TypeAdapter, ValidationError

from semcached.prompts import Registry, anthropic, explain, marked, openai, price, savings, unmarked
from semcached.prompts.prefix import Api, Prefix
from semcached.prompts.savings import tokens_of
from tests.client.transcripts import Json, Transcript, counted, transcripts
from tests.provider.rules import PromptCache, Rejected

CHECKS: dict[Api, TypeAdapter[Any]] = {
    # In a list, for the configuration to reach the TypedDicts.
    "messages": TypeAdapter(
        list[MessageCreateParamsNonStreaming], config=ConfigDict(extra="forbid", strict=True)
    ),
    "chat": TypeAdapter(
        list[CompletionCreateParamsNonStreaming], config=ConfigDict(extra="forbid", strict=True)
    ),
    "responses": TypeAdapter(
        list[ResponseCreateParamsNonStreaming], config=ConfigDict(extra="forbid", strict=True)
    ),
}
SLOW = settings(max_examples=25, deadline=None)


def check_types(api: Api, request: Json) -> None:
    exhaust(CHECKS[api].validate_python([request]))


def exhaust(value: Any) -> None:
    """Pydantic looks into an Iterable when it is read."""
    if not isinstance(value, str | int | float | None):
        for one in value.values() if isinstance(value, dict) else value:
            exhaust(one)


def helped(api: Api, request: Json, **options: Any) -> Json:
    if api == "messages":
        return anthropic(request, count=counted, **options)
    return openai(request, api=api, count=counted, **options)


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def cost(transcript: Transcript, mark: Callable[[Json], Json]) -> float:
    """In dollars for its input, at the provider's rules."""
    clock = Clock()
    provider = PromptCache(clock)
    paid = 0.0
    for request, turn in zip(transcript.requests(), transcript.turns, strict=True):
        clock.now += turn.pause_s
        paid += savings(provider.usage(transcript.api, mark(request), 0), transcript.model).paid_usd
    return paid


@SLOW
@given(transcript=transcripts(), continues=st.booleans(), long=st.booleans())
def test_types_and_rules_hold(transcript: Transcript, *, continues: bool, long: bool) -> None:
    provider = PromptCache(Clock())
    for request in transcript.requests():
        longer = {"messages": "1h", "responses": "12h"}.get(transcript.api) if long else None
        options = {"ttl": longer} if longer else {}
        sent = helped(transcript.api, request, continues=continues, **options)
        check_types(transcript.api, sent)
        provider.usage(transcript.api, sent, 1)


@SLOW
@given(transcript=transcripts(), continues=st.booleans())
def test_twice_is_once_and_the_input_stays(transcript: Transcript, *, continues: bool) -> None:
    request = transcript.requests()[-1]
    before = copy.deepcopy(request)
    once = helped(transcript.api, request, continues=continues)
    assert request == before
    assert helped(transcript.api, once, continues=continues) == once
    assert marked(request, transcript.api) == marked(marked(request, transcript.api), transcript.api)
    assert request == before


@SLOW
@given(transcripts())
def test_costs_at_most_one_write_more(transcript: Transcript) -> None:
    """All that is written and never read is the last turn's end."""
    last = transcript.requests()[-1]
    tokens = tokens_of(PromptCache(Clock()).usage(transcript.api, last, 0))
    model = price(transcript.model)
    premium = (
        (tokens.uncached + tokens.written)
        * ((model.write_5m or model.write_30m or 1) - 1)
        * model.input
        / 1e6
    )
    bare = cost(transcript, lambda request: request)
    assert cost(transcript, lambda request: helped(transcript.api, request)) <= bare + premium + 1e-9
    assert (
        cost(transcript, lambda request: cast("Json", marked(request, transcript.api)))
        <= bare + premium + 1e-9
    )


@SLOW
@given(transcripts("messages"))
def test_anthropic_reads_all_of_the_turn_before(transcript: Transcript) -> None:
    provider = PromptCache(Clock())
    before = 0
    for request in transcript.requests():
        sent = anthropic(request, count=counted)
        usage = provider.usage("messages", sent, 0)
        prefix = Prefix(request, "messages", count=counted)
        assert usage["cache_read_input_tokens"] == before
        before = prefix.sizes[-1] if prefix.sizes[-1] >= prefix.minimum else before
        assert before <= usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]


@SLOW
@given(transcripts(), st.sampled_from(["helped", "marked", "bare", "one"]))
def test_explains_what_a_second_send_reads(transcript: Transcript, how: str) -> None:
    request = transcript.requests()[-1]
    api = transcript.api
    if how == "marked":
        request = cast("Json", marked(request, api))
    elif how != "bare":
        request = helped(api, request, continues=how == "helped")
    provider = PromptCache(Clock())
    provider.usage(api, request, 0)
    said = explain(request, api=api, count=counted)
    assert said.cached_tokens == tokens_of(provider.usage(api, request, 0)).read
    parts = sum(part.tokens for part in said.parts if part.cached)
    assert said.cached_tokens <= parts < said.cached_tokens + 128
    assert all(part.reason for part in said.parts if not part.cached)
    assert str(said).startswith(transcript.model)


@SLOW
@given(transcripts(), st.lists(st.integers(0, 4000), min_size=7, max_size=7))
def test_registry_knows_what_the_provider_reads(transcript: Transcript, pauses: list[int]) -> None:
    clock = Clock()
    provider, registry = PromptCache(clock), Registry(clock=clock, count=counted)
    for request, pause in zip(transcript.requests(), pauses, strict=False):
        clock.now += pause
        sent = helped(transcript.api, request)
        warm = registry.warm(sent, api=transcript.api)
        sending = registry.sent(sent, api=transcript.api)
        assert registry.warm(sent, api=transcript.api) == warm
        read = tokens_of(provider.usage(transcript.api, sent, 0)).read
        tokens = 0 if warm is None else warm.tokens
        if Prefix(sent, transcript.api).has_breakpoints:
            assert tokens == read
        else:  # the provider also reads a part of a block
            assert tokens <= read
        assert warm is None or warm.until > clock.now
        sending.begun()


@SLOW
@given(transcripts("messages"))
def test_marks_that_were_sent_along_are_replaced(transcript: Transcript) -> None:
    requests = transcript.requests()
    earlier = anthropic(requests[0], count=counted)
    grown = {**requests[-1], "messages": [*earlier["messages"], *requests[-1]["messages"][1:]]}
    fresh = anthropic(requests[-1], count=counted)
    again = anthropic(
        {**grown, "system": earlier["system"]} if "system" in earlier else grown, replace=True, count=counted
    )
    assert Prefix(again, "messages", count=counted).points == Prefix(fresh, "messages", count=counted).points


@SLOW
@given(transcripts("messages"))
def test_unmarked_takes_all_marks_away(transcript: Transcript) -> None:
    request = transcript.requests()[-1]
    bare = unmarked(anthropic(request, sort_tools=False, count=counted))
    assert Prefix(bare, "messages").digests == Prefix(request, "messages").digests
    assert not Prefix(bare, "messages").marks


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.just("\ud800" * 3000)
    | st.sampled_from(["user", "text", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "tools",
                    "system",
                    "messages",
                    "input",
                    "cache_control",
                    "name",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
ODD = st.dictionaries(
    st.sampled_from(
        [
            "model",
            "messages",
            "input",
            "tools",
            "system",
            "instructions",
            "cache_control",
            "prompt_cache_options",
        ]
    ),
    JSON,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(ODD, st.sampled_from(["messages", "chat", "responses"]))
def test_odd_requests_never_fail(request: Json, api: Api) -> None:
    before = copy.deepcopy(request)
    marked(request, api)
    marked({**request, "model": "gpt-6-sol"}, api)
    assert str(explain(request, api=api))
    Registry().sent(request, api=api).begun()
    assert request == before


@pytest.mark.parametrize("api", ["messages", "chat", "responses"])
@pytest.mark.parametrize(
    "content",
    [[{"type": {}}], [{"type": []}], "\ud800", [{"type": "text", "text": "\ud800" * 9000}], [{1: 2}]],
)
def test_marked_never_fails(api: Api, content: Any) -> None:
    said = [{"role": "user", "content": content}]
    fields = {"messages": said, "input": said, "system": content, "instructions": content, "tools": content}
    for model in ("claude-sonnet-4-5", "gpt-6-sol", "gpt-4o"):
        marked({"model": model, **fields}, api)


def test_marked_leaves_alone_what_is_nested_too_deep() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [{"content": deep}]
    request = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": deep}]}
    assert marked(request, "chat") is request
    assert marked(request, "messages") is request


@pytest.mark.parametrize(
    ("api", "extra"),
    [
        ("messages", {"cache_control": {"type": "ephemeral"}}),
        ("chat", {"prompt_cache_key": "mine"}),
        ("responses", {"prompt_cache_options": {"mode": "explicit"}}),
        ("chat", {"prompt_cache_retention": "24h"}),
    ],
)
def test_marked_leaves_a_callers_own_marks(api: Api, extra: Json) -> None:
    request = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": "word " * 9000}], **extra}
    assert marked(request, api) is request


def test_the_types_refuse_a_mark_in_a_wrong_place() -> None:
    mark = {"mode": "explicit"}
    tool = {"type": "function", "function": {"name": "a"}, "prompt_cache_breakpoint": mark}
    with pytest.raises(ValidationError, match="Extra inputs"):
        check_types("chat", {"model": "gpt-6-sol", "messages": [], "tools": [tool]})


def test_rules_refuse_a_fifth_breakpoint() -> None:
    control = {"type": "ephemeral"}
    blocks = [{"type": "text", "text": str(number), "cache_control": control} for number in range(4)]
    request = {"model": "claude-opus-5", "system": blocks, "cache_control": control, "messages": []}
    with pytest.raises(Rejected, match="maximum of 4"):
        PromptCache(Clock()).usage("messages", request, 0)
    assert "refused" in str(explain(request))
