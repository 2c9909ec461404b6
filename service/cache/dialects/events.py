"""Server-sent events (WHATWG HTML, 9.2), cut out of a stream byte for byte."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_END = 4
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event."""

    raw: bytes  # as it came, with the blank line
    name: str | None
    data: bytes


class Events:
    """Takes a stream apart, however it was cut into pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._first = True

    @property
    def rest(self) -> bytes:
        """What came behind the last whole event."""
        return bytes(self._rest)

    def __len__(self) -> int:
        """How many bytes that are."""
        return len(self._rest)

    def add(self, piece: bytes) -> Iterator[Event]:
        """The events that are whole by now."""
        self._rest += piece
        while (end := _END.search(self._rest, self._searched)) is not None:
            raw = bytes(self._rest[: end.end()])
            del self._rest[: end.end()]
            self._searched = 0
            yield _event(raw, raw.removeprefix(_BOM) if self._first else raw)
            self._first = False
        self._searched = max(0, len(self._rest) - _LONGEST_END)


def _event(raw: bytes, read: bytes) -> Event:
    name, data = None, []
    for line in _LINE.split(read):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"data":
            data.append(value)
    return Event(raw, name, b"\n".join(data))


def event(data: bytes, name: str | None = None) -> bytes:
    """One event with its blank line; `data` has no line ends."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"
