"""The one door every command goes through: deadline, breaker, and each reply bound to its request.

No retries: redis-py's own defaults take 59 s to give up on a hung server and repeat commands that may
have run.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from service.cache.ports import Budget
from service.errors import StoreFullError, StoreUnavailableError
from service.store.breaker import Breaker
from service.store.connections import Connections
from service.store.lag import Lag
from service.telemetry import BREAKER_OPEN, REDIS_FAILURES, REDIS_SECONDS

log = logging.getLogger(__name__)

Command = tuple[str | bytes | int | float, ...]

PROBE_S = 1.0
EXCUSED = 8
"""For so many times a call's patience a busy event loop excuses that nothing was answered; no longer."""
_FULL = ("OOM", "MISCONF")
_UNWELL = (exceptions.ReadOnlyError, exceptions.ClusterDownError)  # MASTERDOWN is one of these
_NO_INDEX = ("no such index", "unknown index")


class RedisClient:
    """Sends commands; whatever is wrong with Redis comes out as one of our errors."""

    def __init__(self, connections: Connections, timeout_s: float, probe_key: str) -> None:
        self.connections = connections
        self._timeout_s = timeout_s
        self._probe: Command = ("SET", probe_key, 1, "PX", 1000)  # a write: a read-only server isn't well
        self.breaker = Breaker()
        self._lag = Lag()
        self._answered = perf_counter()
        self._probing: asyncio.Task[None] | None = None
        self._nonces = itertools.count()

    async def run(self, commands: Sequence[Command], budget: Budget | None = None) -> list[Any]:
        """Raw RESP2 replies in order, in one round trip. An error reply stands in its place as an exception.

        Args:
            commands: each with its arguments.
            budget: what the request may still wait, lessened by what this took; else the settings' time.

        Raises:
            StoreUnavailableError: no answer in time, or the breaker is open.
        """
        if not commands:
            return []
        self._turn_away()
        self._lag.start()
        budget = budget or Budget(self._timeout_s)
        until = asyncio.get_running_loop().time() + budget.left_s
        begun = perf_counter()  # uvloop's own clock counts whole ms
        try:
            async with self.connections.turn(until):
                self._turn_away()
                return await self._watched(commands, until)
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

    async def _watched(self, commands: Sequence[Command], until: float) -> list[Any]:
        """What goes wrong with a connection in hand counts for the breaker, unless it may be our fault."""
        begun = perf_counter()
        patient = until - asyncio.get_running_loop().time() >= self._timeout_s / 2
        try:
            async with asyncio.timeout_at(until):
                replies = await self._exchange(commands)
        except TimeoutError:
            excused = self._lag.since(begun) and perf_counter() - self._answered < EXCUSED * self._timeout_s
            if not patient or excused:
                raise
            raise await self._failed(TimeoutError()) from None
        except (exceptions.RedisError, OSError) as error:
            raise await self._failed(error) from error
        self.breaker.worked()
        self._answered = perf_counter()
        return replies

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send and read all. The last reply must be this call's nonce, or one of another call is among them.

        Raises:
            RedisError: the connection, or the server, is not well.
        """
        nonce = b"%d" % next(self._nonces)
        async with self.connections.one() as connection:
            packed = connection.pack_commands([*commands, ("ECHO", nonce)])
            await connection.send_packed_command(packed, check_health=False)
            replies = [await _reply(connection) for _ in range(len(commands) + 1)]
            last = replies.pop()
            if isinstance(last, exceptions.NoPermissionError):
                raise last
            if not is_bound(last, nonce):
                raise UnboundError("a reply was not ours")
        unwell = next((one for one in replies if isinstance(one, Exception) and _is_unwell(one)), None)
        if unwell is not None:
            raise unwell
        return replies

    def _turn_away(self) -> None:
        if self.breaker.is_open:
            raise StoreUnavailableError(f"Redis is away: {self.breaker.why}")

    async def _failed(self, error: Exception) -> StoreUnavailableError:
        """Count a failure. The one that opens the breaker makes the log's one line and starts the probing."""
        kind, words = _described(error)
        REDIS_FAILURES.labels(kind).inc()
        if self.breaker.failed(words):
            log.warning("Redis is away: %s; lookups miss until it is back", words)
            BREAKER_OPEN.set(1)
            self._probing = asyncio.create_task(self._probe_until_well())
            await self.connections.drop_idle()
        return StoreUnavailableError(f"Redis is away: {words}")

    async def _probe_until_well(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            with contextlib.suppress(Exception):  # whatever it is, Redis is not well, and is asked again
                async with asyncio.timeout(self._timeout_s):
                    await self._exchange([self._probe])  # refused for want of room or rights: reads go on
                break
        self.breaker.close()
        BREAKER_OPEN.set(0)
        log.info("Redis is back")

    async def close(self) -> None:
        """End the probing and close the connections."""
        self._lag.stop()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self.connections.drop_idle()


class RedisRefusedError(StoreUnavailableError):
    """Redis answered with an error that is ours to fix; the text is Redis's."""


class IndexMissingError(RedisRefusedError):
    """The index is not there: dropped, or Redis was emptied."""


class UnboundError(exceptions.ConnectionError):
    """A reply of another request came over this connection."""


def is_bound(reply: Any, nonce: bytes) -> bool:
    """Whether the replies read before this one belong to the call that sent the nonce."""
    return bool(reply == nonce)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except exceptions.ResponseError as error:  # read whole: the connection goes on
        return error


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
