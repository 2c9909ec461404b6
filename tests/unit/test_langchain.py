"""LangChain's serialised prompts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from service.cache.langchain import read

CALL = {"name": "f", "args": {"x": 1}, "id": "1"}


def said(prompt: str) -> list[tuple[str, Any]]:
    found = read(prompt)
    assert found is not None
    return [(one.role, one.content) for one in found.messages]


def is_whole(prompt: str) -> bool:
    """Whether it is kept as one block, which only the exact tier takes."""
    return said(prompt) == [("user", [{"type": "serialised", "text": prompt}])]


def test_roles_and_contents() -> None:
    messages = [SystemMessage("be kind"), HumanMessage("hi"), AIMessage("hello"), HumanMessage("who?")]
    prompt = dumps(messages)
    assert said(prompt) == [("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "who?")]
    found = read(prompt)
    assert found is not None
    assert found.beside == []


def test_whatever_else_a_message_has_stands_beside() -> None:
    one = [
        HumanMessage("q", name="Ann"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage("r", tool_call_id="1"),
    ]
    found = read(dumps([*one, HumanMessage("and?")]))
    assert found is not None
    assert [at for at, _ in found.beside] == [0, 1, 2]
    assert found.beside[0][1] == {"name": "Ann"}


CHANGES: list[list[BaseMessage]] = [
    [HumanMessage("q")],
    [SystemMessage("s"), HumanMessage("q")],
    [HumanMessage("p"), HumanMessage("q")],
    [HumanMessage("q", name="n")],
    [HumanMessage("q", additional_kwargs={"n": 0})],
    [HumanMessage("q", additional_kwargs={"n": 0.5})],
    [HumanMessage("q", id="7")],
    [HumanMessage("q"), AIMessage("a")],
    [AIMessage("a"), HumanMessage("q")],
    [AIMessage("a", tool_calls=[CALL]), HumanMessage("q")],
    [AIMessage("a", tool_calls=[CALL | {"args": {"x": 2}}]), HumanMessage("q")],
    [ToolMessage("a", tool_call_id="1"), HumanMessage("q")],
    [ToolMessage("a", tool_call_id="1", status="error"), HumanMessage("q")],
    [HumanMessage([{"type": "text", "text": "q"}, {"type": "image_url", "image_url": "u"}])],
]


def test_all_that_may_change_an_answer_is_read() -> None:
    read_as = [repr(read(dumps(messages))) for messages in CHANGES]
    assert len(set(read_as)) == len(CHANGES)


@pytest.mark.parametrize(
    "prompt",
    ["hello", "", "[]", "{}", "[1]", '["lc"]', '[{"lc": 2}]', '{"lc":', "[" * 100_000 + '"lc"'],
)
def test_a_text_is_a_text(prompt: str) -> None:
    assert read(prompt) is None


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "decoded",
    [
        {"lc": 1, "type": "constructor"},
        [{"lc": 1}],
        [{"lc": 1, "type": "not_implemented", "id": ["langchain", "x"], "repr": "x"}],
        [{"lc": 1, "type": "constructor", "id": ["x", "HumanMessage"], "kwargs": {"content": "q"}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "Other"], "kwargs": {"content": "q"}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", 1], "kwargs": {"content": "q"}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": " "}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "AIMessage"], "kwargs": {"content": "a"}}],
        [
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "HumanMessage"],
                "kwargs": {"content": deep(99)},
            }
        ],
        [
            {"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": "q"}},
            1,
        ],
    ],
)
def test_what_is_of_no_known_form_is_taken_whole(decoded: Any) -> None:
    assert is_whole(json.dumps(decoded))


@pytest.mark.parametrize("spoilt", ['[{"lc":1}', '[{"lc": 1, "n": NaN}]', '[{"lc": 1, "n": "\\ud800"}]'])
def test_so_is_what_is_no_json(spoilt: str) -> None:
    assert is_whole(spoilt)


def test_so_are_messages_of_other_roles() -> None:
    assert is_whole(dumps([ChatMessage(content="q", role="poet")]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=5,
)
MESSAGE = st.fixed_dictionaries({"lc": st.just(1)}, optional={"type": JSON, "id": JSON, "kwargs": JSON})


@given(st.lists(MESSAGE, max_size=3))
def test_nothing_makes_it_fail(decoded: list[Any]) -> None:
    prompt = json.dumps(decoded)
    assert read(prompt) is None or is_whole(prompt)
