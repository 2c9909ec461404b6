"""Keeps `cache.memory` true, over one connection of its own with CLIENT TRACKING (RESP3).

Redis remembers the keys that are read over it, and says once when one of them changes: written, deleted,
expired, evicted. Replies and such words come in the order in which things happened, but Redis serves others
within an exchange: what is told to have changed while it is read is not kept. OPTIN: only what follows a
CLIENT CACHING YES is remembered, here a transaction that reads a record and when its document was stored.

While somebody asks, an ECHO goes out every `BEAT_S`; its answer confirms what came before it. Each exchange
ends in an ECHO of its own number: answers that are others' end the connection.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
from redis.exceptions import RedisError

from service.cache.memory import Memory
from service.cache.ports import Reading
from service.errors import StoreUnavailableError
from service.store.breaker import Breaker
from service.store.client import Command
from service.store.connections import Connections, Taken
from service.store.keys import Keys, entry_id_of
from service.store.records import unseal
from service.store.responses import RedisResponses, is_whole, number_of, stored_when
from service.telemetry import MEMORY_CONFIRMED, MEMORY_INVALIDATIONS

log = logging.getLogger(__name__)

BEAT_S = 0.03
MOST_BEATS = 8
"""Unanswered at a time: a Redis that is 90 ms away confirms, too."""
IDLE_S = 1.0
"""Without a lookup for so long, nothing is sent any more."""
PATIENCE_S = 5.0
"""Without an answer for so long, the connection is as good as lost."""
AGAIN_S = 0.5
REFUSED_S = 60.0
READ_AT_ONCE = 64
GREETING: tuple[Command, ...] = (
    ("HELLO", 3),
    ("CLIENT", "TRACKING", "ON", "OPTIN"),
    ("CLIENT", "CACHING", "YES"),
)
TRANSIENT = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN")
OK = b"OK"

Then = Callable[[list[Any]], None]

_NOTHING = object()


class TrackingRefusedError(StoreUnavailableError):
    """This Redis, or what stands before it, doesn't tell us of changes; the text is its own."""


@dataclass(slots=True)
class Exchange:
    """Commands that were sent together."""

    sent_at: float
    number: bytes
    most: int  # replies that are to come
    then: Then
    replies: list[Any] = field(default_factory=list)


class Stream(Taken):
    """What goes over the connection: exchanges, their replies, and what Redis says by itself."""

    def __init__(self, memory: Memory) -> None:
        self._transport: asyncio.Transport | None = None
        self._memory = memory
        self._clock = memory.clock
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._numbers = itertools.count()
        self._sent: deque[Exchange] = deque()
        self.lost = asyncio.get_running_loop().create_future()
        """Done when the connection is no more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it can send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derives from nothing
        if transport.is_closing():
            self._end()

    @property
    def unanswered(self) -> int:
        """Exchanges under way."""
        return len(self._sent)

    @property
    def is_stuck(self) -> bool:
        """Whether an answer is overdue."""
        return bool(self._sent) and self._clock() - self._sent[0].sent_at > PATIENCE_S

    def send(self, commands: Sequence[Command], then: Then) -> None:
        """Send commands; `then` gets their replies."""
        number = b"%d" % next(self._numbers)
        self._sent.append(Exchange(self._clock(), number, len(commands) + 1, then))
        if self._transport is not None:
            self._transport.write(b"".join(map(hiredis.pack_command, (*commands, ("ECHO", number)))))  # type: ignore[arg-type] # its stubs

    def data_received(self, data: bytes) -> None:
        """Replies and invalidations, in their order."""
        self._reader.feed(data)
        try:
            while (one := self._reader.gets()) is not _NOTHING:
                if isinstance(one, hiredis.PushNotification):
                    self._pushed(one)
                elif not self._replied(one):
                    self.abort()
                    return
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """It is over."""
        self._end()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _end(self) -> None:
        self._memory.lapse()
        if not self.lost.done():
            self.lost.set_result(None)

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:  # everything
            MEMORY_INVALIDATIONS.inc()
            self._memory.forget_all()
        else:
            MEMORY_INVALIDATIONS.inc(len(push[1]))
            self._memory.changed(map(entry_id_of, push[1]))

    def _replied(self, reply: Any) -> bool:
        """Take a reply in; whether it can be one of ours."""
        if not self._sent or self.lost.done():
            return False
        exchange = self._sent[0]
        exchange.replies.append(reply)
        if len(exchange.replies) < exchange.most:
            return True
        self._sent.popleft()
        if exchange.replies.pop() != exchange.number:
            return False
        self._memory.confirm(exchange.sent_at)
        exchange.then(exchange.replies)
        return True


class Tracking:
    """Fulfils `cache.ports.Coherence`. Connects when somebody asks, not before."""

    def __init__(
        self,
        memory: Memory,
        connections: Connections,
        breaker: Breaker,
        keys: Keys,
        responses: RedisResponses,
    ) -> None:
        self._memory = memory
        self._connections = connections
        self._breaker = breaker
        self._keys = keys
        self._responses = responses
        self._clock = memory.clock
        self._wanted = asyncio.Event()
        self._stream: Stream | None = None
        self._times = 0
        self._space = ""
        self._beats: asyncio.TimerHandle | None = None
        self._looks = 0
        self._looked_at = 0.0
        self._waiting: list[Reading] = []
        self._is_reading = False
        self._told = ""

    def wake(self) -> None:
        """See `cache.ports.Coherence`."""
        if self._stream is None:
            self._wanted.set()
        elif self._beats is None:
            self._looked_at = self._clock()
            self._beat()

    def read(self, wanted: Reading) -> bool:
        """See `cache.ports.Coherence`. Those that come while others are read go together."""
        if self._stream is None:
            return False
        self._waiting.append(wanted)
        self._send_reads()
        return True

    async def run(self) -> None:
        """Be connected, from the first question on; until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with connected(self._connections, self._memory) as stream:
                    await self._served(stream)
            except TrackingRefusedError as error:
                self._tell(str(error))
                await asyncio.sleep(REFUSED_S)
            except (RedisError, OSError):  # TimeoutError is one
                await asyncio.sleep(AGAIN_S)
            except Exception:  # a defect must not end the task
                log.exception("unexpected error of the tier `memory`")
                await asyncio.sleep(REFUSED_S)

    async def _served(self, stream: Stream) -> None:
        """Until the connection is lost."""
        self._memory.forget_all()
        self._stream, self._times, self._waiting, self._is_reading = stream, self._breaker.times, [], False
        try:
            self.wake()
            await stream.lost
        finally:
            self._stream = None
            self._rest()

    def _tell(self, why: str) -> None:
        """Once."""
        if why != self._told:
            self._told = why
            log.warning("nothing is served from memory: Redis doesn't tell of changes: %s", why)

    def _beat(self) -> None:
        """Ask for a sign of life, and again in a while; not where nobody has looked for long."""
        now, self._beats = self._clock(), None
        if self._looks != self._memory.looks:
            self._looks, self._looked_at = self._memory.looks, now
        if self._stream is None or now - self._looked_at > IDLE_S:
            self._rest()
        elif self._stream.is_stuck or self._breaker.times != self._times:
            self._stream.abort()  # Redis was away for the others, or isn't the same any more
        else:
            self._check_space()
            MEMORY_CONFIRMED.set(self._memory.is_confirmed)
            if self._stream.unanswered < MOST_BEATS:
                self._stream.send((), lambda _: None)
            self._beats = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _check_space(self) -> None:
        """Of another generation an entry may have no document, and invalidations don't find it."""
        with suppress(StoreUnavailableError):  # nothing was served yet, or kept
            space = self._responses.followed.space
            if space != self._space:
                self._space = space
                self._memory.forget_all()

    def _rest(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            self._beats = None
        MEMORY_CONFIRMED.set(0)

    def _send_reads(self) -> None:
        if self._stream is None or self._is_reading or not self._waiting:
            return
        some, self._waiting = self._waiting[:READ_AT_ONCE], self._waiting[READ_AT_ONCE:]
        self._is_reading = True
        self._stream.send(
            [command for one in some for command in self._commands(one)],
            lambda replies: self._read(some, replies),
        )

    def _commands(self, one: Reading) -> list[Command]:
        """CACHING holds for the transaction that follows. The number, read before, may be too low at most."""
        partition = self._responses.partition(one.keys)
        document = self._keys.document(partition, self._responses.followed, one.entry_id)
        return [
            ("GET", self._keys.invalidations_number(partition)),
            ("CLIENT", "CACHING", "YES"),
            ("MULTI",),
            ("GET", self._keys.record(partition, one.entry_id)),
            stored_when(document),
            ("EXEC",),
        ]

    def _read(self, some: Sequence[Reading], replies: Sequence[Any]) -> None:
        """Keep what was found; what was refused is absent."""
        self._is_reading = False
        for one, number, caching, done in zip(some, replies[::6], replies[1::6], replies[5::6], strict=True):
            blob, time = done if isinstance(done, list) else (None, None)
            blob = blob if isinstance(blob, bytes) else b""
            record = unseal(blob, one.entry_id, one.keys) if blob and caching == OK else None
            if record is not None and not is_whole(record.stored_at, time):
                record = None
            known = number if isinstance(number, bytes) else None
            self._memory.keep(one, record, number_of(known), len(blob))
        self._send_reads()


@asynccontextmanager
async def connected(connections: Connections, memory: Memory) -> AsyncIterator[Stream]:
    """A connection over which Redis tells of changes; closed at the end.

    Raises:
        TrackingRefusedError: it doesn't.
        RedisError, OSError: Redis is away, or not well.
    """
    stream = Stream(memory)
    try:
        await connections.opened(stream)
        await _greet(stream)
        yield stream
    finally:
        stream.abort()


async def _greet(stream: Stream) -> None:
    answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    stream.send(GREETING, answered.set_result)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait({answered, stream.lost}, return_when=asyncio.FIRST_COMPLETED)
    if not answered.done():
        raise ConnectionResetError
    error = next((str(one) for one in answered.result() if isinstance(one, Exception)), None)
    if error is not None:
        raise BlockingIOError(error) if error.startswith(TRANSIENT) else TrackingRefusedError(error)


async def trial(connections: Connections) -> None:
    """Whether Redis would tell us of changes.

    Raises:
        TrackingRefusedError: it doesn't.
        StoreUnavailableError: it is away.
    """
    try:
        async with connected(connections, Memory(0)):
            pass
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(f"Redis is away: no connection ({type(error).__name__})") from error


@asynccontextmanager
async def tracking(
    memory: Memory, connections: Connections, breaker: Breaker, keys: Keys, responses: RedisResponses
) -> AsyncIterator[None]:
    """Keep a memory true, unless it is off."""
    if not memory.is_on:
        yield
        return
    memory.coherence = one = Tracking(memory, connections, breaker, keys, responses)
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        memory.coherence = None
        task.cancel()
        await asyncio.wait([task])
