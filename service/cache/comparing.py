"""Whether the cached answer would have done: it is compared with the fresh one. docs/learning.md has figures.

What is served later depends on it, and a wrong "same" serves wrong answers. So doubt is "not the same", also
where nobody can tell; only without a fresh answer, or without the judge that is wanted, nothing is said.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec

from service.cache.admission import failure_of, is_cut_short, listed, text_of, thinks
from service.cache.arguments import exact, formed, lossless
from service.cache.canonical import LONGEST_TEXT
from service.cache.guards import verdicts
from service.cache.ports import Embedder, Judge
from service.cache.wording import telling
from service.cache.wording.words import wording
from service.errors import EmbedderError, JudgeAwayError, JudgeError
from service.model import Comparison, Policy
from service.telemetry import JUDGE_FAILURES

CUT = 0.95
"""Least cosine of two answers in nearly the same words: see bench/comparing.py; chosen for MiniLM."""

_FENCED = re.compile(r"```(?:json)?\s*([\[{].*[\]}])\s*```", re.DOTALL)


class Verdict(StrEnum):
    """What came out; the words are the metric's."""

    SAME = "same"
    DIFFERENT = "different"
    UNTOLD = "untold"  # nobody can tell: counts as different
    UNKNOWN = "unsure"  # nothing can be said, whatever the answers are

    @property
    def correct(self) -> bool | None:
        """Whether the cached answer would have done; None: it teaches nothing."""
        return None if self is Verdict.UNKNOWN else self is Verdict.SAME


class Answers(NamedTuple):
    """What is compared: JSON, byte for byte as it was stored."""

    question: str  # the one that was asked, in words that need no history
    cached: bytes
    fresh: bytes


class _Said(NamedTuple):
    kind: Literal["prose", "json", "value", "calls"]  # JSON in a text, any other JSON, calls of tools
    plain: str  # as it is compared
    shown: str  # as a judge reads it
    failed: bool  # an error, a refusal, or nothing at all


class Comparing:
    """Compares answers."""

    def __init__(self, embedder: Embedder, judge: Judge | None) -> None:
        self._embedder = embedder
        self._judge = judge

    async def same(self, answers: Answers, how: Comparison) -> Verdict:
        """Whether both say the same.

        Whether something is said must not depend on what: who hears of equal answers only believes that all
        are. So without a judge, where one is wanted, nothing is said of equal ones either.
        """
        cached, fresh = _said(answers.cached), _said(answers.fresh)
        if fresh.failed or (how is Comparison.JUDGE and not self._is_there()):
            return Verdict.UNKNOWN
        if cached.failed:
            return Verdict.DIFFERENT
        if (cached.kind, cached.plain) == (fresh.kind, fresh.plain):
            return Verdict.SAME
        if "calls" in {cached.kind, fresh.kind}:
            return Verdict.UNTOLD
        if how is Comparison.JUDGE:
            return await self._judged(answers.question, cached.shown, fresh.shown)
        return await self._similar(cached, fresh) if how is Comparison.SIMILAR else Verdict.DIFFERENT

    async def _similar(self, cached: _Said, fresh: _Said) -> Verdict:
        if not (self._readable(cached) and self._readable(fresh)):
            return Verdict.UNTOLD
        if not nearly_equal(cached.shown, fresh.shown):
            return Verdict.DIFFERENT
        try:
            left, right = await self._embedder.embed([cached.shown, fresh.shown])
        except EmbedderError:
            return Verdict.UNTOLD
        return Verdict.SAME if left @ right >= CUT else Verdict.DIFFERENT

    def _readable(self, said: _Said) -> bool:
        if said.kind != "prose" or len(said.shown) > LONGEST_TEXT or self._embedder.unfit(said.shown):
            return False
        return telling.readable(wording(said.shown))

    def _is_there(self) -> bool:
        if self._judge is None:
            JUDGE_FAILURES.labels("none").inc()
        return self._judge is not None and not self._judge.away

    async def _judged(self, question: str, one: str, other: str) -> Verdict:
        assert self._judge is not None  # noqa: S101 - for mypy: it was looked at before
        try:
            said = await self._judge.same(question, one, other)
        except JudgeAwayError:
            return Verdict.UNKNOWN
        except JudgeError:
            return Verdict.UNTOLD
        return {True: Verdict.SAME, False: Verdict.DIFFERENT, None: Verdict.UNTOLD}[said]


def nearly_equal(one: str, other: str) -> bool:
    """Whether two texts are nearly the same words, and nothing in them speaks against the same meaning."""
    alike = telling.agree(wording(one), wording(other))
    return alike and all(verdicts(one, other, Policy(), every=False).values())


def _said(raw: bytes) -> _Said:
    value = msgspec.json.decode(raw)
    text = text_of(value)
    if text is None:
        failed = is_cut_short(value, None) or failure_of(value, "") is not None
        calls = _calls(raw)
        plain = (exact(raw) if calls is None else calls).decode()
        return _Said("value" if calls is None else "calls", plain, plain, failed)
    inner = _json(text.strip())
    failed = is_cut_short(value, None) or failure_of(value, text) is not None or not text.strip()
    return _Said("json" if inner else "prose", inner or _plain(text), text, failed)


def _json(text: str) -> str | None:
    """The value of a text that is an object or a list, perhaps fenced."""
    fenced = _FENCED.fullmatch(text)
    inner = fenced.group(1) if fenced else text
    try:
        return exact(inner).decode() if inner[:1] in {"{", "["} else None
    except ValueError:
        return None


def _plain(text: str) -> str:
    """Without what no reader sees. Indentation stays: in code it means something."""
    lines = unicodedata.normalize("NFC", text).strip().splitlines()
    return "\n".join(line[: -len(line.lstrip())] + " ".join(line.split()) for line in lines if line.strip())


def _calls(raw: bytes) -> bytes | None:
    """What a provider's answer says, without ids and times, which are others each time; None: it is none."""
    value = lossless(raw)
    if not isinstance(value, dict):
        return None
    said: list[dict[str, Any]] = []
    if choices := listed(value.get("choices")):
        messages = listed([choice.get("message") for choice in choices])
        if len(messages) < len(choices):
            return None
        said = [one | {"tool_calls": [*map(_lasting, listed(one.get("tool_calls")))]} for one in messages]
    elif value.get("object") == "response":
        said = [_lasting(one) for one in listed(value.get("output")) if one.get("type") != "reasoning"]
    elif value.get("type") == "message" and "role" in value:
        said = [_lasting(one) for one in listed(value.get("content")) if not thinks(one)]
    return formed(said) if said else None


def _lasting(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in {"id", "call_id", "status"}}
