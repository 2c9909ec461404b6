"""Which rewritings are believed. docs/conversations.md has the figures.

A rewriting that is wrong makes two conversations ask the same, and equal words are served unread: where one
says no more than the message did, where it refers back, declines, or tells what nobody said, it is refused.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from service.cache import english
from service.cache.standalone import points_first, stands_alone
from service.model import Message
from service.providers.gate import ProviderError

MOST_CHARS = 1000
"""Of a rewriting, above the message's own."""

STEM = 4
"""Characters. Words that begin with the same ones are taken for forms of one word."""

_WORD = re.compile(r"[\u2e80-\U0003ffff]|[^\W\u2e80-\U0003ffff]+")  # Chinese and the like have no spaces
_DECLINES = re.compile(
    r"(?:(?:i am|i'm) (?:so |very )?(?:sorry|afraid|unable|not able)|sorry|unfortunately|apologies|as an ai"
    r"|i (?:can ?not|can't|could not|couldn't|do not (?:have|see)|don't (?:have|see)|need more)"
    r"|(?:please|(?:can|could|would) you(?: please)?) (?:provide|share|clarify|specify)"
    r"|what (?:would|do) you (?:like|want|mean|need)|how (?:can|may) i (?:help|assist)"
    r"|which \w+ (?:do|did|would) you (?:mean|like|want|need|prefer)"
    r"|there is no|no (?:conversation|context|previous)|here(?: is|'s)"
    r"|(?:the )?(?:rewritten|standalone|last user) (?:message|question))\b"
    r"|(?:sure|certainly|of course)[,.!:]",
    re.IGNORECASE,
)


def believed(said: str | None, messages: Sequence[Message], asked: str) -> str:
    """The one line that was asked for.

    Raises:
        ProviderError: `text`, and why it is not believed.
    """
    line = (said or "").strip()
    if len(line) > 1 and line[0] == line[-1] == '"':
        line = line[1:-1].strip()
    if not line or len(line) > MOST_CHARS + len(asked) or len(line.splitlines()) > 1:
        raise ProviderError("text", "the rewriter answered no single line")
    if why := _objection(line, messages, asked):
        raise ProviderError("text", f"the rewriter {why}")
    return line


def _objection(line: str, messages: Sequence[Message], asked: str) -> str | None:
    told, before = _told(line), _told(asked)
    if told <= before and not stands_alone(line):
        return "left the message as it was"
    if points_first(line):
        return "still refers to what was said before"
    if _declines(line) and not _declines(asked):
        return "declined"
    known = {
        _stem(word)
        for text in _texts([[one.content, one.tool_calls] for one in messages])
        for word in _words(text)
    }
    return "told what nobody said" if 2 * len(told - known) > len(told) else None


def _declines(text: str) -> bool:
    return _DECLINES.match(text.strip().replace("\u2019", "'")) is not None


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def _texts(value: Any) -> Iterator[str]:
    """What is said in contents and tool calls, whatever their form."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
    elif value is not None:
        yield str(value)


def _stem(word: str) -> str:
    return word if word[0].isdigit() else word[:STEM]


def _told(text: str) -> set[str]:
    """The stems of the words that say something of what it is about."""
    empty = english.EMPTY | english.REPLIES
    words = (word for word in _words(text) if len(word) > 1 or word.isdigit() or not word.isascii())
    return {_stem(word) for word in words if word not in empty}
