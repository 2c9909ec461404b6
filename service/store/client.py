"""The one door every command goes through: deadline, breaker, and each reply bound to its request.

No retries: redis-py's own defaults take 59 s to give up on a hung server and repeat commands that may
have run.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from redis import exceptions

from service.cache.ports import Budget
from service.errors import StoreFullError, StoreUnavailableError
from service.store.breaker import Breaker
from service.store.connections import Connections, UnboundError
from service.store.lag import Lag
from service.store.lanes import Command as Command  # noqa: PLC0414 - whoever sends some asks here
from service.store.lanes import Lanes
from service.store.link import Outcome
from service.telemetry import BREAKER_OPEN, REDIS_FAILURES, REDIS_SECONDS

log = logging.getLogger(__name__)

PROBE_S = 1.0
EXCUSED = 8
"""For so many times a call's patience a busy event loop excuses that nothing was answered; no longer."""
_FULL = ("OOM", "MISCONF")
_UNWELL = (exceptions.ReadOnlyError, exceptions.ClusterDownError, exceptions.ConnectionError)
"""MASTERDOWN is the second of these; LOADING, NOAUTH and what else may befall a connection the third."""
_NO_INDEX = ("no such index", "unknown index", "index was dropped", "cursor not found")
"""The last two for who goes through it page by page; the very last also where a cursor's time was over."""


class RedisClient:
    """Sends commands; whatever is wrong with Redis comes out as one of our errors."""

    def __init__(self, connections: Connections, timeout_s: float, probe_key: str) -> None:
        self.connections = connections
        self.lanes = Lanes(connections, timeout_s)
        self._timeout_s = timeout_s
        self._probe: Command = ("SET", probe_key, 1, "PX", 1000)  # a write: a read-only server isn't well
        self.breaker = Breaker()
        self._lag = Lag()
        self._answered = perf_counter()
        self._counted: Exception | None = None
        self._probing: asyncio.Task[None] | None = None

    async def run(
        self, commands: Sequence[Command], budget: Budget | None = None, lane: str | None = None
    ) -> list[Any]:
        """Raw RESP2 replies in order, in one round trip. An error reply stands in its place as an exception.

        The commands stay together, but share a connection with those of other calls (`Lanes.send` says
        which): a MULTI must end in the same call.

        Args:
            commands: each with its arguments.
            budget: what the request may still wait, lessened by what this took; else the settings' time.
            lane: where it must keep its place behind what was sent there (`Lanes.send`).

        Raises:
            StoreUnavailableError: no answer in time, or the breaker is open.
        """
        if not commands:
            return []
        if self.breaker.is_open:
            raise StoreUnavailableError(f"Redis is away: {self.breaker.why}")
        self._lag.start()
        budget = budget or Budget(self._timeout_s)
        begun = perf_counter()
        try:
            replies = await self.lanes.send(commands, begun + budget.left_s, lane)
            return self._checked(replies, begun, budget.left_s)
        except TimeoutError:
            REDIS_FAILURES.labels("busy").inc()
            raise StoreUnavailableError("no time was left for Redis: this process is busy") from None
        finally:
            took = perf_counter() - begun
            budget.left_s -= took
            REDIS_SECONDS.observe(took)

    async def values(self, commands: Sequence[Command], budget: Budget | None = None) -> list[Any]:
        """As `run`, where no reply may be an error.

        Raises:
            StoreUnavailableError: no answer in time, or one is.
        """
        return [value_of(reply) for reply in await self.run(commands, budget)]

    async def call(self, *command: str | bytes | float, timeout_s: float | None = None) -> Any:
        """One command's reply; `timeout_s` where it may take longer than the settings' time.

        Raises:
            StoreUnavailableError: no answer in time.
            RedisRefusedError: an error reply.
        """
        (reply,) = await self.values([command], None if timeout_s is None else Budget(timeout_s))
        return reply

    def _checked(self, replies: Outcome, begun: float, left_s: float) -> list[Any]:
        """What goes wrong with Redis counts for the breaker; a TimeoutError: it may be our fault."""
        if isinstance(replies, TimeoutError) and self._is_excused(begun, left_s):
            raise replies
        if isinstance(replies, Exception):
            raise self._failed(replies) from replies
        unwell = self._unwell(replies)
        if unwell is not None:
            raise self._failed(unwell) from unwell
        self.breaker.worked()
        self._answered = perf_counter()
        return replies

    def _is_excused(self, begun: float, left_s: float) -> bool:
        """Whether there was little time from the start, or the event loop was held up."""
        lately = perf_counter() - self._answered < EXCUSED * self._timeout_s
        return left_s < self._timeout_s / 2 or (self._lag.since(begun) and lately)

    def _unwell(self, replies: list[Any]) -> Exception | None:
        """A reply that says that the server is not well: what comes next gets new connections."""
        for reply in replies:
            if isinstance(reply, Exception) and _is_unwell(reply):
                self.lanes.retire()
                return reply
        return None

    def _failed(self, error: Exception) -> StoreUnavailableError:
        """Count a failure. The one that opens the breaker makes the log's one line and starts the probing.

        A connection that ends, or can't be made, is one failure, however many calls waited for it.
        """
        kind, words = _described(error)
        REDIS_FAILURES.labels(kind).inc()
        again, self._counted = error is self._counted, error
        if not again and self.breaker.failed(words):
            log.warning("Redis is away: %s; lookups miss until it is back", words)
            BREAKER_OPEN.set(1)
            self._probing = asyncio.create_task(self._probe_until_well())
            self.lanes.drop(error)
        return StoreUnavailableError(f"Redis is away: {words}")

    async def _probe_until_well(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            with contextlib.suppress(TimeoutError):
                replies = await self.lanes.send([self._probe], perf_counter() + self._timeout_s)
                if not isinstance(replies, Exception) and self._unwell(replies) is None:
                    break  # refused for want of room or rights: reads go on
        self.breaker.close()
        BREAKER_OPEN.set(0)
        log.info("Redis is back")

    async def close(self) -> None:
        """Close the connections and end the probing."""
        self._lag.stop()
        await self.lanes.close()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
            await self.lanes.close()  # what it may have begun


class RedisRefusedError(StoreUnavailableError):
    """Redis answered with an error that is ours to fix; the text is Redis's."""


class IndexMissingError(RedisRefusedError):
    """The index is not there, or the cursor over it: dropped, or Redis was emptied."""


def _is_unwell(reply: Exception) -> bool:
    return isinstance(reply, _UNWELL) or str(reply).startswith("BUSY ")


def _described(error: Exception) -> tuple[str, str]:
    """A label for the metric, and words for the log and the caller; without the URL, which has a password."""
    if isinstance(error, UnboundError):
        return "unbound", str(error)
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return "refused", f"it refuses us: {error}"
    if isinstance(error, exceptions.BusyLoadingError):
        return "unwell", "it is loading"
    if isinstance(error, exceptions.ResponseError):
        return "unwell", str(error)
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return "timeout", "no answer in time"
    return "connection", f"no connection ({type(error).__name__})"


def refusal(reply: Exception) -> StoreUnavailableError:
    """An error reply as one of our errors."""
    message = str(reply)
    if any(words in message.lower() for words in _NO_INDEX):
        return IndexMissingError(message)
    if isinstance(reply, exceptions.OutOfMemoryError) or any(word in message for word in _FULL):
        return StoreFullError("Redis has no room for writes")
    return RedisRefusedError(message)


def value_of(reply: Any) -> Any:
    """A reply, unless it is an error.

    Raises:
        StoreUnavailableError: it is.
    """
    if isinstance(reply, Exception):
        raise refusal(reply)
    return reply


def outcome(replies: list[Any]) -> StoreUnavailableError | None:
    """What became of a transaction. The first error counts: EXEC's own only says that there was one."""
    done = replies[-1] if isinstance(replies[-1], list) else []
    failed = next((reply for reply in [*replies, *done] if isinstance(reply, Exception)), None)
    return None if failed is None else refusal(failed)


@asynccontextmanager
async def connected(url: str, timeout_s: float, probe_key: str) -> AsyncIterator[RedisClient]:
    """A client, closed at the end. Doesn't connect before the first command.

    Raises:
        SettingsError: `url` is no Redis URL.
    """
    client = RedisClient(Connections(url, timeout_s), timeout_s, probe_key)
    try:
        yield client
    finally:
        await client.close()
