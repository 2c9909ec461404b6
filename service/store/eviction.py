"""Whether this Redis takes keys away when it is full.

It takes them one by one: a record may outlive its index document, by which alone an invalidation finds it.
Such a record must not be served.
"""

from collections.abc import Sequence
from typing import Any

from service.store.client import Command, RedisClient, RedisRefusedError


class Eviction:
    """What is known of it; until it was asked, the worse."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self.possible = True

    async def look(self) -> None:
        """Ask again: an operator may have changed it.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        try:
            told = (await self._redis.call("INFO", "memory")).decode().splitlines()
        except RedisRefusedError:  # we may not ask
            self.possible = True
            return
        self.possible = "maxmemory:0" not in told and "maxmemory_policy:noeviction" not in told

    def asked(self, documents: Sequence[str]) -> list[Command]:
        """Commands that ask for each document, where one may be gone; for a pipeline that is sent anyway."""
        return [("EXISTS", one) for one in documents] if self.possible else []


def there(replies: Sequence[Any], count: int) -> list[bool]:
    """What `Eviction.asked`'s replies say of that many documents."""
    return [reply == 1 for reply in replies] if replies else [True] * count
