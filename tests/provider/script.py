"""What the provider is told to say, and how it is to fail."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Body = dict[str, Any]
Api = Literal["chat", "responses", "messages", "count", "models", "control", "none"]
Gate = Callable[[int], Awaitable[None]]
"""Awaited before each piece of a body (an event, where it is a stream), with its number."""


@dataclass(frozen=True)
class Asked:
    """A request, as it came."""

    number: int  # from 0
    api: Api
    method: str
    path: str  # without the query
    headers: dict[str, str]  # names in lower case
    raw: bytes
    body: Any  # decoded; None: no JSON
    credential: str
    account: str

    @property
    def anthropic(self) -> bool:
        return self.path.startswith("/v1/messages") or "anthropic-version" in self.headers

    @property
    def last(self) -> str:
        """The text of the last user message."""
        return last_said(self.body)


def last_said(body: Body) -> str:
    told: Any = body.get("messages") or body.get("input") or ""
    if isinstance(told, str):
        return told
    texts = [_text(one.get("content")) for one in told if one.get("role") == "user"]
    return texts[-1] if texts else ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks: list[Body] = content or []
    return "\n".join(one["text"] for one in blocks if isinstance(one.get("text"), str))


@dataclass(frozen=True)
class Call:
    """A tool that the model calls."""

    name: str
    arguments: Body


@dataclass(frozen=True)
class Error:
    """An error in the provider's own shape."""

    status: int
    message: str = "The stub was told to fail."
    retry_after: str | None = None
    retry_after_ms: str | None = None
    should_retry: bool | None = None


class Hold:
    """A gate that is shut from the piece `at` on, until `release`, which any thread may call."""

    def __init__(self, at: int = 1) -> None:
        self.at = at
        self.waiting = 0
        self._open = threading.Event()

    def release(self) -> None:
        self._open.set()

    async def __call__(self, number: int) -> None:
        if number < self.at or self._open.is_set():
            return
        self.waiting += 1
        try:
            while not self._open.is_set():
                await asyncio.sleep(0.002)
        finally:
            self.waiting -= 1


@dataclass(frozen=True)
class Fault:
    """How an answer fails on its way."""

    cut: int | None = None  # bytes of the body that go out before the connection ends; -1: not even a head
    reset: bool = False  # the cut is a RST, no FIN
    hang: Literal["head", "body"] | None = None  # before which nothing more comes
    gate: Gate | None = None
    drip: int | None = None  # bytes at a time
    drip_s: float = 0.001
    framing: Literal["length", "chunked", "close"] | None = None  # None: as providers do
    gzip: bool = False  # where the client takes it


@dataclass(frozen=True)
class Script:
    """One answer. `end` is the provider's own word, as length, max_output_tokens, pause_turn."""

    text: str | None = None  # None: made from the last user message
    calls: tuple[Call, ...] = ()
    thinking: str | None = None
    refusal: str | None = None
    end: str | None = None
    more: tuple[Body, ...] = ()  # content blocks (messages) or output items (responses) as they are
    extra: Body = field(default_factory=dict)  # over the answer's own fields
    usage: Body = field(default_factory=dict)  # over what the rules say
    error: Error | None = None
    break_at: int | None = None  # an error event in the place of this one, and nothing behind it
    headers: dict[str, str] = field(default_factory=dict)
    fault: Fault = field(default_factory=Fault)


Mode = Callable[[Asked], Script]


def always(script: Script) -> Mode:
    return lambda _: script


def in_turn(*scripts: Script) -> Mode:
    """One after the other; the last one stays."""
    left = list(scripts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
