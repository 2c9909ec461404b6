"""Finds what changes from call to call: times and ids, that have no place in a prefix."""

import re

_KINDS = {
    "a UUID": re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
    "a date with a time": re.compile(r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}"),
    "a time of day": re.compile(r"\b\d{1,2}:\d{2}:\d{2}\b"),
    "the seconds since 1970": re.compile(r"\b1[6-9]\d{8}(?:\.\d+|\d{3})?\b"),
    "a date": re.compile(r"(?i)\b(?:today|date|now)\b[^\n]{0,20}?\b\d{4}-\d{2}-\d{2}\b"),
}


def find_volatile(text: str) -> str | None:
    """The first time or id in a text, as `a UUID (0f8e…)`; None: nothing looks like one."""
    for kind, pattern in _KINDS.items():
        found = pattern.search(text)
        if found:
            return f"{kind} ({found[0]})"
    return None
