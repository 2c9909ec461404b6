"""Regular expressions that tenants write: RE2, whose time is linear in the text whatever the pattern says."""

from functools import lru_cache
from typing import Any, Protocol

import re2

from service.errors import InvalidInputError

LONGEST = 512  # characters
MEMORY = 2**20  # bytes that a compiled pattern may take, its caches included


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: str) -> Any:
        """Something true where it occurs in the text, wherever; else None."""


def compiled(field: str, pattern: str) -> Pattern:
    """A pattern, ready to search; compiling it again is free.

    Raises:
        InvalidInputError: names `field`.
    """
    if len(pattern) > LONGEST:
        raise InvalidInputError(field, f"must have {LONGEST} characters at most")
    try:
        return _compiled(pattern)
    except (re2.error, UnicodeEncodeError) as error:
        words = error.args[0] if error.args else "unknown"
        said = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        raise InvalidInputError(field, f"is no RE2 pattern: {said}") from None


def quoted(text: str) -> str:
    """A pattern that finds just that text."""
    found: str = re2.escape(text)
    return found


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Pattern:
    options = re2.Options()
    options.max_mem = MEMORY
    options.log_errors = False  # to stderr, by itself
    made: Pattern = re2.compile(pattern, options=options)
    return made
