"""One migrator at a time: a lease that is renewed, whose token fences off who lost it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

from service.errors import StoreFullError, StoreUnavailableError
from service.migrate.target import BusyError, MigrationError, Target
from service.store.client import RedisClient, RedisRefusedError
from service.store.functions import RENEW, SETTLE, TAKE

LEASE_MS = 30_000
RENEW_S = 5.0
SURE_S = 10.0
"""So much of it must be left before something is done that its token doesn't fence off."""


class Lease:
    """Ours, as long as it is renewed."""

    def __init__(self, target: Target, token: str) -> None:
        self._redis, self._key = target.redis, target.keys.meta("migrations:lease")
        self.token = token
        self._ends = monotonic() + LEASE_MS / 1000

    async def renew(self) -> None:
        """See that it goes on; sends nothing while most of it is left.

        Raises:
            BusyError: it went to another.
            StoreUnavailableError: Redis does not answer.
        """
        if self._ends - monotonic() > LEASE_MS / 1000 - RENEW_S:
            return
        begun = monotonic()
        try:
            held = await self._redis.call("FCALL", RENEW, 1, self._key, self.token, LEASE_MS)
        except RedisRefusedError as error:
            raise MigrationError(f"the lease can't be renewed: {error}") from error
        if not held:
            raise BusyError("the lease went to another migrator: it goes on from here")
        self._ends = begun + LEASE_MS / 1000

    async def sure(self) -> None:
        """Before what can't be fenced off.

        Raises:
            BusyError: it went to another.
        """
        await self.renew()
        if self._ends - monotonic() < SURE_S:
            raise BusyError("the lease is about to end")

    async def settle(self, key: str, value: bytes) -> None:
        """Set a key while the lease is ours.

        Raises:
            BusyError: it went to another.
            StoreUnavailableError: Redis does not answer.
        """
        if not await self._redis.call("FCALL", SETTLE, 2, self._key, key, self.token, value):
            raise BusyError("the lease went to another migrator: it goes on from here")


async def _taken(redis: RedisClient, key: str, token: str) -> bool:
    try:
        return bool(await redis.call("SET", key, token, "NX", "PX", LEASE_MS))
    except StoreFullError:
        return bool(await redis.call("FCALL", TAKE, 1, key, token, LEASE_MS))


@asynccontextmanager
async def leased(target: Target) -> AsyncIterator[Lease]:
    """The lease.

    Raises:
        BusyError: another has it; says for how long at most.
    """
    key, token = target.keys.meta("migrations:lease"), secrets.token_hex(8)
    if not await _taken(target.redis, key, token):
        left = await target.redis.call("PTTL", key)
        raise BusyError(f"another migrator is at work; its lease ends in {max(0, left) / 1000:.0f} s at most")
    try:
        yield Lease(target, token)
    finally:
        with suppress(StoreUnavailableError, asyncio.CancelledError):
            if await target.redis.call("GET", key) == token.encode():
                await target.redis.call("DEL", key)
