"""The log of invalidations: what refuses a store whose lookup was made before one that matches it.

Numbers grow with every invalidation of the partition and follow the clock, so that they go on growing where
Redis lost some. A lookup reads the last one; what stands in the log above that came after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from service.cache.digests import DigestKey, TenantKeys
from service.cache.invalidation import Newer, Predicate
from service.cache.ports import Budget
from service.cache.tickets import Ticket
from service.errors import StoreUnavailableError
from service.store.client import Command, RedisClient, outcome, refusal
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text

KEPT = 1000
"""The last ones of a tenant; a store that so many were newer than is refused. They have no end: evicted, they
would let late stores pass."""
NAME = "invalidation"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Predicate).decode


class RedisInvalidations:
    """Writes the log, and reads it for stores."""

    def __init__(self, redis: RedisClient, keys: Keys, partition: Callable[[TenantKeys], int]) -> None:
        self._redis = redis
        self._keys = keys
        self._partition = partition

    async def note(self, keys: TenantKeys, predicates: Sequence[Predicate], now: int, budget: Budget) -> None:
        """Refuse what is still on its way from lookups made before this moment; `now` in ms since 1970.

        INCRBY gives each invalidation a number of its own, greater than what any lookup before it read. The
        score is guessed beforehand so that both change at once; where another was faster, it is corrected.

        Raises:
            StoreUnavailableError: Redis did not answer in time, or has no room.
        """
        partition = self._partition(keys)
        counter = self._keys.invalidations_number(partition)
        log = self._keys.invalidations(partition, keys.current.tenant)
        members = [seal_text(_encode(one).decode(), NAME, keys.current) for one in predicates]
        replies = await self._redis.run([("SET", counter, now, "NX"), ("GET", counter)], budget)
        error = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if error is not None:
            raise refusal(error)
        last: bytes | None = replies[1]
        if last is None or not last.isdigit():
            raise StoreUnavailableError(f"{counter} holds no number: delete it")
        step = max(1, now - int(last))
        guessed = int(last) + step
        number = await self._write(("INCRBY", counter, step), log, guessed, members, budget)
        if number != guessed:
            await self._write(("GET", counter), log, number, members, budget)

    async def _write(
        self, counted: Command, log: str, score: int, members: Sequence[bytes], budget: Budget
    ) -> int:
        """The counter's reply."""
        scored = [part for member in members for part in (score, member)]
        replies = await self._redis.run(
            [
                ("MULTI",),
                counted,
                ("ZADD", log, "GT", *scored),
                ("ZREMRANGEBYRANK", log, 0, -KEPT - 1),
                ("EXEC",),
            ],
            budget,
        )
        error = outcome(replies)
        if error is not None:
            raise error
        return int(replies[-1][0])

    def since_commands(self, keys: TenantKeys, lookup: Ticket) -> list[Command]:
        """Ask what was invalidated since a lookup, under each secret; for a pipeline that is sent anyway."""
        logs = [self._keys.invalidations(self._partition(keys), key.tenant) for key in keys.keys]
        since = ("BYSCORE", "LIMIT", 0, KEPT)
        return [("ZRANGE", log, f"({lookup.number}", "+inf", *since) for log in logs]

    def newer(self, keys: TenantKeys, replies: Sequence[Any]) -> Newer:
        """What those commands' replies say. What can't be read may have meant anything."""
        told = [_newer(reply, key) for key, reply in zip(keys.keys, replies, strict=True)]
        predicates = [predicate for one in told for predicate in one.predicates]
        return Newer(predicates, unknown=any(one.unknown for one in told))


def _newer(reply: Any, key: DigestKey) -> Newer:
    if isinstance(reply, Exception):
        return Newer([], unknown=True)
    texts = [unseal_text(member, NAME, key) for member in reply]
    try:
        predicates = [_decode(text) for text in texts if text is not None]
    except msgspec.DecodeError:  # written by a later version
        return Newer([], unknown=True)
    return Newer(predicates, unknown=len(reply) >= KEPT or len(predicates) < len(texts))
