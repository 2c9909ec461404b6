"""Who serves from a Redis, and how far each has followed a migration.

No clocks are compared: a process beats with a number of its own, and who looks on waits until each has
followed, or has not beaten for a while.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import NamedTuple

from service.errors import StoreFullError, StoreUnavailableError
from service.store.client import RedisClient
from service.store.diagnosis import pairs
from service.store.functions import BEAT
from service.store.keys import Keys

SILENT_S = 10.0
"""Whoever has not beaten for so long is gone, or will look before it writes."""
LOOK_S = 0.2
WORDS = 3


class Beat(NamedTuple):
    """What a process says of itself."""

    live: int  # the number of the live generations that it writes
    generation: int  # the number of the generation that it searches
    beat: int


class Processes:
    """This process' place among those that serve."""

    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.meta("processes")
        self._id = secrets.token_hex(8)
        self._beats = itertools.count()

    async def beat(self, live: int, generation: int) -> None:
        """Say what it follows.

        Raises:
            StoreUnavailableError: Redis does not answer, or refuses.
        """
        told = (self._key, self._id, f"{live} {generation} {next(self._beats)}")
        try:
            await self._redis.call("HSET", *told)
        except StoreFullError:
            await self._redis.call("FCALL", BEAT, 1, *told)

    @asynccontextmanager
    async def attaching(self, generation: int) -> AsyncIterator[None]:
        """A migration waits for who may be making an index; without writes it goes on as well."""
        with suppress(StoreUnavailableError):
            await self.beat(0, generation)
        try:
            yield
        finally:
            with suppress(StoreUnavailableError):
                await self.leave()

    async def leave(self) -> None:
        """It serves no more.

        Raises:
            StoreUnavailableError: Redis does not answer, or refuses.
        """
        await self._redis.call("HDEL", self._key, self._id)


async def read_beats(redis: RedisClient, keys: Keys) -> dict[str, Beat]:
    """By process; what can't be read is nobody.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    told = pairs(await redis.call("HGETALL", keys.meta("processes")))
    found: dict[str, Beat] = {}
    for name, raw in told.items():
        words = raw.split()
        if len(words) == WORDS and all(word.isdigit() for word in words):
            found[name] = Beat(*(int(word) for word in words))
    return found


async def followed(
    redis: RedisClient,
    keys: Keys,
    has: Callable[[Beat], bool],
    *,
    patience_s: float,
    renew: Callable[[], Awaitable[None]],
) -> list[str]:
    """Wait until each process that still beats `has` followed; who has not within `patience_s`.

    Those that beat no more are struck from the list; one that comes back is in it again.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    begun, heard = monotonic(), dict[str, tuple[Beat, float]]()
    while True:
        now, beats = monotonic(), await read_beats(redis, keys)
        for name, beat in beats.items():
            if name not in heard or heard[name][0].beat != beat.beat:
                heard[name] = (beat, now)
        silent = [name for name in beats if now - heard[name][1] > SILENT_S]
        if silent:
            await redis.call("HDEL", keys.meta("processes"), *silent)
        behind = [name for name, beat in beats.items() if name not in silent and not has(beat)]
        if not behind or now - begun > patience_s:
            return behind
        await renew()
        await asyncio.sleep(LOOK_S)
