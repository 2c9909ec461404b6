"""Connections to Redis: made and logged in by redis-py, then handed to a protocol of ours.

What redis-py knows of TLS, users, credential providers and sockets is used; but it reads each reply through a
stream, a parser and coroutines, which costs more than all else of a call.
"""

import asyncio
from typing import Literal

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import SettingsError


class UnboundError(exceptions.ConnectionError):
    """A reply of another request, or of none, came over this connection."""


class Taken(asyncio.Protocol):
    """A protocol that can take a connection over from redis-py."""

    kept: object = None
    """The stream of before, which would close the connection with itself."""


class Connections:
    """Makes connections."""

    def __init__(self, url: str, connect_s: float) -> None:
        """Connects to nothing yet.

        Raises:
            SettingsError: `url` is no Redis URL.
        """
        ours = {  # whatever the URL's query says
            "protocol": 2,
            "maint_notifications_config": MaintNotificationsConfig(
                enabled=False
            ),  # replies that nobody asked for
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
            self._made(2)  # names an option that doesn't exist
        except (ValueError, TypeError) as error:
            raise SettingsError(f"SEMCACHED_REDIS_URL: {error}") from None
        self._connect_s = connect_s

    def _made(self, resp: int) -> AbstractConnection:
        connection: AbstractConnection = self._class(**self._options | {"protocol": resp})
        return connection

    async def opened(self, protocol: Taken, resp: Literal[2, 3] = 2) -> None:
        """Connect and log in; then the connection is `protocol`'s, whose `connection_made` was called.

        It closes it, too. `resp` is the version of Redis' protocol.

        Raises:
            RedisError | OSError: it could not be made in time, or Redis refuses us.
        """
        connection = self._made(resp)
        try:
            async with asyncio.timeout(self._connect_s):
                await _connect(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        writer = connection._writer  # noqa: SLF001 - redis-py has no name for it
        assert writer is not None  # noqa: S101 - it is connected
        connection._reader = connection._writer = None  # noqa: SLF001 - it isn't redis-py's any more
        protocol.kept = writer
        writer.transport.set_protocol(protocol)
        protocol.connection_made(writer.transport)


async def _connect(connection: AbstractConnection) -> None:
    await connection.connect()  # type: ignore[no-untyped-call] # in redis-py
    if await connection.can_read():
        raise UnboundError("a reply came that nobody asked for")
