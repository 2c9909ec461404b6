"""Outcomes in Redis: a sorted set per agent_type, by when they were said by Redis' clock, which is one.

An outcome said twice is one member, so nothing is counted twice; what is changed (a reviewer differs from a
user) is a second one for the same lookup, and the later holds.
"""

import hmac
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from service.cache.decided import OUTCOMES as OUTCOME_NAMES
from service.cache.digests import DigestKey, TenantKeys
from service.cache.outcomes import Outcome, Said
from service.cache.ports import Budget
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.telemetry import RECORDS_REFUSED

VERSION = b"\x01"
OUTCOMES = b"outcomes\0" + VERSION
"""Before the body under the MAC."""
MAC_BYTES = 16
"""Of the MAC's 32: members are many and short."""
MOST = 20_000
"""Outcomes that are kept of an agent_type; each takes some 200 bytes."""
KEPT_MS = 90 * 86_400_000
TRIP_S = 2.0

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Outcome)


class RedisOutcomes:
    """Keeps and reads them."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, most: int = MOST) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._most = most

    async def put(self, keys: TenantKeys, agent_type: str, one: Outcome) -> None:
        """Keep an outcome, in place of its contrary; one that is kept already stays as it is.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        seconds, microseconds = await self._redis.call("TIME", timeout_s=TRIP_S)
        now, contrary = int(seconds) * 1000 + int(microseconds) / 1000, replace(one, correct=not one.correct)
        name = self._name(keys, keys.current, agent_type, one.model)
        commands: list[Command] = [
            ("ZREM", self._name(keys, key, agent_type, one.model), sealed(contrary, key)) for key in keys.keys
        ]
        commands += [
            ("ZADD", name, "NX", now, sealed(one, keys.current)),
            ("ZREMRANGEBYSCORE", name, "-inf", now - KEPT_MS),
            ("ZREMRANGEBYRANK", name, 0, -(self._most + 1)),
            ("PEXPIRE", name, KEPT_MS),
        ]
        await self._redis.values(commands, Budget(TRIP_S))

    async def are_kept(self, keys: TenantKeys, agent_type: str, some: Sequence[Outcome]) -> list[bool]:
        """Whether just that was said, of each; all are of one embedding model.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        commands: list[Command] = [
            ("ZMSCORE", self._name(keys, key, agent_type, some[0].model), *(sealed(one, key) for one in some))
            for key in keys.keys
        ]
        replies = await self._redis.values(commands, Budget(TRIP_S))
        return [any(score is not None for score in scores) for scores in zip(*replies, strict=True)]

    async def read(self, keys: TenantKeys, agent_type: str, model: int, since: int = 0) -> list[Said]:
        """What was said since `since`, ms since 1970, in order; of a lookup perhaps more than once.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        commands = [
            ("ZRANGE", self._name(keys, key, agent_type, model), since, "+inf", "BYSCORE", "WITHSCORES")
            for key in keys.keys
        ]
        replies = await self._redis.values(commands, Budget(TRIP_S))
        found = [
            Said(int(float(at)), one)
            for key, flat in zip(keys.keys, replies, strict=True)
            for member, at in zip(flat[::2], flat[1::2], strict=True)
            if (one := unsealed(member, key)) is not None
        ]
        return sorted(found, key=lambda one: one.order)

    def _name(self, keys: TenantKeys, key: DigestKey, agent_type: str, model: int) -> str:
        partition = self._responses.partition(keys)
        return self._keys.outcomes(partition, key.tenant, key.agent_type(agent_type), model)


def sealed(one: Outcome, key: DigestKey) -> bytes:
    """The bytes kept in Redis: version, MAC, body."""
    body = _encoder.encode(one)
    return VERSION + key.mac(OUTCOMES, body)[:MAC_BYTES] + body


def unsealed(blob: bytes, key: DigestKey) -> Outcome | None:
    """What we wrote; None where it was altered, or another version did."""
    mac, body = blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]
    if blob[:1] != VERSION or not hmac.compare_digest(mac, key.mac(OUTCOMES, body)[:MAC_BYTES]):
        RECORDS_REFUSED.labels("mac").inc()
        return None
    try:
        one = _decoder.decode(body)
    except msgspec.DecodeError:
        one = None
    if one is None or not 0 <= one.at < len(OUTCOME_NAMES):  # a newer version may know more
        RECORDS_REFUSED.labels("form").inc()
        return None
    return one
