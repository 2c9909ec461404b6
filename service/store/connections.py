"""Connections to Redis, at most so many, each used by one call at a time.

redis-py's own pool takes locks on release, where a cancelled caller loses a connection for good; here a
connection comes back without an await, and only after a call that read every reply it had asked for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import SettingsError

MOST = 32


class Connections:
    """Makes, lends and drops connections."""

    def __init__(self, url: str, connect_s: float) -> None:
        """Connects to nothing yet.

        Raises:
            SettingsError: `url` is no Redis URL.
        """
        ours = {  # whatever the URL's query says
            "protocol": 2,
            "decode_responses": False,
            "socket_timeout": None,  # the request's budget is the deadline
            "socket_connect_timeout": connect_s,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
            "driver_info": None,
        }
        try:
            described = ConnectionPool.from_url(url)  # never used as a pool
            self._class, self._options = described.connection_class, described.connection_kwargs | ours
            self._made()  # names an option that doesn't exist
        except (ValueError, TypeError) as error:
            raise SettingsError(f"SEMCACHED_REDIS_URL: {error}") from None
        self._free = asyncio.Semaphore(MOST)
        self._idle: list[AbstractConnection] = []
        self.lent = 0

    def _made(self) -> AbstractConnection:
        connection: AbstractConnection = self._class(**self._options)
        return connection

    async def apart(self) -> AbstractConnection:
        """A connection that isn't lent: RESP2, connected, and for the caller to close.

        Raises:
            RedisError: as redis-py has it.
        """
        connection = self._made()
        try:
            await connection.connect()  # type: ignore[no-untyped-call] # in redis-py
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    @asynccontextmanager
    async def turn(self, until: float) -> AsyncIterator[None]:
        """The right to a connection.

        Args:
            until: when to give up, on the event loop's clock.

        Raises:
            TimeoutError: all were in use for all that time.
        """
        async with asyncio.timeout_at(until):
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AbstractConnection]:
        """A connection, for who has the turn. A block that ends with an exception costs it."""
        connection = self._idle.pop() if self._idle else self._made()
        self.lent += 1
        try:
            await _connect(connection)
            yield connection
        except BaseException:  # a cancelled caller leaves replies behind
            await connection.disconnect(nowait=True)
            raise
        else:
            self._idle.append(connection)
        finally:
            self.lent -= 1

    async def drop_idle(self) -> None:
        """Close what nobody uses; the next call connects anew, perhaps to another server."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)


async def _connect(connection: AbstractConnection) -> None:
    """A connection that was closed, or holds a reply that nobody asked for, is made anew."""
    await connection.connect()  # type: ignore[no-untyped-call] # in redis-py
    if await connection.can_read():
        await connection.disconnect(nowait=True)
        await connection.connect()  # type: ignore[no-untyped-call] # in redis-py
