"""`diff` under one change at a time, and what each takes along."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcached.prompts import anthropic, diff, openai
from tests.client.transcripts import Json, Transcript, transcripts


@settings(max_examples=80, deadline=None)
@given(transcripts(), st.data())
def test_names_the_segment_that_changed(transcript: Transcript, data: st.DataObject) -> None:
    one = transcript.requests()[-1]
    other = copy.deepcopy(one)
    field = "input" if transcript.api == "responses" else "messages"
    lists = [name for name in ("tools", "system", field) if other.get(name)]
    name = data.draw(st.sampled_from(lists))
    number = data.draw(st.integers(0, len(other[name]) - 1))
    part = touch(other[name][number])
    said = diff(one, other, api=transcript.api)
    leading = transcript.api != "messages" and name == field and number < len(transcript.system)
    assert said.broke
    assert said.what == ("system" if leading else "messages" if name == field else name)
    assert (said.index, said.part) == (number, part)
    assert str(said).startswith(said.name)


def touch(item: Json) -> int | None:
    """Change one word of it; the part that was changed."""
    if isinstance(item.get("content"), list):
        item["content"][-1]["changed"] = True
        return len(item["content"]) - 1
    item["changed"] = True
    if isinstance(item.get("content"), str):
        item["content"] += "!"
    return None


@settings(max_examples=30, deadline=None)
@given(transcripts(), st.data())
def test_growth_breaks_nothing_and_marks_dont_count(transcript: Transcript, data: st.DataObject) -> None:
    requests = transcript.requests()
    one = data.draw(st.sampled_from(requests))
    assert not diff(one, requests[-1], api=transcript.api).broke
    if transcript.api == "messages":
        other = anthropic(requests[-1], sort_tools=False)
    else:
        other = openai(requests[-1], api=transcript.api, sort_tools=False)
        other.pop("prompt_cache_key")
    assert not diff(one, other, api=transcript.api).broke


CLAUDE: Json = {
    "model": "claude-opus-5",
    "tools": [{"name": "a", "input_schema": {"type": "object"}}],
    "system": "be kind",
    "messages": [{"role": "user", "content": "hi"}],
}
GPT: Json = {"model": "gpt-6-sol", "messages": CLAUDE["messages"], "prompt_cache_key": "k"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("change", "what", "name", "kept"),
    [
        ({"model": "claude-opus-5-5"}, "model", "model", ()),
        ({"tools": []}, "tools", "tool 0: a", ()),
        ({"system": "be cruel"}, "system", "system block 0", ("tools",)),
        ({"system": []}, "system", "system block 0", ("tools",)),
        ({"tool_choice": {"type": "any"}}, "setting", "tool_choice", ("tools", "system")),
        ({"thinking": {"type": "adaptive"}}, "setting", "thinking", ("tools", "system")),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "setting", "images", ("tools", "system")),
        ({"messages": [{"role": "user", "content": "ho"}]}, "messages", "message 0", ("tools", "system")),
        ({"messages": []}, "messages", "message 0", ("tools", "system")),
        ({"max_tokens": 9, "temperature": 1, "stop_sequences": ["x"]}, "nothing", "", ()),
    ],
)
def test_anthropic(change: Json, what: str, name: str, kept: tuple[str, ...]) -> None:
    said = diff(CLAUDE, {**CLAUDE, **change})
    assert (said.what, said.name, said.kept) == (what, name, kept)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"prompt_cache_key": "other"}, "prompt_cache_key"),
        ({"response_format": {"type": "json_object"}}, "text format"),
        ({"reasoning_effort": "high"}, "reasoning effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
def test_openai(change: Json, name: str) -> None:
    said = diff(GPT, {**GPT, **change})
    assert (said.what, said.name, said.kept) == ("setting", name, ())
    assert not diff(GPT, {**GPT, "temperature": 0.5, "max_completion_tokens": 7}).broke


def test_says_from_where_on_a_text_differs() -> None:
    one: dict[str, Any] = {**CLAUDE, "system": "Today is 2026-11-20. Be kind."}
    said = str(diff(one, {**one, "system": "Today is 2026-11-21. Be kind."}))
    assert "at character 18" in said
    assert "still cached: tools" in said
