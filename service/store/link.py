"""One connection on which batches of calls follow each other; each ends with an ECHO of its own number."""

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, cast

import hiredis
from redis import exceptions
from redis._parsers import BaseParser

from service.store.connections import Taken, UnboundError

Outcome = list[Any] | Exception
"""A call's replies, or why there are none."""

Call = tuple["asyncio.Future[Outcome]", int, float]
"""Who waits, for how many replies, and until when by `perf_counter`."""

NONE_YET = object()
_OURS = secrets.token_hex(4).encode()
_NUMBERS = itertools.count()


class Batch:
    """Calls that are sent together."""

    __slots__ = ("calls", "count", "nonce", "packed", "sent", "size")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.packed: list[bytes] = []
        self.count = self.size = 0  # replies, bytes
        self.nonce = b""
        self.sent = 0.0

    def add(self, packed: bytes, call: Call) -> None:
        """One more."""
        self.calls.append(call)
        self.packed.append(packed)
        self.count += call[1]
        self.size += len(packed)

    def next(self) -> "Batch":
        """Its first call that somebody waits for, if there is one. It leaves, and so do those before it."""
        taken, at = Batch(), 0
        while at < len(self.calls) and not taken.calls:
            packed, call = self.packed[at], self.calls[at]
            self.count -= call[1]
            self.size -= len(packed)
            if not call[0].done():
                taken.add(packed, call)
            at += 1
        del self.packed[:at], self.calls[:at]
        return taken

    def sealed(self) -> bytes:
        """All of it, and the number at its end."""
        self.nonce = b"%b:%d" % (_OURS, next(_NUMBERS))
        whole = b"".join([*self.packed, b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(self.nonce), self.nonce)])
        self.packed.clear()
        return whole

    def answer(self, replies: list[Any]) -> None:
        """To each its own, but for who has gone."""
        at = 0
        for future, count, _ in self.calls:
            if not future.done():
                future.set_result(replies[at : at + count])
            at += count

    def fail(self, error: Exception) -> None:
        """The same to each."""
        for future, _, _ in self.calls:
            if not future.done():
                future.set_result(error)


class Link(Taken):
    """Sends batches, and hands out a batch's replies when its number has come back behind them.

    Whatever else comes ends the connection, and with it all that was sent over it.
    """

    def __init__(self, ended: Callable[["Link"], None], answered: Callable[[], None] = lambda: None) -> None:
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=NONE_YET,
        )
        self._ended, self._answered = ended, answered
        self._replies: list[Any] = []
        self._transport: asyncio.Transport | None = None
        self._leaving = False
        self.gone = asyncio.get_running_loop().create_future()
        """Done when the connection is closed."""
        self.batches: deque[Batch] = deque()
        self.size = 0
        """Bytes that were sent and not answered."""
        self.heard = 0.0
        """When something came, by `perf_counter`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it can send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derives from nothing

    def send(self, batch: Batch) -> None:
        """In one write."""
        self.batches.append(batch)
        self.size += batch.size
        batch.sent = perf_counter()
        if self._transport is not None:
            self._transport.write(batch.sealed())

    def data_received(self, data: bytes) -> None:
        """Some replies, or a part of one."""
        self.heard = perf_counter()
        try:
            self._reader.feed(data)
            while self._transport is not None and (reply := self._reader.gets()) is not NONE_YET:
                self._take(reply)
        except (exceptions.InvalidResponse, ValueError) as error:
            self.end(UnboundError(f"a reply could not be read ({type(error).__name__})"))

    def _take(self, reply: Any) -> None:
        if not self.batches:
            self.end(UnboundError("a reply came that nobody asked for"))
            return
        self._replies.append(reply)
        batch = self.batches[0]
        if len(self._replies) <= batch.count:
            return
        wrong = misbound(reply, batch.nonce)
        if wrong is not None:
            self.end(wrong)
            return
        replies, self._replies = self._replies, []
        self.batches.popleft()
        self.size -= batch.size
        batch.answer(replies)
        self._answered()
        if self._leaving and not self.batches:
            self.end(exceptions.ConnectionError("closed"))

    def is_silent(self, since: float) -> bool:
        """Whether an answer was due since then, and nothing at all came."""
        return bool(self.batches) and max(self.batches[0].sent, self.heard) < since

    def leave(self) -> None:
        """End it as soon as nobody waits for it any more."""
        self._leaving = True
        if all(future.done() for batch in self.batches for future, _, _ in batch.calls):
            self.end(exceptions.ConnectionError("closed"))

    def end(self, error: Exception) -> None:
        """Close it now; who still waits gets the error."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.abort()
        for batch in self.batches:
            batch.fail(error)
        self.batches.clear()
        self.size = 0
        self._ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whomever."""
        self.end(exceptions.ConnectionError("closed by Redis") if exc is None else exc)
        if not self.gone.done():
            self.gone.set_result(None)


def misbound(last: Any, nonce: bytes) -> Exception | None:
    """What is wrong if the reply at a batch's end isn't its number; None: all before it are the batch's."""
    if last == nonce:
        return None
    if isinstance(last, exceptions.NoPermissionError | exceptions.AuthenticationError):
        return last
    if isinstance(last, exceptions.ResponseError) and str(last).startswith("BUSY "):  # a script runs
        return last
    return UnboundError("a reply was not ours")
