"""An Anthropic message as the events of a stream, and back."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from service.cache.dialects.dialect import Body
from service.cache.dialects.events import event
from service.cache.dialects.fields import pieces

_BEGUN: Body = {"content": [], "stop_reason": None, "stop_sequence": None}
_TOTALS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)
"""What a message_delta counts again, from the beginning."""
_ENDS = frozenset({"stop_reason", "stop_sequence", "stop_details", "container"})
_LATE = ("context_management", "input_transformations")  # of betas; a message_delta tells them
_DELTAS = {
    ("text", "text_delta"): "text",
    ("text", "citations_delta"): "citation",
    ("thinking", "thinking_delta"): "thinking",
    ("thinking", "signature_delta"): "signature",
    ("tool_use", "input_json_delta"): "partial_json",
}
"""By a block's type and a delta's: what is added."""
_WHOLE = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class _LostError(Exception):
    """What came can't be read, or no replay would say it again."""


class Pieces:
    """Events on their way to the message."""

    def __init__(self, is_whole: Callable[[Body], bool]) -> None:
        self._is_whole = is_whole
        self._message: Body | None = None
        self._block: _Block | None = None
        self._ended = self._lost = False

    @property
    def ended(self) -> bool:
        """Whether `message_stop` came."""
        return self._ended

    def add(self, event: str | None, data: bytes) -> None:
        """One server-sent event."""
        if event == "ping" or (event is None and not data):
            return
        try:
            _check(not self._ended)
            self._take(event, _decode(data))
        except (_LostError, msgspec.MsgspecError, UnicodeError, RecursionError):
            self._lost = True
        self._ended = self._ended or event == "message_stop"

    def answer(self) -> Body | None:
        """The message, if it is whole."""
        if self._lost or not self._ended or self._message is None:
            return None
        return self._message if self._is_whole(self._message) else None

    def _take(self, name: str | None, told: Any) -> None:
        if not isinstance(told, dict) or name is None or told.get("type") != name:
            raise _LostError
        if self._message is None:
            self._message = _begun(name, told)
        elif name == "content_block_start":
            _check(self._block is None and self._is_next(told) and self._message["stop_reason"] is None)
            self._block = _Block(told)
        elif self._block is not None:
            _check(self._is_next(told))
            self._inside(self._block, name, told)
        elif name == "message_delta":
            _end(self._message, told)
        else:
            _check(name == "message_stop" and told.keys() == {"type"})

    def _inside(self, block: "_Block", name: str, told: Body) -> None:
        if name == "content_block_delta":
            block.add(told)
            return
        _check(name == "content_block_stop" and told.keys() == {"type", "index"})
        assert self._message is not None  # noqa: S101 - a block has begun
        self._message["content"].append(block.whole())
        self._block = None

    def _is_next(self, told: Body) -> bool:
        """Whether it is about the block that is to come, or that has begun."""
        at = told.get("index")
        return self._message is not None and type(at) is int and at == len(self._message["content"])


class _Block:
    """A content block: its type at once, its texts bit by bit."""

    def __init__(self, told: Body) -> None:
        block = told.get("content_block")
        _check(told.keys() == {"type", "index", "content_block"} and isinstance(block, dict))
        self._block: Body = dict(block or {})
        self._kind = self._block.get("type")
        _check(isinstance(self._kind, str) and self._kind in _WHOLE)
        self._added: dict[str, list[Any]] = {}

    def add(self, told: Body) -> None:
        delta = told.get("delta")
        if told.keys() != {"type", "index", "delta"} or not isinstance(delta, dict):
            raise _LostError
        name = _DELTAS.get((str(self._kind), str(delta.get("type"))))
        if name is None or delta.keys() - {"estimated_tokens"} != {"type", name}:
            raise _LostError
        _check(isinstance(delta[name], dict if name == "citation" else str))
        self._added.setdefault(name, []).append(delta[name])

    def whole(self) -> Body:
        for name, bits in self._added.items():
            if name == "citation":
                self._block["citations"] = [*_listed(self._block.get("citations")), *bits]
            elif name == "partial_json":
                self._block["input"] = _input(self._block.get("input"), "".join(bits))
            else:
                first = self._block.get(name)
                _check(isinstance(first, str))
                self._block[name] = f"{first}{''.join(bits)}"
        return self._block


def _check(holds: bool) -> None:  # noqa: FBT001 - it says it
    if not holds:
        raise _LostError


def _begun(name: str, told: Body) -> Body:
    message = told.get("message")
    if name != "message_start" or told.keys() != {"type", "message"} or not isinstance(message, dict):
        raise _LostError
    _check(message.get("content") == [] and message.get("stop_reason") is None)
    _check(isinstance(message.get("usage"), dict))
    return {"stop_reason": None} | message | {"content": [], "usage": dict(message["usage"])}


def _end(message: Body, told: Body) -> None:
    """Take how the message ends and what it cost so far; there may be several."""
    delta, usage = told.get("delta"), told.get("usage")
    if told.keys() - {"type", *_LATE} != {"delta", "usage"}:
        raise _LostError
    if not isinstance(delta, dict) or not isinstance(usage, dict) or delta.keys() - _ENDS:
        raise _LostError
    message |= delta | {name: told[name] for name in _LATE if told.get(name) is not None}
    message["usage"] |= {name: one for name, one in usage.items() if one is not None}


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list | None):
        raise _LostError
    return value or []


def _input(first: Any, added: str) -> Any:
    """A call's input: all of it comes bit by bit, or nothing."""
    if not added:
        return first
    _check(first == {})
    return _decode(added)


def events(answer: Body) -> list[bytes]:
    """A whole message as a stream."""
    return [event(_encode(one), one["type"]) for one in _events(answer)]


def _events(answer: Body) -> Iterator[Body]:
    usage = answer["usage"]
    first = answer | _BEGUN | {"usage": usage | {"output_tokens": min(1, usage["output_tokens"])}}
    yield {"type": "message_start", "message": first}
    for at, block in enumerate(answer["content"]):
        begun, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": at, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    ends = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in answer}
    totals = {name: usage[name] for name in _TOTALS if usage.get(name) is not None}
    late = {name: answer[name] for name in _LATE if answer.get(name) is not None}
    yield {"type": "message_delta", "delta": ends, "usage": totals} | late
    yield {"type": "message_stop"}


def _taken_apart(block: Body) -> tuple[Body, list[Body]]:
    """How a block begins, and what is added to it."""
    kind = block["type"]
    if kind == "text":
        cited = block.get("citations") or []
        begun = block | {"text": ""} | ({"citations": []} if cited else {})
        quotes: list[Body] = [{"type": "citations_delta", "citation": one} for one in cited]
        return begun, [*_bits("text", block["text"]), *quotes]
    if kind == "thinking":
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return block | {"thinking": "", "signature": ""}, [*_bits("thinking", block["thinking"]), signed]
    if kind == "tool_use":
        told = _encode(block["input"]).decode() if block["input"] else ""
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": told}]
    return block, []


def _bits(name: str, text: str) -> list[Body]:
    return [{"type": f"{name}_delta", name: one} for one in pieces(text)]
