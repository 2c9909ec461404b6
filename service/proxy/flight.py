"""One upstream call, and all who wait for it.

The call runs in a task of its own: whoever asks the same meanwhile reads along, and a client that leaves ends
nothing unless he was the last.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

from service.errors import UpstreamError
from service.model import Hit

log = logging.getLogger(__name__)

KEPT = 2 * 2**20
"""Bytes of an answer that are kept for who comes later; of a longer one, what the slowest has yet to read."""


ALL = sys.maxsize
"""What a reader has read who waits for the whole."""


class Head(NamedTuple):
    """What comes before an answer's body."""

    status: int
    headers: list[tuple[str, str]]


class Piece(NamedTuple):
    """Some of an answer's body."""

    raw: bytes
    unasked: bool = False  # the chunk with the usage that only we asked for


class Flight:
    """One call on its way."""

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.head: Head | None = None
        self.answer: bytes | None = None  # the whole answer as JSON, once it is there
        self.hit: Hit | None = None  # somebody else's answer, found while waiting
        self.shared = True  # whether others may still join
        self._pieces: list[Piece] = []
        self._dropped = self._size = 0
        self._readers: dict[object, int] = {}  # how many pieces each has read
        self._error: Exception | None = None
        self._leader: object | None = None  # the first reader, whose call it is
        self._cut: set[object] = set()  # readers that were too slow
        self._complete = False  # the whole body is here
        self._closed = False  # the whole body was told
        self._over = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Make the call."""
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._error = UpstreamError("the call was ended")  # as where the process ends
        try:
            await work
        except Exception as error:  # its readers raise it, as long as there are any
            self._error = error
            if self._closed:
                log.exception("unexpected error behind an answer")
        else:
            self._error = None
        finally:
            self._over, self.shared = True, False
            self._pulse()

    def enter(self) -> object:
        """Count as one who waits; who enters must leave."""
        reader = object()
        self._readers[reader] = 0
        self._leader = self._leader or reader
        return reader

    def leave(self, reader: object) -> None:
        """The last who leaves ends the call, unless its answer is here. Who left already may leave again."""
        self._readers.pop(reader, None)
        self._pulse()
        if not self._readers and self._task is not None and not (self._complete or self._closed):
            self.shared = False
            self._task.cancel()

    def begin(self, head: Head) -> None:
        """The head came."""
        self.head = head
        self._pulse()

    async def write(self, piece: Piece) -> None:
        """Some of the body came. Of a long one, waits for whose call it is; who joined must keep up."""
        self._pieces.append(piece)
        self._size += len(piece.raw)
        self._pulse()
        while self._size > KEPT:
            self.shared = False
            self._drop()
            if self._size > KEPT and not self._cut_off():
                await self._changed.wait()

    def _cut_off(self) -> bool:
        """The slowest reader, if he holds up the one whose call it is, or else the quickest."""
        places = {reader: at for reader, at in self._readers.items() if at != ALL}
        first = places.get(self._leader, max(places.values(), default=0))
        waiting = sum(len(piece.raw) for piece in self._pieces[first - self._dropped :])
        slowest = min(places, key=lambda reader: places[reader], default=None)
        if slowest is None or waiting > KEPT:
            return False
        self._cut.add(slowest)
        self._readers[slowest] = ALL
        return True

    def complete(self) -> None:
        """The whole answer is here, and is being kept: it is, also if nobody waits for it any more."""
        self._complete = True

    def close(self, answer: bytes | None = None) -> None:
        """The whole body was told: nobody waits for what the call does from now on, and nobody joins it.

        Args:
            answer: as JSON, where it is whole.
        """
        self.answer, self._closed, self.shared = answer, True, False
        self._pulse()

    async def started(self) -> Head | None:
        """The head; None: there is an answer without one.

        Raises:
            Exception: the call failed before.
        """
        while self.head is None and self.hit is None:
            if self._over or self._closed:
                self._check()
                break
            await self._changed.wait()
        return self.head

    async def landed(self, reader: object) -> None:
        """Wait for the answer as a whole, without reading along; or until it is too long to be one.

        Raises:
            Exception: the call failed.
        """
        self._readers[reader] = ALL
        try:
            while self._ends_later:
                await self._changed.wait()
        finally:
            self._readers[reader] = self._dropped
        self._check()

    @property
    def has_all(self) -> bool:
        """Whether who comes now can read from the beginning."""
        return not self._dropped

    @property
    def _ends_later(self) -> bool:
        return self.shared and not self._closed and not self._over

    async def pieces(self, reader: object) -> AsyncIterator[Piece]:
        """The body, from its beginning.

        Raises:
            Exception: the call failed on the way.
        """
        while True:
            if reader in self._cut:
                raise UpstreamError("a long answer was read too slowly along with others")
            at = self._readers[reader] - self._dropped
            if at < len(self._pieces):
                self._readers[reader] += 1
                if not self.shared:
                    self._pulse()
                yield self._pieces[at]
            elif self._closed or self._over:
                self._check()
                return
            else:
                await self._changed.wait()

    def _check(self) -> None:
        if self._over and self._error is not None and not self._closed:
            raise self._error

    def _drop(self) -> None:
        """What all have read."""
        read = min([*self._readers.values(), self._dropped + len(self._pieces)]) - self._dropped
        self._size -= sum(len(piece.raw) for piece in self._pieces[:read])
        del self._pieces[:read]
        self._dropped += read

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Flights:
    """The calls of this process."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def join(self, name: str) -> Flight | None:
        """The call of that name that others may read along, if there is one."""
        flight = self._flights.get(name)
        return flight if flight is not None and flight.shared else None

    def start(
        self, name: str, *, streams: bool, work: Callable[[Flight], Coroutine[Any, Any, None]]
    ) -> Flight:
        """Another one, under that name for as long as it lasts."""
        flight = self._flights[name] = Flight(streams=streams)

        async def run() -> None:
            try:
                await work(flight)
            finally:
                if self._flights.get(name) is flight:
                    del self._flights[name]

        flight.start(run())
        return flight
