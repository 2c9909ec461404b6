"""A chat completion as the chunks of a stream, and back."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from service.cache.dialects.dialect import Body
from service.cache.dialects.events import event
from service.cache.dialects.fields import pieces

TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
"""Of a message: what a stream tells bit by bit. The last two are other providers'."""

_DONE = b"[DONE]"
_ABOUT = frozenset(
    {"id", "created", "model", "system_fingerprint", "service_tier"}
)  # the first chunk's count
_BITS = {"function": "arguments", "custom": "input"}

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class _LostError(Exception):
    """What came can't be read, or no replay would say it again."""


class Chunks:
    """Chunks on their way to the completion."""

    def __init__(self, is_whole: Callable[[Body], bool]) -> None:
        self._is_whole = is_whole
        self._about: Body = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Body | None = None
        self._ended = self._lost = False

    @property
    def ended(self) -> bool:
        """Whether `[DONE]` came."""
        return self._ended

    def add(self, event: str | None, data: bytes) -> None:
        """One server-sent event."""
        if self._ended or self._lost or not data:
            return
        if data.startswith(_DONE):
            self._ended = True
            return
        try:
            self._take(event, _decode(data))
        except (_LostError, msgspec.DecodeError, UnicodeError, RecursionError):
            self._lost = True

    def answer(self) -> Body | None:
        """The completion, if every choice is whole."""
        if self._lost or not self._ended:
            return None
        choices = [self._choices[at].whole(at) for at in sorted(self._choices)]
        answer = self._about | {"object": "chat.completion", "choices": choices}
        if self._usage is not None:
            answer["usage"] = self._usage
        return answer if self._is_whole(answer) else None

    def _take(self, event: str | None, chunk: Any) -> None:
        if event is not None or not isinstance(chunk, dict) or chunk.get("object") != "chat.completion.chunk":
            raise _LostError
        for name, one in chunk.items():
            if name == "usage":
                self._usage = self._usage if one is None else one
            elif name not in {"choices", "object", "obfuscation"}:
                _settle(self._about, name, one)
        for choice in _listed(chunk.get("choices")):
            at = choice.get("index")
            if type(at) is not int:
                raise _LostError
            self._choices.setdefault(at, _Choice()).take(choice)


class _Choice:
    def __init__(self) -> None:
        self._rest: Body = {"finish_reason": None}
        self._message: Body = {"role": "assistant"}
        self._texts = _Texts()
        self._calls: dict[int, _Call] = {}
        self._call: _Call | None = None

    def take(self, choice: Body) -> None:
        for name, one in choice.items():
            if name == "delta":
                self._take_delta({} if one is None else one)
            elif name == "logprobs":
                self._rest[name] = _joined(self._rest.get(name), one)
            elif name != "index":
                _settle(self._rest, name, one)

    def whole(self, at: int) -> Body:
        message = self._message | {"content": None} | self._texts.whole()
        if self._calls:
            message["tool_calls"] = [self._calls[index].whole() for index in sorted(self._calls)]
        if self._call is not None:
            message["function_call"] = self._call.whole()["function"]
        return {"index": at, "message": message} | self._rest

    def _take_delta(self, delta: Any) -> None:
        if not isinstance(delta, dict):
            raise _LostError
        for name, one in delta.items():
            if name in TEXTS:
                self._texts.add(name, one)
            elif not one and name != "role":  # a null or an empty list
                self._message.setdefault(name, one)
            elif name == "tool_calls":
                self._take_calls(one)
            elif name == "function_call":
                self._call = self._call or _Call()
                self._call.take({"function": one})
            elif name in {"role", "annotations"}:
                _settle(self._message, name, one)
            else:
                raise _LostError

    def _take_calls(self, calls: Any) -> None:
        for call in _listed(calls):
            at = call.get("index")
            if type(at) is not int:
                raise _LostError
            self._calls.setdefault(at, _Call()).take(call)


class _Call:
    """A tool's call: its name at once, its arguments bit by bit."""

    def __init__(self) -> None:
        self._rest: Body = {}
        self._called: dict[str, Body] = {}
        self._bits = _Texts()

    def take(self, call: Body) -> None:
        for name, one in call.items():
            if name in _BITS and one is not None:
                self._take_called(name, one)
            elif name in {"id", "type"}:
                _settle(self._rest, name, one)
            elif name != "index" and one is not None:
                if name in self._rest:  # it comes in pieces that we can't join
                    raise _LostError
                self._rest[name] = one

    def whole(self) -> Body:
        bits = self._bits.whole()
        called = {name: one | {_BITS[name]: bits.get(name)} for name, one in self._called.items()}
        return self._rest | called

    def _take_called(self, kind: str, called: Any) -> None:
        if not isinstance(called, dict):
            raise _LostError
        known = self._called.setdefault(kind, {})
        for name, one in called.items():
            if name == _BITS[kind]:
                self._bits.add(kind, one)
            else:
                _settle(known, name, one)


class _Texts:
    """Texts that come bit by bit."""

    def __init__(self) -> None:
        self._bits: dict[str, list[str] | None] = {}

    def add(self, name: str, bit: Any) -> None:
        known = self._bits.setdefault(name, None)
        if bit is None:
            return
        if not isinstance(bit, str):
            raise _LostError
        if known is None:
            self._bits[name] = [bit]
        else:
            known.append(bit)

    def whole(self) -> Body:
        return {name: None if bits is None else "".join(bits) for name, bits in self._bits.items()}


def _settle(known: Body, name: str, one: Any) -> None:
    """Take what was said once, or over and over; not what changes on the way."""
    before = known.get(name)
    if name not in known or (one and not before):
        known[name] = one
    elif one and one != before and name not in _ABOUT:
        raise _LostError


def _joined(known: Any, more: Any) -> Any:
    """Log probabilities."""
    if more is None:
        return known
    if not isinstance(more, dict):
        raise _LostError
    before = {} if known is None else known
    return before | {name: _added(before.get(name), one) for name, one in more.items()}


def _added(known: Any, more: Any) -> Any:
    if more is None:
        return known
    if not isinstance(more, list):
        raise _LostError
    if known is None:
        return more
    known += more  # in place: there is one list per token
    return known


def _listed(value: Any) -> list[Body]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _LostError
    return value


def chunks(answer: Body, *, usage: bool) -> list[bytes]:
    """A whole completion as a stream; `usage` as in `Dialect.replay`."""
    # These stand on a chunk of their own: SDKs take the last chunk's usage.
    alone = [name for name in ("moderation", "usage") if answer.get(name) is not None]
    head = {name: one for name, one in answer.items() if name not in {"choices", "usage", *alone}}
    head["object"] = "chat.completion.chunk"
    if usage:
        head["usage"] = None
    told = [{"choices": [one]} for choice in answer["choices"] for one in _told(choice)]
    told += [{"choices": [], name: answer[name]} for name in alone if usage or name != "usage"]
    return [*(event(_encode(head | one)) for one in told), event(_DONE)]


def _told(choice: Body) -> Iterator[Body]:
    """A choice, chunk by chunk. No log probabilities with the first: the SDK would count them twice."""
    message, odds = choice["message"], choice.get("logprobs")
    base = {"index": choice["index"], "finish_reason": None}
    if "logprobs" in choice:
        base["logprobs"] = None
    yield base | {"delta": _opening(message)}
    content = message.get("content") or ""
    if odds is not None:
        yield base | {"delta": {"content": content} if content else {}, "logprobs": odds}
    for delta in _deltas(message | {"content": ""} if odds is not None else message):
        yield base | {"delta": delta}
    rest = {name: one for name, one in choice.items() if name not in {"message", "logprobs"}}
    yield base | rest | {"delta": {}}


def _opening(message: Body) -> Body:
    """Its role, and all that is null or empty."""
    empty = {name: one for name, one in message.items() if not one}
    if message.get("annotations"):
        empty["annotations"] = message["annotations"]
    if isinstance(message.get("content"), str):
        empty["content"] = ""
    return {"role": message["role"]} | empty


def _deltas(message: Body) -> Iterator[Body]:
    """What it says, thoughts first."""
    for name in reversed(TEXTS):
        for bit in pieces(message.get(name) or ""):
            yield {name: bit}
    for at, call in enumerate(message.get("tool_calls") or []):
        for part in _call_bits(call):
            yield {"tool_calls": [{"index": at} | part]}
    if message.get("function_call"):
        for part in _call_bits({"function": message["function_call"]}):
            yield {"function_call": part["function"]}


def _call_bits(call: Body) -> Iterator[Body]:
    kind = call.get("type", "function")
    name = _BITS[kind]
    yield call | {kind: call[kind] | {name: ""}}
    for bit in pieces(call[kind][name]):
        yield {kind: {name: bit}}
