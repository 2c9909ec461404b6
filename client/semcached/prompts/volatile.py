"""Finds what changes from call to call: times and ids, that have no place in a prefix."""

import re

_KINDS = {
    "a UUID": re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
    "a date with a time": re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"),
    "a time of day": re.compile(r"\b\d{1,2}:\d{2}:\d{2}\b"),
    "the seconds since 1970": re.compile(r"\b1[6-9]\d{8}(?:\.\d+|\d{3})?\b"),
    "a date": re.compile(r"(?i)\b(?:today|date|now)\b[^\n]{0,20}?\b\d{4}-\d{2}-\d{2}\b"),
}

_MOMENT = "|".join(f"(?:{pattern.pattern})" for kind, pattern in _KINDS.items() if kind != "a date")
_SAYS_SO = (
    r"""(?:[Nn]ow|[Cc]urrent|[Tt]oday|[Tt]ime|[Dd]ate|[Aa]s of|[Rr]equest|[Ss]ession)\b[^\n"'{}]{0,40}?"""
)
_FIELD = r"""(?:now|current_\w+|request_id|session_id)["'>]{0,3}\s{0,3}[:=]?\s{0,3}["']?"""
_CHANGES = re.compile(
    rf"(?:\b{_SAYS_SO}|\b{_FIELD}|\A[\s\[(<*#-]{{0,9}})(?:{_MOMENT})"
    rf"|(?:{_MOMENT})[\w:.+ )\]>-]{{0,20}}\s{{0,9}}\Z"
)


def find_volatile(text: str) -> str | None:
    """The first time or id in a text, as `a UUID (0f8e…)`; None: nothing looks like one."""
    for kind, pattern in _KINDS.items():
        found = pattern.search(text)
        if found:
            return f"{kind} ({found[0]})"
    return None


def changes_with_calls(text: str) -> bool:
    """Whether a text says what time it is now, or an id of this call.

    Behind a word that says so, or at one of the text's ends; not in records and logs, that are full of times
    and stay as they are. A date alone stays for a day.
    """
    return _CHANGES.search(text) is not None
