"""How commands get to Redis: joined with those of other calls on a lane, or alone."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from time import perf_counter

import hiredis
from redis import exceptions

from service.store.connections import Connections
from service.store.link import Batch, Call, Link, Outcome

Command = tuple[str | bytes | int | float, ...]

MOST_BYTES = 2**24
"""That wait on a lane, or for its answers."""
IN_FLIGHT = 3
"""Searches that Redis has at a time. It writes no reply before it is done with all that it has read: were
there more, we would wait for it, and then it for us."""
LARGE = 2**15
OWN = 16
"""Connections for calls that go alone."""

_READ = "MGET GET HGET HMGET HGETALL EXISTS ZSCORE ZCARD ZRANGE PTTL ECHO PING FCALL"
_WRITE = "MULTI SET DEL UNLINK HSET HDEL HSETNX INCR INCRBY EXPIRE PEXPIRE PEXPIREAT ZADD ZREM"
_LANES = (
    dict.fromkeys(_READ.split(), "read") | dict.fromkeys(_WRITE.split(), "write") | {"FT.SEARCH": "search"}
)


class LaneFullError(TimeoutError):
    """Too much waits already."""


class Lane:
    """One connection that calls share: those of one turn of the event loop go out together.

    It is made when it is needed. Who gives up forgets his call; its replies are read and dropped.
    """

    def __init__(self, connections: Connections, patience_s: float, most: float = float("inf")) -> None:
        """A lane.

        Args:
            connections: where its own comes from.
            patience_s: when nothing came for so long, and something was due, the next call connects anew.
            most: calls that are on their way; each is a batch of its own then.
        """
        self._connections = connections
        self._patience_s = patience_s
        self._most = most
        self._link: Link | None = None
        self._old: set[Link] = set()
        self._gathered = Batch()
        self._flushing = False
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = float("inf")

    def send(self, packed: bytes, count: int, until: float) -> asyncio.Future[Outcome]:
        """Commands with so many replies. The outcome is a TimeoutError where none came until then.

        Raises:
            LaneFullError: too much waits already.
        """
        loop = asyncio.get_running_loop()
        waiting = self._gathered.size + (self._link.size if self._link else 0)
        if waiting and waiting + len(packed) > MOST_BYTES:  # one alone may be larger
            raise LaneFullError
        future: asyncio.Future[Outcome] = loop.create_future()
        self._gathered.add(packed, (future, count, until))
        self._flush_soon()
        if until < self._wakes:
            self._wake(until)
        return future

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if not self._gathered.calls:
            return
        if self._link is None:
            self._connect()
        elif self._most == float("inf"):
            batch, self._gathered = self._gathered, Batch()
            self._link.send(batch)
        else:
            link = self._link
            while link is self._link and self._gathered.calls and len(link.batches) < self._most:
                batch = self._gathered.next()
                if batch.calls:
                    link.send(batch)

    def _answered(self) -> None:
        """There is room for what waits."""
        if self._gathered.calls and not self._flushing:
            self._flush()

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        link = Link(self._ended, self._answered)
        try:
            await self._connections.opened(link)
        except Exception as error:  # noqa: BLE001 - who waits raises it
            self._fail_gathered(error)
        else:
            self._link = link
            self._flush()
        finally:
            self._connecting = None

    def _fail_gathered(self, error: Exception) -> None:
        batch, self._gathered = self._gathered, Batch()
        batch.fail(error)

    def _ended(self, link: Link) -> None:
        self._old.discard(link)
        if link is self._link:
            self._link = None
            if self._gathered.calls:
                self._flush_soon()

    def retire(self) -> None:
        """The next call gets a new connection; who waits on this one goes on waiting."""
        link, self._link = self._link, None
        if link is not None:
            self._old.add(link)
            link.leave()
            if self._gathered.calls:
                self._flush_soon()

    def drop(self, error: Exception) -> None:
        """Close what there is; whoever waits gets the error."""
        self._fail_gathered(error)
        for link in self._links():
            link.end(error)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is due, not even to who has gone."""
        return not self._gathered.calls and not any(link.batches for link in self._links())

    def _links(self) -> list[Link]:
        return [*self._old, *([self._link] if self._link else [])]

    def _calls(self) -> Iterator[Call]:
        for batch in [self._gathered, *(batch for link in self._links() for batch in link.batches)]:
            yield from batch.calls

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes = at
        after_s = max(at - perf_counter(), 0.001)
        self._timer = asyncio.get_running_loop().call_later(after_s, self._sweep)

    def _sweep(self) -> None:
        """One timer for all: whose time is over gets an error, and what nobody waits for is closed."""
        now = perf_counter()
        for future, _, until in self._calls():
            if until <= now and not future.done():
                future.set_result(TimeoutError())
        if self._link is not None and self._link.is_silent(now - self._patience_s):
            self.retire()
        for link in list(self._old):
            link.leave()
        self._timer, self._wakes = None, float("inf")
        following = min((until for future, _, until in self._calls() if not future.done()), default=None)
        if following is not None:
            self._wake(following)

    async def close(self) -> None:
        """Close what there is, and wait until it is closed."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        links = self._links()
        self.drop(exceptions.ConnectionError("closed"))
        if self._timer is not None:
            self._timer.cancel()
        for link in links:
            await link.gone


class Lanes:
    """Three lanes, and connections that a call has for itself."""

    def __init__(self, connections: Connections, timeout_s: float) -> None:
        """`timeout_s`: how long an ordinary call may take."""
        self._connections = connections
        self._timeout_s = timeout_s
        self._shared = {"read": self._lane(), "write": self._lane(), "search": self._lane(IN_FLIGHT)}
        self._free = asyncio.Semaphore(OWN)
        self._own: list[Lane] = [self._lane() for _ in range(OWN)]

    def _lane(self, most: float = float("inf")) -> Lane:
        return Lane(self._connections, self._timeout_s / 2, most)

    def send(self, commands: Sequence[Command], until: float, lane: str | None = None) -> Awaitable[Outcome]:
        """Replies, to be awaited, or what went wrong on the way, if only that there were none by then.

        Reads, searches, and writes with transactions have a lane each, known by the first command, so that
        what is slow holds up its like only. What may wait longer than ordinary calls, is large, or begins
        with a command not listed here (it may take long, or change its connection) goes alone. With `lane` it
        goes there, behind what was sent before and perhaps not waited for.

        Raises:
            TimeoutError: it was not even sent: this process is busy.
        """
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type] # its stub knows tuples of one
        name = lane or _LANES.get(str(commands[0][0]))
        if name is None or len(packed) > LARGE or until - perf_counter() > self._timeout_s:
            return self._alone(packed, len(commands), until)
        return self._shared[name].send(packed, len(commands), until)

    async def _alone(self, packed: bytes, count: int, until: float) -> Outcome:
        async with asyncio.timeout(until - perf_counter()):
            await self._free.acquire()
        lane, late = self._own.pop(), until - perf_counter() < self._timeout_s / 2
        try:
            outcome = await lane.send(packed, count, until)
        finally:
            if not lane.is_idle:  # cancelled, or too late: what Redis is at may take long
                lane.drop(exceptions.ConnectionError("its caller has gone"))
            self._own.append(lane)
            self._free.release()
        if late and isinstance(outcome, TimeoutError):
            raise outcome
        return outcome

    def retire(self) -> None:
        """New connections from now on, perhaps to another server."""
        for lane in self._all():
            lane.retire()

    def drop(self, error: Exception) -> None:
        """Close all connections; whoever waits gets the error."""
        for lane in self._all():
            lane.drop(error)

    def _all(self) -> list[Lane]:
        return [*self._shared.values(), *self._own]

    async def close(self) -> None:
        """Close all connections, and wait until they are closed."""
        for lane in self._all():
            await lane.close()
