"""A tenant's own patterns: RE2, whose time grows with pattern and text only, whatever they are."""

from functools import lru_cache

import re2

from service.errors import InvalidInputError

LONGEST = 512
"""Characters of a pattern."""

LONGEST_TEXT = 4096
"""Characters that are looked at: the start of a longer text."""

LARGEST = 1500
"""Instructions of a compiled pattern. The worst took 20 ns for each of them and each character: 0.12 s."""

MAX_MEM = 2**17
"""Bytes for a pattern and what it remembers while it runs."""


class Pattern:
    """A compiled pattern."""

    __slots__ = ("_found", "size")

    def __init__(self, text: str) -> None:
        options = re2.Options()
        options.max_mem, options.log_errors, options.never_capture = MAX_MEM, False, True
        compiled = re2.compile(text, options)
        self._found = compiled.search
        self.size: int = compiled.programsize

    def matches(self, text: str, most: int = LONGEST_TEXT) -> bool:
        """Whether it is found anywhere in the text, or in the start of a longer one."""
        return self._found(text[:most]) is not None


def compiled(field: str, pattern: str) -> Pattern:
    """A pattern, compiled the first time.

    Raises:
        InvalidInputError: names `field`.
    """
    if not 1 <= len(pattern) <= LONGEST:
        raise InvalidInputError(field, f"must have 1 to {LONGEST} characters")
    try:
        found = _compiled(pattern)
    except re2.error as error:
        why = error.args[0]
        told = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise InvalidInputError(field, f"is no RE2 pattern: {told}") from None
    if found.size > LARGEST:
        raise InvalidInputError(field, "is too large: use smaller repetitions and classes")
    return found


def quoted(text: str) -> str:
    """A pattern that finds just that text."""
    found: str = re2.escape(text)
    return found


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Pattern:
    return Pattern(pattern)
