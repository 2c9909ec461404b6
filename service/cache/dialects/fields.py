"""What the dialects share: a request's values made alike, and the cache's fields made of them."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import msgspec

from service.cache.canonical import check_identifier, text
from service.cache.dialects.dialect import Body, Reading, Spent
from service.errors import InvalidInputError
from service.model import Message, QueryFields, Tier

DEEPEST = 100
"""Levels of nesting that are read: a body of thousands would end in a RecursionError somewhere."""

PIECE = 200
PIECES = 64

# Only these are looked into: in a JSON schema, or a call's input, a null or a mark is the caller's own.
_INSIDE = frozenset({"content", "output", "function", "source"})
_MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_TEXTS = frozenset({"text", "input_text", "output_text"})

_encode = msgspec.json.encode


def bare(value: Any) -> Any:
    """A message, or a list of them, without explicit nulls and without marks for the prompt cache."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = ((name, one) for name, one in value.items() if one is not None and name not in _MARKS)
    return {name: bare(one) if name in _INSIDE else one for name, one in kept}


def definitions(value: Any) -> Any:
    """Definitions without marks for the prompt cache; a null can be a setting (`strict`) and stays."""
    if not isinstance(value, list):
        return value
    return [_unmarked(one) for one in value]


def plain(content: Any, kind: str = "text") -> Any:
    """One text block of type `kind` is its text; all else is what it is."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        block = content[0]
        if block.keys() == {"type", "text"} and block["type"] == kind and isinstance(block["text"], str):
            return block["text"]
    return content


class Ids:
    """Ids that a provider mints anew for each answer, named by the order in which they first appear."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, given: Any) -> Any:
        """The same name for the same id; what is no text stays."""
        if not isinstance(given, str):
            return given
        return self._known.setdefault(given, f"id_{len(self._known)}")


def message(given: Any) -> Body:
    """Of `model.Message`: as it is where that can say it; else a message that holds it whole."""
    try:
        read = msgspec.convert(given, Message)
    except (msgspec.ValidationError, UnicodeError):
        role = given.get("role") if isinstance(given, dict) else None
        return whole(role if isinstance(role, str) and role in _ROLES else "tool", given)
    if isinstance(read.content, list) and any(one.get("type") == "item" for one in read.content):
        return whole(read.role, given)  # or it could be taken for one that we made
    taken: Body = given
    return taken


def whole(role: str, item: Any) -> Body:
    """A message of `role` that holds an item of any shape: part of the id, never plain text."""
    return {"role": role, "content": [{"type": "item", "item": item}]}


def only_text(messages: list[Body]) -> bool:
    """Whether nothing was said but text: with a call, or a picture, no similar question's answer fits."""
    return all(one["role"] != "tool" and "tool_calls" not in one and _is_text(one) for one in messages)


def lead(messages: list[Body]) -> int:
    """How many messages of the system or the developer stand before the conversation."""
    for at, one in enumerate(messages):
        if one["role"] not in {"system", "developer"}:
            return at
    return len(messages)


def query(
    endpoint: str,
    body: Body,
    messages: list[Body],
    *,
    system: str | None = None,
    before: Sequence[Any] = (),
    tools: Any = None,
) -> Body:
    """The fields of a `model.QueryFields`.

    Args:
        endpoint: the call's path.
        body: what counts of the request, without what `messages`, `system`, `before` and `tools` say. Stands
            whole under one name in `params`, so that no field of a client can take the place of one of ours.
        messages: each of `message` or `whole`.
        system: the system prompt.
        before: messages before the conversation that `system` can't say; part of the scope.
        tools: definitions.
    """
    rest = {name: one for name, one in body.items() if name not in {"model", "temperature"}}
    params: Body = {"endpoint": endpoint, "body": rest}
    if before:
        params["before"] = list(before)
    fields: Body = {"messages": messages, "params": params}
    said = {"system": system, "tools": tools, "model": body.get("model")}
    said["temperature"] = body.get("temperature")
    return fields | {name: one for name, one in said.items() if one is not None}


def reading(fields: Body, tiers: tuple[Tier, ...], *, streams: bool, usage_wanted: bool = True) -> Reading:
    """Of a request; bypassed where the cache would refuse it: the provider shall say what is wrong."""
    if not _readable(fields):
        return bypassed("unreadable", streams=streams, usage_wanted=usage_wanted)
    return Reading(streams=streams, usage_wanted=usage_wanted, fields=fields, tiers=tiers)


def bypassed(why: str, *, streams: bool, usage_wanted: bool = True) -> Reading:
    """Of a request that is neither looked up nor stored."""
    return Reading(streams=streams, usage_wanted=usage_wanted, bypass=why)


def preparing(body: Body) -> str | None:
    """Whether OpenAI is asked about its prompt cache, and not, or not only, for an answer."""
    options = body.get("prompt_cache_options")
    if not isinstance(options, dict):
        return None
    if options.get("prewarm"):
        return "prewarm"
    return None if options.get("comparison_response_id") is None else "diagnostics"


def forced(choice: Any) -> bool:
    """Whether a `tool_choice` makes the answer a call."""
    return choice == "required" or isinstance(choice, dict)


def pieces(text: str) -> list[str]:
    """A text as a stream tells it: of `PIECE` characters or more, at most `PIECES`."""
    size = max(PIECE, -(-len(text) // PIECES))
    return [text[at : at + size] for at in range(0, len(text), size)]


def spent(usage: Any, names: tuple[str, str]) -> Spent | None:
    """Of an OpenAI `usage`, whose counts have these names."""
    if not isinstance(usage, dict):
        return None
    given, made = (usage.get(name) for name in names)
    if not (_is_count(given) and _is_count(made)):
        return None
    details = usage.get(f"{names[0]}_details")
    known = details if isinstance(details, dict) else {}
    cached, written = known.get("cached_tokens"), known.get("cache_write_tokens")
    return Spent(given, made, cached if _is_count(cached) else 0, written if _is_count(written) else 0)


def shallow(value: Any, levels: int = DEEPEST) -> bool:
    """Whether it is nested so little that everything can take it. To be asked before anything else here."""
    if isinstance(value, dict):
        return levels > 0 and all(shallow(one, levels - 1) for one in value.values())
    if isinstance(value, list):
        return levels > 0 and all(shallow(one, levels - 1) for one in value)
    return True


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_one_of(value: Any, words: frozenset[str]) -> bool:
    """Whether it is one of some words; a client can put anything there, also what has no hash."""
    return isinstance(value, str) and value in words


def _unmarked(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    kept = {name: one for name, one in tool.items() if name not in _MARKS}
    return kept | {"function": _unmarked(kept["function"])} if "function" in kept else kept


def _is_text(message: Body) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(one, dict) and is_one_of(one.get("type"), _TEXTS) for one in content)
    return isinstance(content, str)


def _readable(fields: Body) -> bool:
    """Whether `canonical.query` takes it; a test holds it against that."""
    try:
        check_identifier("model", fields["model"])
        request = msgspec.convert(fields | {"agent_type": "any"}, QueryFields)
        _encode(fields)  # what is no UTF-8 fails here
    except (KeyError, AttributeError, InvalidInputError, msgspec.ValidationError, UnicodeError):
        return False
    return _asks(request.messages or [])


def _asks(messages: list[Message]) -> bool:
    """Whether the last message of the user has something in it."""
    asked = next((one.content for one in reversed(messages) if one.role == "user"), None)
    if isinstance(asked, list):
        blocks = plain(asked)
        return bool(text(blocks)) if isinstance(blocks, str) else bool(blocks)
    return asked is not None and bool(text(asked))
