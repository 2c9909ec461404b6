"""Fresh answers that wait to be compared, in Redis: who dies leaves them to the others.

A sorted set per partition, by when somebody was last at work on them. It holds no answers but those that were
replaced, which nothing else has.
"""

import hmac

import msgspec
from msgspec import Struct

from service.cache.digests import DigestKey, Keyring
from service.cache.ports import Budget, Clock
from service.errors import StoreUnavailableError
from service.model import Comparison, Tenant
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.telemetry import RECORDS_REFUSED

VERSION = b"\x01"
PENDING = b"pending\0" + VERSION
"""Before the body under the MAC."""
MAC_BYTES = 16
MOST = 4000
"""That a partition keeps, and this process if Redis is away; the longest unattended go."""
LONGEST = 32_768
"""Bytes of a replaced answer; beyond it only this process compares it."""
KEPT_MS = 3_600_000
LEFT_MS = 20_000
"""So long nobody was at work on what is taken up."""
RENEW_MS = 5_000
AT_ONCE = 64
TRIP_S = 2.0

_encoder = msgspec.msgpack.Encoder()


class Note(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A fresh answer. Fields are kept by position: append only, each with a default."""

    tenant: Tenant
    lookup_id: str
    entry_ids: list[str]  # its own under each secret, the current one's first
    stored_at: int  # ms since 1970
    answer: int  # `answer_of`
    how: Comparison
    hidden: bool = False  # it answers its own words until the comparison
    vector: bytes | None = None  # the caller's, little-endian float32, where it is hidden
    before: bytes | None = None  # the answer that it replaced


_decoder = msgspec.msgpack.Decoder(Note)


class Pending:
    """What this process is at work on, and what others left."""

    def __init__(
        self, redis: RedisClient, keys: Keys, keyring: Keyring, responses: RedisResponses, clock: Clock
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._keyring = keyring
        self._responses = responses
        self._clock = clock
        self._held: dict[bytes, int] = {}  # this process is at work on them; with their partitions
        self._unwritten: dict[bytes, int] = {}
        self._over: dict[bytes, int] = {}  # to be removed
        self._renewed_at = 0

    def add(self, note: Note) -> bytes:
        """It is to be compared by this process; what it is named by."""
        keys = self._keyring.of(note.tenant)
        name, partition = sealed(note, keys.current), self._responses.partition(keys)
        self._held[name] = partition
        if len(note.before or b"") <= LONGEST:
            self._unwritten[name] = partition
        return name

    def done(self, name: bytes) -> None:
        """It waits no longer."""
        partition = self._held.pop(name, None)
        if self._unwritten.pop(name, None) is None and partition is not None:
            self._over[name] = partition

    def let_go(self, name: bytes) -> None:
        """It failed: anybody may take it up a little later."""
        self._held.pop(name, None)

    async def flush(self) -> None:
        """Write what is new, and say what this process is still at work on.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room: it is tried again next time.
        """
        now = self._clock()
        new, over = self._unwritten, self._over
        due = now - self._renewed_at >= RENEW_MS
        held = {name: at for name, at in self._held.items() if name not in new} if due else {}
        commands: list[Command] = [("ZADD", self._queue(at), now, name) for name, at in new.items()]
        commands += [("ZADD", self._queue(at), "XX", now, name) for name, at in held.items()]
        commands += [("ZREM", self._queue(at), name) for name, at in over.items()]
        for partition in {*new.values()}:
            commands.append(("ZREMRANGEBYRANK", self._queue(partition), 0, -(MOST + 1)))
            commands.append(("PEXPIRE", self._queue(partition), KEPT_MS))
        if not commands:
            return
        self._unwritten, self._over = {}, {}
        try:
            await self._redis.values(commands, Budget(TRIP_S))
        except StoreUnavailableError:
            self._unwritten = _last(new | self._unwritten)
            self._over = _last(over | self._over)
            raise
        if due:
            self._renewed_at = now

    async def left(self, most: int) -> list[tuple[bytes, Note]]:
        """What nobody was at work on for a while, each with its name; from now on this process is.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        found: list[tuple[bytes, Note]] = []
        for partition in range(self._responses.partitions):
            queue, now = self._queue(partition), self._clock()
            page = ("BYSCORE", "LIMIT", 0, min(AT_ONCE, most - len(found)))
            (names,) = await self._redis.values([("ZRANGE", queue, "-inf", now - LEFT_MS, *page)])
            for name in names:
                note = unsealed(name, self._keyring)
                self._held[name] = partition
                if note is None:
                    self.done(name)
                else:
                    found.append((name, note))
            await self._redis.values([("ZADD", queue, "XX", now, name) for name in names])
        return found

    def _queue(self, partition: int) -> str:
        return self._keys.pending_comparisons(partition)


def sealed(note: Note, key: DigestKey) -> bytes:
    """The bytes kept in Redis: version, MAC, body."""
    body = _encoder.encode(note)
    return VERSION + key.mac(PENDING, body)[:MAC_BYTES] + body


def unsealed(blob: bytes, keyring: Keyring) -> Note | None:
    """What we wrote; None where it was altered, or another version did."""
    mac, body = blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]
    try:
        note = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        RECORDS_REFUSED.labels("form").inc()
        return None
    macs = [key.mac(PENDING, body)[:MAC_BYTES] for key in keyring.of(note.tenant).keys]
    if blob[:1] != VERSION or not any(hmac.compare_digest(mac, one) for one in macs):
        RECORDS_REFUSED.labels("mac").inc()
        return None
    return note


def _last(some: dict[bytes, int]) -> dict[bytes, int]:
    return dict(list(some.items())[-MOST:])
