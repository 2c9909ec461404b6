"""Decisions in Redis: a hash per process and eight seconds, of what was flushed then.

A lookup id says when it was issued and by which process, so it leads to the hash; nothing is indexed. A hash
goes when the last of its decisions has ended, or when the process has written too many since.
"""

import asyncio
import hmac
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import msgspec

from service.cache.decided import Decided
from service.cache.decisions import Decisions, Gathered
from service.cache.digests import MAC_BYTES, DigestKey, TenantKeys
from service.cache.ports import Budget, Clock
from service.cache.tickets import is_own, process_of, ticket
from service.errors import StoreUnavailableError
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.telemetry import DECISIONS_DROPPED, RECORDS_REFUSED

VERSION = b"\x01"
DECISIONS = b"decisions\0" + VERSION
"""Before the body under the MAC."""
MOST = 200_000
"""Decisions of a process that Redis keeps: of all tenants some 12 MB."""
TRIP_S = 2.0
ID_BYTES = 16
WINDOW_MS = 8192
COMING_MS, AGAIN_S = 1500, 0.1
"""How long after a lookup another process may still be about to write it; how often that is looked for."""
SLACK_MS = 3_600_000
"""A hash stays in the list a little longer than it must: processes' clocks differ."""
PAGE = 50
"""Hashes that are read at once."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[str, list[Decided]])


class Written(NamedTuple):
    """A hash that this process wrote into."""

    key: str
    listed: str  # where it is listed
    name: str
    decisions: int


class Found(NamedTuple):
    """A decision, and whose."""

    agent_type: str
    decided: Decided


class RedisDecisions:
    """Takes what `Decisions` gathers to Redis, and finds it."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        responses: RedisResponses,
        gathering: Decisions,
        *,
        clock: Clock,
        most: int = MOST,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._gathering = gathering
        self._clock = clock
        self._most = most
        self._waiting: list[Gathered] = []
        self._written: deque[Written] = deque()
        self._total = 0
        self._lock = asyncio.Lock()

    async def flush(self) -> None:
        """Write what has gathered; what Redis doesn't take is tried once more, and then dropped.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        async with self._lock:
            again, self._waiting = self._waiting, self._gathering.drain()
            written: list[Written] = []
            commands = [it for one in (*again, *self._waiting) for it in self._put(one, written)]
            if not commands:
                return
            try:
                await self._redis.values(commands, Budget(TRIP_S))
            except StoreUnavailableError:
                DECISIONS_DROPPED.inc(sum(len(one.decided) for one in again))
                raise
            self._waiting = []
            self._written.extend(written)
            self._total += sum(one.decisions for one in written)
            await self._bound()
        DECISIONS_DROPPED.inc(self._gathering.take_dropped())

    async def find(self, keys: TenantKeys, lookup_id: str) -> Found | None:
        """The decision of that id, if it is a tenant's and still kept; another process' is waited for.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        wanted = raw_id(lookup_id)
        if wanted is None:
            return None
        while True:
            found = await self._found(keys, lookup_id, wanted)
            age_ms = self._clock() - ticket(lookup_id).at
            if found is not None or is_own(lookup_id) or not 0 <= age_ms <= COMING_MS:
                return found
            await asyncio.sleep(AGAIN_S)

    async def _found(self, keys: TenantKeys, lookup_id: str, wanted: bytes) -> Found | None:
        waiting = self._gathering.of(keys, wanted, self._waiting)
        if waiting is not None:
            return Found(*waiting)
        partition, name = self._responses.partition(keys), bucket_of(lookup_id)
        places = [(key, self._keys.decisions(partition, key.tenant, name)) for key in keys.keys]
        replies = await self._redis.values([("HGETALL", place) for _, place in places], Budget(TRIP_S))
        for (key, _), chunks in zip(places, replies, strict=True):
            for chunk in chunks[1::2]:
                each = unsealed(chunk, name, key)
                found = next((one for one in each if one.decided.lookup_id == wanted), None)
                if found is not None:
                    ended = ticket(lookup_id).at + found.decided.seconds * 1000 <= self._clock()
                    return None if ended else found
        return None

    async def all(self, keys: TenantKeys) -> AsyncIterator[Found]:
        """A tenant's decisions that are kept, those first that end first, to some seconds.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition = self._responses.partition(keys)
        for key in keys.keys:
            listed = self._keys.decisions_list(partition, key.tenant)
            members = await self._redis.call("ZRANGE", listed, 0, -1, timeout_s=TRIP_S)
            names = [one.decode("ascii", "replace") for one in members]
            for at in range(0, len(names), PAGE):
                page = names[at : at + PAGE]
                commands: list[Command] = [
                    ("HGETALL", self._keys.decisions(partition, key.tenant, name)) for name in page
                ]
                replies = await self._redis.values(commands, Budget(TRIP_S))
                for name, flat in zip(page, replies, strict=True):
                    for chunk in flat[1::2]:
                        for one in unsealed(chunk, name, key):
                            yield one

    def _put(self, one: Gathered, written: list[Written]) -> Iterator[Command]:
        """Into the hashes that it goes to; notes which."""
        key, partition = one.keys.current, self._responses.partition(one.keys)
        listed = self._keys.decisions_list(partition, key.tenant)
        for name, some in grouped(one.decided).items():
            place = self._keys.decisions(partition, key.tenant, name)
            end = window_of(name) + WINDOW_MS + 1000 * max(it.seconds for it in some)
            first = some[0].lookup_id  # named by it, what is written again isn't there twice
            yield ("HSET", place, first, sealed(one.agent_type, some, name, key))
            yield ("PEXPIREAT", place, end, "NX")
            yield ("PEXPIREAT", place, end, "GT")
            yield ("ZADD", listed, "GT", end, name)
            yield ("ZREMRANGEBYSCORE", listed, "-inf", self._clock() - SLACK_MS)
            yield ("PEXPIREAT", listed, end + SLACK_MS, "NX")
            yield ("PEXPIREAT", listed, end + SLACK_MS, "GT")
            written.append(Written(place, listed, name, len(some)))

    async def _bound(self) -> None:
        """Away with the oldest of ours where there are too many."""
        gone: list[Command] = []
        while self._total > self._most and len(self._written) > 1:
            one = self._written.popleft()
            self._total -= one.decisions
            gone += [("UNLINK", one.key), ("ZREM", one.listed, one.name)]
        if gone:
            await self._redis.values(gone, Budget(TRIP_S))


def raw_id(lookup_id: str) -> bytes | None:
    """Its 16 bytes; None: it isn't one."""
    try:
        raw = bytes.fromhex(lookup_id)
    except ValueError:
        return None
    return raw if len(raw) == ID_BYTES else None


def bucket_of(lookup_id: str) -> str:
    """The hash that a lookup's decision is in: its process and time."""
    return f"{process_of(lookup_id):04x}:{ticket(lookup_id).at // WINDOW_MS:x}"


def window_of(bucket: str) -> int:
    """When a bucket begins, ms since 1970."""
    return int(bucket.rpartition(":")[2], 16) * WINDOW_MS


def grouped(some: Sequence[Decided]) -> dict[str, list[Decided]]:
    """By bucket."""
    found: dict[str, list[Decided]] = defaultdict(list)
    for one in some:
        found[bucket_of(one.lookup_id.hex())].append(one)
    return found


def sealed(agent_type: str, some: Sequence[Decided], name: str, key: DigestKey) -> bytes:
    """The bytes kept in Redis: version, MAC, body."""
    body = _encoder.encode((agent_type, some))
    return VERSION + key.mac(DECISIONS, name.encode(), body) + body


def unsealed(blob: bytes, name: str, key: DigestKey) -> list[Found]:
    """What we wrote; nothing where it was altered, or another version did."""
    mac, body = blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]
    if blob[:1] != VERSION or not hmac.compare_digest(mac, key.mac(DECISIONS, name.encode(), body)):
        RECORDS_REFUSED.labels("mac").inc()
        return []
    try:
        agent_type, some = _decoder.decode(body)
    except msgspec.DecodeError:
        RECORDS_REFUSED.labels("form").inc()
        return []
    return [Found(agent_type, one) for one in some]
