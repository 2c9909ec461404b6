"""A response as the events of a stream, and back."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from service.cache.dialects.dialect import Body
from service.cache.dialects.events import event
from service.cache.dialects.fields import pieces

_FAILED = frozenset({"response.failed", "response.incomplete", "error"})
_KNOWN = frozenset(
    {
        "response.created", "response.queued", "response.in_progress", "response.completed",
        "response.output_item.added", "response.output_item.done",
        "response.content_part.added", "response.content_part.done",
        "response.output_text.delta", "response.output_text.done", "response.output_text.annotation.added",
        "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done",
        "response.reasoning_summary_part.added", "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.delta", "response.reasoning_summary_text.done",
        "response.reasoning_text.delta", "response.reasoning_text.done",
        "keepalive",
    }
)  # fmt: skip
_LATER = ("usage", "completed_at", "moderation", "tool_usage", "prompt_cache_diagnostics")  # told at the end

_encode = msgspec.json.encode


class Events:
    """Events on their way to the response, which the last one has whole."""

    def __init__(self, is_whole: Callable[[Body], bool]) -> None:
        self._is_whole = is_whole
        self._done: dict[int, Any] = {}
        self._response: Body | None = None
        self._ended = self._lost = False

    @property
    def ended(self) -> bool:
        """Whether the response was completed, or given up."""
        return self._ended

    def add(self, event: str | None, data: bytes) -> None:
        """One server-sent event; its data say what it is."""
        if self._ended or self._lost or (event is None and not data):
            return
        try:
            told = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            told = None
        if not isinstance(told, dict) or event not in {None, told.get("type")}:
            self._lost = True
        else:
            self._take(told)

    def answer(self) -> Body | None:
        """The response, if it is whole."""
        if self._lost or self._response is None:
            return None
        return self._response if self._is_whole(self._response) else None

    def _take(self, told: Body) -> None:
        kind = told["type"] if isinstance(told.get("type"), str) else ""
        self._ended = kind in _FAILED or kind == "response.completed"
        self._lost = kind not in _KNOWN or bool(told.get("error"))
        if kind == "response.output_item.done" and type(told.get("output_index")) is int:
            self._done[told["output_index"]] = told.get("item")
        if kind == "response.completed" and isinstance(told.get("response"), dict):
            response = told["response"]
            # SDKs allow it to be left out at the end, where each item was told before.
            output = [self._done[at] for at in sorted(self._done)]
            self._response = response | {"output": output} if response.get("output") is None else response


def events(answer: Body) -> list[bytes]:
    """A whole response as a stream."""
    begun = answer | {"status": "in_progress", "output": []} | {k: None for k in _LATER if k in answer}
    told: list[Body] = [
        {"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")
    ]
    for at, item in enumerate(answer["output"]):
        told += [one | {"output_index": at} for one in _item(item)]
    told.append({"type": "response.completed", "response": answer})
    return [event(_encode(one | {"sequence_number": at}), one["type"]) for at, one in enumerate(told)]


def _item(item: Body) -> Iterator[Body]:
    begun = item | ({"status": "in_progress"} if item.get("status") else {})
    begin, within = _KINDS[item["type"]]
    yield {"type": "response.output_item.added", "item": begun | begin(item)}
    for one in within(item):
        yield one | {"item_id": item["id"]}
    yield {"type": "response.output_item.done", "item": item}


def _called(event: str, name: str) -> Callable[[Body], Iterator[Body]]:
    """The events of a call, whose arguments stand under `name`."""

    def told(item: Body) -> Iterator[Body]:
        for bit in pieces(item[name]):
            yield {"type": f"response.{event}.delta", "delta": bit}
        yield {"type": f"response.{event}.done", "name": item["name"], name: item[name]}

    return told


def _parts(item: Body) -> Iterator[Body]:
    """The content of a message, or of reasoning."""
    for at, part in enumerate(item.get("content") or []):
        empty = part | {"text": ""} | {name: [] for name in ("annotations", "logprobs") if part.get(name)}
        told = _text(part) if part["type"] == "output_text" else _bits("reasoning_text", part["text"])
        yield {"type": "response.content_part.added", "part": empty, "content_index": at}
        for one in told:
            yield one | {"content_index": at}
        yield {"type": "response.content_part.done", "part": part, "content_index": at}


def _text(part: Body) -> Iterator[Body]:
    odds = part.get("logprobs") or []
    for bit in [part["text"]] if odds else pieces(part["text"]):
        yield {"type": "response.output_text.delta", "delta": bit, "logprobs": odds}
    for at, one in enumerate(part.get("annotations") or []):
        kind = "response.output_text.annotation.added"
        yield {"type": kind, "annotation": one, "annotation_index": at}
    yield {"type": "response.output_text.done", "text": part["text"], "logprobs": odds}


def _bits(name: str, text: str) -> Iterator[Body]:
    for bit in pieces(text):
        yield {"type": f"response.{name}.delta", "delta": bit}
    yield {"type": f"response.{name}.done", "text": text}


def _thoughts(item: Body) -> Iterator[Body]:
    for at, part in enumerate(item["summary"]):
        kind = "response.reasoning_summary_part"
        yield {"type": f"{kind}.added", "part": part | {"text": ""}, "summary_index": at}
        for one in _bits("reasoning_summary_text", part["text"]):
            yield one | {"summary_index": at}
        yield {"type": f"{kind}.done", "part": part, "summary_index": at}
    yield from _parts(item)


def _unthought(item: Body) -> Body:
    return {"summary": []} | ({"content": []} if item.get("content") else {})


_KINDS: dict[str, tuple[Callable[[Body], Body], Callable[[Body], Iterator[Body]]]] = {
    "message": (lambda _: {"content": []}, _parts),
    "function_call": (lambda _: {"arguments": ""}, _called("function_call_arguments", "arguments")),
    "custom_tool_call": (lambda _: {"input": ""}, _called("custom_tool_call_input", "input")),
    "reasoning": (_unthought, _thoughts),
}
"""Of an item's type: with what it begins, and what is told before it is done."""
