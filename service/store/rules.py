"""Rules for events: in Redis only, so that every process has the same; sealed like records.

They have no end: a rule that went by itself would leave wrong answers where nobody looks.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from service.cache.digests import DigestKey, TenantKeys
from service.cache.ports import Budget
from service.cache.rules import Rule
from service.errors import InvalidInputError, StoreUnavailableError
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses
from service.telemetry import RECORDS_REFUSED

MOST = 1000  # of a tenant
READ_S = 2.0
"""All rules of a tenant are 8 MB at most."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rule).decode


class RedisRules:
    """The rules of all tenants."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    async def all(self, keys: TenantKeys, *, complete: bool = False) -> list[Rule]:
        """A tenant's, by name. One that was written under the previous secret counts unless set anew.

        Raises:
            StoreUnavailableError: Redis does not answer; with `complete`, one of them can't be read.
        """
        commands: list[Command] = [("HGETALL", self._key(keys, key)) for key in keys.keys]
        found: dict[str, Rule] = {}
        older: list[Rule] = []
        for key, flat in zip(keys.keys, await self._run(commands), strict=True):
            for field, blob in zip(flat[::2], flat[1::2], strict=True):
                rule = _opened(field, blob, key)
                if rule is not None:
                    if found.setdefault(rule.name, rule) is rule and key is not keys.current:
                        older.append(rule)
                elif complete:
                    raise StoreUnavailableError(
                        "a rule can't be read: PUT the rules that are not listed again"
                    )
        with contextlib.suppress(StoreUnavailableError):  # else with the next look, before that secret goes
            await self._write(keys, older)
        return sorted(found.values(), key=lambda rule: rule.name)

    async def put(self, keys: TenantKeys, rule: Rule) -> None:
        """Set a checked rule.

        Raises:
            InvalidInputError: there are too many.
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        others = {one.name for one in await self.all(keys)} - {rule.name}
        if len(others) >= MOST:
            raise InvalidInputError("name", f"there are {MOST} rules already; delete one")
        await self._write(keys, [rule])

    async def _write(self, keys: TenantKeys, rules: Sequence[Rule]) -> None:
        """Under the current secret."""
        commands: list[Command] = []
        for rule in rules:
            field = _field(keys.current, rule.name)
            sealed = seal_text(_encode(rule).decode(), _sealed_as(field), keys.current)
            commands.append(("HSET", self._key(keys, keys.current), field, sealed))
        await self._run(commands)

    async def delete(self, keys: TenantKeys, name: str) -> bool:
        """Whether there was one.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        replies = await self._run([("HDEL", self._key(keys, key), _field(key, name)) for key in keys.keys])
        return any(replies)

    def _key(self, keys: TenantKeys, key: DigestKey) -> str:
        return self._keys.invalidation_rules(self._responses.partition(keys), key.tenant)

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        return await self._redis.values(commands, Budget(READ_S))


def _opened(field: bytes, blob: bytes, key: DigestKey) -> Rule | None:
    """A rule, if we sealed it and this version knows what it says."""
    text = unseal_text(blob, _sealed_as(field), key)
    try:
        return None if text is None else _decode(text)
    except msgspec.DecodeError:
        RECORDS_REFUSED.labels("form").inc()
        return None


def _field(key: DigestKey, name: str) -> bytes:
    return key.digest("rule", name.encode()).encode()


def _sealed_as(field: bytes) -> str:
    return "rule:" + field.decode("ascii", "replace")
