"""Where the thresholds of mode `adaptive` stand: in Redis a hash for each, with its states by their numbers.

The next number is written only if nobody has, so two processes that start from one state can't both go on.
"""

import msgspec

from service.cache.digests import DigestKey, TenantKeys
from service.cache.learning.adaptive import State
from service.cache.ports import Budget
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses

TRIP_S = 2.0
GONE = 8
"""Numbers before the one before last under which a state may still lie."""


class Thresholds:
    """Reads and writes them."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    async def read(self, keys: TenantKeys, agent_type: str, model: int) -> State | None:
        """The one of the greatest number; None: there is none that can be read.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        for key in keys.keys:
            name = self._name(keys, key, agent_type, model)
            there = await self._redis.call("HGETALL", name)
            opened = [_opened(name, *each, key) for each in zip(there[::2], there[1::2], strict=True)]
            found = [state for state in opened if state is not None]
            if found:
                return max(found, key=lambda state: state.number)
        return None

    async def write(self, keys: TenantKeys, agent_type: str, model: int, state: State) -> bool:
        """Keep what follows the one before; False: another process has kept something else.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        key, at = keys.current, state.number
        name = self._name(keys, key, agent_type, model)
        text = msgspec.json.encode(state).decode()
        commands: list[Command] = [
            ("HSETNX", name, at, seal_text(text, _context(name, at), key)),
            ("HDEL", name, *range(at - 1 - GONE, at - 1)),
        ]
        is_new, _ = await self._redis.values(commands, Budget(TRIP_S))
        return bool(is_new)

    def _name(self, keys: TenantKeys, key: DigestKey, agent_type: str, model: int) -> str:
        partition = self._responses.partition(keys)
        return self._keys.threshold(partition, key.tenant, key.agent_type(agent_type), model)


def _opened(name: str, field: bytes, blob: bytes, key: DigestKey) -> State | None:
    """None: it isn't ours, or another version's."""
    number = field.decode("ascii", "replace")
    text = unseal_text(blob, _context(name, number), key)
    try:
        return None if text is None else msgspec.json.decode(text, type=State)
    except msgspec.DecodeError:
        return None


def _context(name: str, number: int | str) -> str:
    """Under which a state is sealed."""
    return f"{name} {number}"
