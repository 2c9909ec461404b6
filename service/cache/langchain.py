"""Prompts as LangChain's caches send them: a list of messages, serialised by `langchain_core.load.dumps`.

Embedded whole they would all look alike, since most of the text is field names. So the last human message's
text is what is embedded and compared. Everything else (other messages, tool calls, names, metadata) must be
equal, or is the history that the policy's `history` is about.
"""

import re
from typing import Any, NamedTuple

import msgspec

from service.model import Message

MAX_DEPTH = 64

_BEGINNING = re.compile(r'\[?\{"lc": ?1\b')

ROLES = {"SystemMessage": "system", "HumanMessage": "user", "AIMessage": "assistant", "ToolMessage": "tool"}

_decode = msgspec.json.Decoder(Any).decode


class Read(NamedTuple):
    """A serialised prompt as the service sees one."""

    messages: list[Message]
    beside: list[Any]  # what the messages have besides what is said: place, class, fields


def read(prompt: str) -> Read | None:
    """The conversation; None: the prompt is a text. What can't be mapped is for the exact tier, whole."""
    if not prompt.startswith(("[", "{")) or '"lc"' not in prompt:
        return None
    try:
        decoded = _decode(prompt)
    except (msgspec.DecodeError, RecursionError):  # Python writes NaN, and halves of surrogates, too
        return Read([_opaque(prompt)], []) if _BEGINNING.match(prompt) else None
    if not any(_is_serialised(one) for one in (decoded if isinstance(decoded, list) else [decoded])):
        return None
    return _mapped(decoded) or Read([_opaque(prompt)], [])


def _is_serialised(one: Any) -> bool:
    return isinstance(one, dict) and one.get("lc") == 1


def _mapped(decoded: Any) -> Read | None:
    """None: a part is of no known form, there is no question, or it is nested too deeply."""
    if not isinstance(decoded, list) or _is_deep(decoded):
        return None
    messages, beside = [], []
    for at, one in enumerate(decoded):
        message = _message(one)
        if message is None:
            return None
        messages.append(message)
        said = {"content", "type"} if _is_named_by_class(one) else {"content"}
        rest = {k: v for k, v in one["kwargs"].items() if k not in said and not _says_nothing(v)}
        beside += [[at, rest]] if rest else []
    return Read(messages, beside) if _asks(messages) else None


def _message(one: Any) -> Message | None:
    if not _is_serialised(one) or one.keys() != {"lc", "type", "id", "kwargs"}:
        return None
    kind, kwargs = one["id"], one["kwargs"]
    if one["type"] != "constructor" or not isinstance(kind, list) or not isinstance(kwargs, dict):
        return None
    name = kind[-1] if kind and isinstance(kind[-1], str) else ""
    content = _content(kwargs.get("content"))
    if kind[:1] != ["langchain"] or name not in ROLES or content is None:
        return None
    return Message(role=ROLES[name], content=content)  # type: ignore[arg-type] # one of its literals


def _is_named_by_class(one: Any) -> bool:
    """Whether the field `type` says nothing that the class doesn't."""
    names = {"SystemMessage": "system", "HumanMessage": "human", "AIMessage": "ai", "ToolMessage": "tool"}
    return bool(one["kwargs"].get("type") == names[one["id"][-1]])


def _says_nothing(value: Any) -> bool:
    """Whether a field might as well be absent; 0 says something."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _content(value: Any) -> str | list[dict[str, Any]] | None:
    """Text, or blocks; a text among blocks is a block of text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    blocks = [{"type": "text", "text": one} if isinstance(one, str) else one for one in value]
    return blocks if all(isinstance(one, dict) for one in blocks) else None


def _asks(messages: list[Message]) -> bool:
    """Whether there is a last question, and something in it."""
    asked = next((one.content for one in reversed(messages) if one.role == "user"), None)
    return bool(asked.strip() if isinstance(asked, str) else asked)


def _opaque(prompt: str) -> Message:
    """A message that is no plain text."""
    return Message(role="user", content=[{"type": "serialised", "text": prompt}])


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
