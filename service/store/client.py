"""The connection to Redis: its settings, and the one door every command goes through.

RESP2, no retries, short deadlines: redis-py's own defaults take 59 s to give up on a hung server and
repeat commands that may have run.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.cache.ports import Budget
from service.errors import SettingsError, StoreFullError, StoreUnavailableError

Command = tuple[str | bytes | int | float, ...]

_FULL = ("OOM", "MISCONF")
_NO_INDEX = ("no such index", "unknown index")


class RedisClient:
    """Sends commands; whatever is wrong with Redis comes out as one of our errors."""

    def __init__(self, redis: Redis, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    async def run(self, commands: Sequence[Command], budget: Budget | None = None) -> list[Any]:
        """Replies in order, in one round trip. An error reply stands in its place as an exception.

        Args:
            commands: each with its arguments.
            budget: what the request may still wait, lessened by what this took; else the settings' time.

        Raises:
            StoreUnavailableError: no answer in time.
        """
        if not commands:
            return []
        budget = budget or Budget(self._timeout_s)
        begun = perf_counter()
        try:
            async with asyncio.timeout(budget.left_s), self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except exceptions.AuthenticationError as error:
            raise StoreUnavailableError(f"Redis refuses our credentials: {error}") from error
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        finally:
            budget.left_s -= perf_counter() - begun
        return replies

    async def call(self, *command: str | bytes | float, timeout_s: float | None = None) -> Any:
        """One command's reply; `timeout_s` where it may take longer than the settings' time.

        Raises:
            StoreUnavailableError: no answer in time.
            RedisRefusedError: an error reply.
        """
        (reply,) = await self.run([command], None if timeout_s is None else Budget(timeout_s))
        if isinstance(reply, Exception):
            raise refusal(reply)
        return reply


class RedisRefusedError(StoreUnavailableError):
    """Redis answered with an error that is ours to fix; the text is Redis's."""


class IndexMissingError(RedisRefusedError):
    """The index is not there: dropped, or Redis was emptied."""


def refusal(reply: Exception) -> StoreUnavailableError:
    """An error reply as one of our errors."""
    message = str(reply)
    if any(words in message.lower() for words in _NO_INDEX):
        return IndexMissingError(message)
    if isinstance(reply, exceptions.OutOfMemoryError) or any(word in message for word in _FULL):
        return StoreFullError("Redis has no room for writes")
    return RedisRefusedError(message)


@asynccontextmanager
async def connected(url: str, timeout_s: float) -> AsyncIterator[RedisClient]:
    """A client and its pool, closed at the end. Doesn't connect before the first command.

    Raises:
        SettingsError: `url` is no Redis URL.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=32,
            timeout=timeout_s,
            socket_timeout=30,  # the deadline of `run` is the one that counts
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        pool.connection_kwargs["protocol"] = 2  # whatever the URL's query says: replies are parsed as RESP2
        pool.connection_class(**pool.connection_kwargs)  # names an option that doesn't exist
    except (ValueError, TypeError) as error:
        raise SettingsError(f"SEMCACHED_REDIS_URL: {error}") from None
    redis = Redis(connection_pool=pool)
    try:
        yield RedisClient(redis, timeout_s)
    finally:
        await redis.aclose()
        await pool.disconnect()
