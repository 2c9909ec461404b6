"""Whether the cached answer would have done: it is compared with the fresh one. docs/learning.md has figures.

What is served later depends on it, and a wrong "same" serves wrong answers. So doubt is "not the same"; where
there is nothing to doubt about, as without a fresh answer, nobody can say.
"""

import re
import unicodedata
from typing import Literal, NamedTuple

import msgspec

from service.cache.admission import failure_of, is_cut_short, text_of
from service.cache.arguments import exact
from service.cache.canonical import LONGEST_TEXT
from service.cache.guards import verdicts
from service.cache.ports import Embedder, Judge
from service.cache.wording import telling
from service.cache.wording.words import wording
from service.errors import EmbedderError, JudgeError
from service.model import Comparison, Policy
from service.telemetry import JUDGE_FAILURES

CUT = 0.95
"""Least cosine of two answers in nearly the same words: see bench/comparing.py; chosen for MiniLM."""

_FENCED = re.compile(r"```(?:json)?\s*([\[{].*[\]}])\s*```", re.DOTALL)


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

    async def same(self, answers: Answers, how: Comparison) -> bool | None:
        """Whether both say the same; None: nobody can say."""
        cached, fresh = _said(answers.cached), _said(answers.fresh)
        if cached.failed or fresh.failed:  # a fresh one that failed says nothing of the other
            return None if fresh.failed else False
        if (cached.kind, cached.plain) == (fresh.kind, fresh.plain):
            return True
        if "calls" in {cached.kind, fresh.kind}:  # their ids are others each time
            return None
        if how is Comparison.JUDGE:
            return await self._judged(answers.question, cached.shown, fresh.shown)
        return await self._similar(cached, fresh) if how is Comparison.SIMILAR else False

    async def _similar(self, cached: _Said, fresh: _Said) -> bool | None:
        if not (self._readable(cached) and self._readable(fresh)):
            return None
        if not nearly_equal(cached.shown, fresh.shown):
            return False
        try:
            left, right = await self._embedder.embed([cached.shown, fresh.shown])
        except EmbedderError:
            return None
        return bool(left @ right >= CUT)

    def _readable(self, said: _Said) -> bool:
        if said.kind != "prose" or len(said.shown) > LONGEST_TEXT or self._embedder.unfit(said.shown):
            return False
        return telling.readable(wording(said.shown))

    async def _judged(self, question: str, one: str, other: str) -> bool | None:
        if self._judge is None:
            JUDGE_FAILURES.labels("none").inc()
            return None
        try:
            return await self._judge.same(question, one, other)
        except JudgeError:
            return None


def nearly_equal(one: str, other: str) -> bool:
    """Whether two texts are nearly the same words, and nothing in them speaks against the same meaning."""
    alike = telling.agree(wording(one), wording(other))
    return alike and all(verdicts(one, other, Policy(), every=False).values())


def _said(raw: bytes) -> _Said:
    value = msgspec.json.decode(raw)
    text = text_of(value)
    if text is None:
        plain = exact(raw).decode()
        failed = is_cut_short(value, None) or failure_of(value, "") is not None
        return _Said("calls" if _calls(value) else "value", plain, plain, failed)
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


def _calls(value: object) -> bool:
    """Whether it is a provider's answer; one of text alone isn't asked."""
    if not isinstance(value, dict):
        return False
    return "choices" in value or value.get("object") == "response" or value.get("type") == "message"
