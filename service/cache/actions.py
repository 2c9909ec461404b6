"""Answers that ask for something to be done: an agent's next step, that fits its own question only."""

from typing import Any

import msgspec

_MARKS = (b'"tool_calls"', b'"function_call"', b'tool_use"', b'_call"')


def acts(response: bytes) -> bool:
    """Whether an answer, as a provider gives it, calls a tool."""
    if not any(mark in response for mark in _MARKS):  # nearly all; decoding takes longer
        return False
    answer = msgspec.json.decode(response)
    if not isinstance(answer, dict):
        return False
    messages = [one.get("message") for one in _dicts(answer.get("choices"))]
    called = any(
        isinstance(one, dict) and (one.get("tool_calls") or one.get("function_call")) for one in messages
    )
    parts = [*_dicts(answer.get("output")), *_dicts(answer.get("content"))]
    return called or any(_is_call(one.get("type")) for one in parts)


def _is_call(kind: object) -> bool:
    return isinstance(kind, str) and kind.endswith(("_call", "tool_use"))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
