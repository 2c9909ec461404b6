"""Server-sent events (WHATWG HTML, 9.2), cut out of a stream byte for byte."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event."""

    raw: bytes  # as it came, with the blank line
    name: str | None
    data: bytes


class Events:
    """Takes a stream apart, however it was cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """What came behind the last whole event."""
        return self._rest

    def add(self, piece: bytes) -> Iterator[Event]:
        """The events that are whole by now."""
        self._rest += piece
        while (end := _END.search(self._rest)) is not None:
            raw, self._rest = self._rest[: end.end()], self._rest[end.end() :]
            yield _event(raw)


def _event(raw: bytes) -> Event:
    name, data = None, []
    for line in _LINE.split(raw):
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
