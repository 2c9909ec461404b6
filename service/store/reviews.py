"""Hits that wait for somebody's verdict: sampled, the least certain first.

The texts of each lie in an item of their own; the queue and the list of all items have their names. An item
stays behind the verdict, so that it can be changed, until its end, or until the entry is deleted.
"""

import random
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

import msgspec

from service.cache.decided import Review
from service.cache.digests import DigestKey, TenantKeys
from service.cache.learning.strata import STRATA
from service.cache.ports import Budget, Clock
from service.store.client import Command, RedisClient
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses

ANYWHERE = 0.5
"""Share of the hits that stand in the queue by chance alone."""
MOST = 2000
"""Hits of a tenant that wait: beyond it the most certain go."""
KEPT_MS = 30 * 86_400_000
SLACK_MS = 86_400_000
"""An item stays in the list a little longer than it must: processes' clocks differ."""
TRIP_S = 2.0
PAGE = 500


class Name(NamedTuple):
    """Of an item, as the queue and the list have it."""

    agent_type: str  # digest
    entry_id: str
    lookup_id: str

    @classmethod
    def of(cls, one: Review, key: DigestKey) -> Self:
        """A review's."""
        return cls(key.agent_type(one.agent_type), (one.decided.entry_id or b"").hex(), one.id)

    @classmethod
    def read(cls, member: bytes) -> Self | None:
        """None: it is none of ours."""
        parts = member.decode("ascii", "replace").split(":")
        return cls(*parts) if len(parts) == len(cls._fields) else None

    @property
    def member(self) -> str:
        """As it is kept."""
        return ":".join(self)


class Waiting(NamedTuple):
    """A review and where it stands."""

    review: Review
    rank: float


class Place(NamedTuple):
    """Where something stands in the queue that one of the secrets names."""

    rank: float
    name: Name
    key: DigestKey


class RedisReviews:
    """The queue."""

    def __init__(
        self, redis: RedisClient, keys: Keys, responses: RedisResponses, clock: Clock, most: int = MOST
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._clock = clock
        self._most = most

    async def put(self, keys: TenantKeys, some: Sequence[Review]) -> None:
        """Queue them; within a stratum in no order, so that whoever judges the first ones judges by chance.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no room.
        """
        if not some:
            return
        key, now = keys.current, self._clock()
        queue, listed = self._names(keys, key)
        commands: list[Command] = []
        for one in some:
            name = Name.of(one, key)
            commands.append(("SET", self._item(keys, key, one.id), _sealed(one, key), "PX", KEPT_MS))
            commands.append(("ZADD", queue, "LT", _rank(one), name.member))
            commands.append(("ZADD", listed, now + KEPT_MS, name.member))
        commands.append(("ZREMRANGEBYSCORE", listed, "-inf", now - SLACK_MS))
        commands += [("PEXPIRE", queue, KEPT_MS), ("PEXPIRE", listed, KEPT_MS)]
        commands.append(("ZRANGE", queue, self._most, -1))
        *_, cut = await self._redis.values(commands, Budget(TRIP_S))
        await self._drop(keys, key, cut)
        for older in keys.keys[1:]:  # a complaint about what was queued under the previous secret
            await self._drop(keys, older, [Name.of(one, older).member.encode() for one in some])

    async def pending(
        self, keys: TenantKeys, limit: int, agent_type: str | None = None, after: float = -1.0
    ) -> tuple[list[Waiting], int]:
        """What waits, the least certain first, behind the rank `after`; and how many wait in all.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        places = await self._places(keys, agent_type)
        found: list[Waiting] = []
        rest = [one for one in places if one.rank > after]
        for at in range(0, len(rest), limit):
            found += await self._read(keys, rest[at : at + limit])
            if len(found) >= limit:
                break
        return found[:limit], len(places)

    async def _places(self, keys: TenantKeys, agent_type: str | None) -> list[Place]:
        """The whole queue, of all agent_types or of one."""
        commands: list[Command] = [
            ("ZRANGE", self._names(keys, key)[0], 0, -1, "WITHSCORES") for key in keys.keys
        ]
        replies = await self._redis.values(commands, Budget(TRIP_S))
        found = [
            Place(float(rank), name, key)
            for key, flat in zip(keys.keys, replies, strict=True)
            for member, rank in zip(flat[::2], flat[1::2], strict=True)
            if (name := Name.read(member)) is not None
            and (agent_type is None or name.agent_type == key.agent_type(agent_type))
        ]
        return sorted(found, key=lambda one: one.rank)

    async def _read(self, keys: TenantKeys, places: Sequence[Place]) -> list[Waiting]:
        """Those whose texts are there; the others wait no longer."""
        names = [self._item(keys, one.key, one.name.lookup_id) for one in places]
        blobs = await self._redis.call("MGET", *names, timeout_s=TRIP_S)
        found, gone = list[Waiting](), list[Command]()
        for one, blob in zip(places, blobs, strict=True):
            review = None if blob is None else _unsealed(blob, one.name.lookup_id, one.key)
            if review is not None:
                found.append(Waiting(review, one.rank))
            elif blob is None:
                gone.append(("ZREM", self._names(keys, one.key)[0], one.name.member))
        if gone:
            await self._redis.values(gone, Budget(TRIP_S))
        return found

    async def one(self, keys: TenantKeys, lookup_id: str) -> Review | None:
        """A review by its id, pending or judged already.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        blobs = await self._redis.call("MGET", *(self._item(keys, key, lookup_id) for key in keys.keys))
        opened = (
            _unsealed(blob, lookup_id, key)
            for key, blob in zip(keys.keys, blobs, strict=True)
            if blob is not None
        )
        return next((one for one in opened if one is not None), None)

    async def done(self, keys: TenantKeys, one: Review) -> None:
        """It waits no longer.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        commands: list[Command] = [
            ("ZREM", self._names(keys, key)[0], Name.of(one, key).member) for key in keys.keys
        ]
        await self._redis.values(commands, Budget(TRIP_S))

    async def entries(self, keys: TenantKeys) -> set[str]:
        """Ids of entries of which texts lie here.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return {name.entry_id for _, name, _ in await self._listed(keys)}

    async def forget(self, keys: TenantKeys, entry_ids: Collection[str]) -> None:
        """The texts of these entries.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        for key, name, member in await self._listed(keys):
            if name.entry_id in entry_ids:
                await self._drop(keys, key, [member])

    async def clear(self, keys: TenantKeys) -> None:
        """All texts of a tenant, judged ones as well.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        for key in keys.keys:
            _, listed = self._names(keys, key)
            while page := await self._redis.call("ZRANGE", listed, 0, PAGE - 1):
                await self._drop(keys, key, page)

    async def _listed(self, keys: TenantKeys) -> list[tuple[DigestKey, Name, bytes]]:
        """All items, with whose secret names them."""
        commands: list[Command] = [("ZRANGE", self._names(keys, key)[1], 0, -1) for key in keys.keys]
        replies = await self._redis.values(commands, Budget(TRIP_S))
        return [
            (key, name, member)
            for key, members in zip(keys.keys, replies, strict=True)
            for member in members
            if (name := Name.read(member)) is not None
        ]

    async def _drop(self, keys: TenantKeys, key: DigestKey, members: Sequence[bytes]) -> None:
        """Items, and their places."""
        names = [name for one in members if (name := Name.read(one)) is not None]
        commands: list[Command] = [("ZREM", name, *members) for name in self._names(keys, key) if members]
        if names:
            commands.insert(0, ("UNLINK", *(self._item(keys, key, one.lookup_id) for one in names)))
        if commands:
            await self._redis.values(commands, Budget(TRIP_S))

    def _names(self, keys: TenantKeys, key: DigestKey) -> tuple[str, str]:
        """The queue, and the list of all items."""
        partition = self._responses.partition(keys)
        return self._keys.reviews(partition, key.tenant), self._keys.reviews_list(partition, key.tenant)

    def _item(self, keys: TenantKeys, key: DigestKey, lookup_id: str) -> str:
        return self._keys.review(self._responses.partition(keys), key.tenant, lookup_id)


def _rank(one: Review) -> float:
    """Complaints, then the least certain; half of the hits stand anywhere: it says more of the sure ones."""
    chance, anywhere = random.random(), random.random() < ANYWHERE  # noqa: S311 - no secret
    if one.note is not None:
        return chance - 1
    return STRATA * chance if anywhere else one.decided.stratum + chance


def _sealed(one: Review, key: DigestKey) -> bytes:
    return seal_text(msgspec.json.encode(one).decode(), f"review {one.id}", key)


def _unsealed(blob: bytes, lookup_id: str, key: DigestKey) -> Review | None:
    text = unseal_text(blob, f"review {lookup_id}", key)
    try:
        return None if text is None else msgspec.json.decode(text, type=Review)
    except msgspec.DecodeError:  # of another version
        return None
