"""What was counted: into Redis, each thing once, and back.

A cell (a tenant's agent_type) is a sorted set: what is counted → how often. New counts are first staged under
a name that nobody has used; then ZUNIONSTORE adds that set to the cell, and the same transaction removes it.
So the second step can be repeated: where it was done already, nothing is left to be added. Where the first
one's outcome is unknown, its set is left to its TTL, and the counts are staged again under another name.
"""

import asyncio
import logging
import math
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from service.cache.accounting import DAY_MS, MAX_CELLS, Accounting, Field, Name
from service.cache.digests import DigestKey, Keyring, TenantKeys
from service.cache.histogram import LAST
from service.cache.learning.strata import STRATA
from service.cache.ports import Budget, Clock
from service.cache.prices import NANO
from service.errors import StoreUnavailableError
from service.model import Tenant
from service.store.client import Command, RedisClient, RedisRefusedError, outcome, refusal
from service.store.keys import Keys
from service.store.records import seal_text, unseal_text
from service.store.responses import RedisResponses
from service.telemetry import MONEY_SAVED, MONEY_SPENT, STATS_FAILURES, STATS_WAITING, TOKENS_SAVED

log = logging.getLogger(__name__)

TRIP_S = 2.0
PAGE = 50  # cells per round trip
STAGED_MS = 86_400_000
KEPT_DAYS, OLD_DAYS = 8, 90
"""Days that are kept by themselves, and those before them that may have been left over."""
MAX_AGENT_TYPES = 1000
"""Per tenant: what a caller can make us keep without an end. Those beyond are counted together."""
OTHERS = "others"

T = TypeVar("T")

_KINDS = {"responses", "tools", "embeddings", "stage", "tokens", "nano_usd", "unpriced", "strata", "shadow"}


class Registered(NamedTuple):
    """Where an agent_type is counted."""

    cell: str
    sealed: bytes  # since when, and its name


class Counted(NamedTuple):
    """What a cell has."""

    since_ms: int
    counts: Counter[Field]


class RedisStats:
    """Takes what `Accounting` gathers to Redis, and reads it."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        keyring: Keyring,
        responses: RedisResponses,
        *,
        clock: Clock,
        label: Callable[[Tenant], str],
    ) -> None:
        """`label` is what metrics may call a tenant."""
        self._redis = redis
        self._keys = keys
        self._keyring = keyring
        self._responses = responses  # knows the layout
        self._clock = clock
        self._label = label
        self._waiting: dict[Name, Counter[Field]] = defaultdict(Counter)
        self._staged: dict[Name, str] = {}
        self._registered: dict[Name, Registered] = {}
        self._taken_over: set[Tenant] = set()
        self._swept: dict[str, int] = {}  # cells, and the day on which old days were removed there
        self._lock = asyncio.Lock()
        self._told = False

    async def flush(self, accounting: Accounting) -> None:
        """Write what was counted, and what waits; what can't be written waits for the next time."""
        async with self._lock:
            for name, cell in accounting.drain().items():
                _measure(cell, self._label(name[0]))
                known = name in self._waiting or len(self._waiting) < MAX_CELLS
                self._waiting[name if known else (name[0], None)].update(cell)
            try:
                await self._register()
                await self._stage()
                await self._add()
                self._told = False
            except StoreUnavailableError as error:
                self._failed(error)
            STATS_WAITING.set(len(self._waiting) + len(self._staged))

    def _failed(self, error: StoreUnavailableError) -> None:
        """Count it; one line for what doesn't pass by itself."""
        STATS_FAILURES.inc()
        if isinstance(error, RedisRefusedError) and not self._told:
            log.error("stats are not written, and wait: %s", error)
            self._told = True

    async def _register(self) -> None:
        """Give each agent_type a cell of its own, or that of the others where there are too many."""
        new: dict[Tenant, list[str]] = defaultdict(list)
        for tenant, agent_type in self._waiting:
            if agent_type is None:
                self._registered[tenant, None] = self._new(tenant, None)
            elif (tenant, agent_type) not in self._registered:
                new[tenant].append(agent_type)
        for tenant, agent_types in new.items():
            keys = self._keyring.of(tenant)
            await self._take_over(keys)
            there = await self._names(keys, keys.current)
            taken = {field.decode("ascii", "replace") for field in there[::2]}
            for agent_type in agent_types:
                self._place(tenant, agent_type, taken)

    async def _take_over(self, keys: TenantKeys) -> None:
        """Move what was counted under the previous secret, once: nobody can read that after the rotation."""
        if keys.tenant in self._taken_over:
            return
        whole = True
        for old in keys.keys[1:]:
            for page in _pages(_believed(await self._names(keys, old), old)):
                transactions = [self._moved(keys, old, *named) for named in page]
                whole &= len(await self._done(page, transactions)) == len(page)
        if whole:
            self._taken_over.add(keys.tenant)

    def _moved(
        self, keys: TenantKeys, old: DigestKey, cell: str, since_ms: int, agent_type: str | None
    ) -> list[Command]:
        """A transaction that may be repeated, as in `_add`."""
        partition = self._responses.partition(keys)
        one = self._new(keys.tenant, agent_type, since_ms)
        before = self._keys.stats(partition, old.tenant, cell)
        return [
            *self._added(partition, keys, one, before)[:-1],
            ("HDEL", self._keys.stats_names(partition, old.tenant), cell),
            ("EXEC",),
        ]

    async def _names(self, keys: TenantKeys, key: DigestKey) -> Any:
        """Cells and what is sealed there, in turn."""
        names = self._keys.stats_names(self._responses.partition(keys), key.tenant)
        return await self._redis.call("HGETALL", names, timeout_s=TRIP_S)

    def _place(self, tenant: Tenant, agent_type: str, taken: set[str]) -> None:
        one = self._new(tenant, agent_type)
        if one.cell in taken or len(taken - {OTHERS}) < MAX_AGENT_TYPES:
            self._registered[tenant, agent_type] = one
            taken.add(one.cell)
            return
        self._registered[tenant, None] = self._new(tenant, None)
        self._waiting[tenant, None].update(self._waiting.pop((tenant, agent_type)))

    def _new(self, tenant: Tenant, agent_type: str | None, since_ms: int | None = None) -> Registered:
        key = self._keyring.of(tenant).current
        cell = _cell(key, agent_type)
        text = f"{self._clock() if since_ms is None else since_ms} {agent_type or ''}"
        return Registered(cell, seal_text(text, f"stats {cell}", key))

    async def _stage(self) -> None:
        ready = [name for name in self._waiting if name not in self._staged]
        for page in _pages(ready):
            names = {name: self._staged_key(name) for name in page}
            end = self._clock() + STAGED_MS
            transactions = [
                _transaction(("ZADD", key, *_members(self._waiting[name])), ("PEXPIREAT", key, end))
                for name, key in names.items()
            ]
            for name in await self._done(page, transactions):
                self._staged[name] = names[name]
                del self._waiting[name]

    async def _add(self) -> None:
        for page in _pages(list(self._staged)):
            transactions = []
            for name in page:
                keys = self._keyring.of(name[0])
                partition, one = self._responses.partition(keys), self._registered[name]
                transactions.append(self._added(partition, keys, one, self._staged[name]))
                transactions[-1][-1:-1] = self._sweep(partition, keys, one.cell)
            for name in await self._done(page, transactions):
                del self._staged[name]

    def _added(self, partition: int, keys: TenantKeys, one: Registered, counts: str) -> list[Command]:
        """A transaction that adds a set to a cell and removes it; to repeat it adds nothing."""
        tenant = keys.current.tenant
        cell = self._keys.stats(partition, tenant, one.cell)
        return _transaction(
            ("ZUNIONSTORE", cell, 2, cell, counts),
            ("UNLINK", counts),
            ("HSETNX", self._keys.stats_names(partition, tenant), one.cell, one.sealed),
        )

    def _sweep(self, partition: int, keys: TenantKeys, cell: str) -> list[Command]:
        """Once a day: removes the counts of days that nobody asks about any more."""
        name, today = self._keys.stats(partition, keys.current.tenant, cell), self._clock() // DAY_MS
        if self._swept.get(name) == today:
            return []
        if len(self._swept) >= MAX_CELLS:
            self._swept.clear()
        self._swept[name] = today
        days = range(today - OLD_DAYS, today - KEPT_DAYS)
        members = ["|".join(("strata", str(day), str(one))) for day in days for one in range(STRATA)]
        return [("ZREM", name, *members)]

    async def _done(self, names: Sequence[T], transactions: Sequence[list[Command]]) -> list[T]:
        """Those whose transaction was done. Where some were not, that is noted; of none is it unknown.

        Raises:
            StoreUnavailableError: Redis did not answer: it is unknown of all.
        """
        commands = [command for transaction in transactions for command in transaction]
        replies = iter(await self._redis.run(commands, Budget(TRIP_S)))
        done = []
        for name, transaction in zip(names, transactions, strict=True):
            error = outcome(list(islice(replies, len(transaction))))
            if error is None:
                done.append(name)
            else:
                self._failed(error)
        return done

    def _staged_key(self, name: Name) -> str:
        partition = self._responses.partition(self._keyring.of(name[0]))
        return self._keys.stats_staged(partition, secrets.token_hex(16))

    async def of(self, keys: TenantKeys, agent_type: str | None) -> Counted | None:
        """What was counted of an agent_type; None: nothing.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        cells = [(key, _cell(key, agent_type)) for key in keys.keys]
        partition = self._responses.partition(keys)
        commands: list[Command] = [
            ("HGET", self._keys.stats_names(partition, key.tenant), cell) for key, cell in cells
        ]
        sealed = [_value(reply) for reply in await self._redis.run(commands, Budget(TRIP_S))]
        named = [
            (key, cell, opened[0])
            for (key, cell), blob in zip(cells, sealed, strict=True)
            if (opened := _opened(blob, cell, key)) is not None
        ]
        counts = await self._counts(partition, [(key, cell) for key, cell, _ in named])
        return _merged([Counted(since, one) for (_, _, since), one in zip(named, counts, strict=True)])

    async def agent_types(self, keys: TenantKeys) -> set[str]:
        """Those of which something was counted.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        found = [one for key in keys.keys for one in _believed(await self._names(keys, key), key)]
        return {agent_type for *_, agent_type in found if agent_type is not None}

    async def all(self, keys: TenantKeys) -> dict[str | None, Counted]:
        """What was counted, by agent_type; None: the others.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        partition = self._responses.partition(keys)
        found: dict[str | None, list[Counted]] = defaultdict(list)
        for key in keys.keys:
            for page in _pages(_believed(await self._names(keys, key), key)):
                counts = await self._counts(partition, [(key, cell) for cell, _, _ in page])
                for (_, since, agent_type), one in zip(page, counts, strict=True):
                    found[agent_type].append(Counted(since, one))
        return {name: merged for name, each in found.items() if (merged := _merged(each))}

    async def _counts(self, partition: int, cells: Sequence[tuple[DigestKey, str]]) -> list[Counter[Field]]:
        commands: list[Command] = [
            ("ZRANGE", self._keys.stats(partition, key.tenant, cell), 0, -1, "WITHSCORES")
            for key, cell in cells
        ]
        return [_fields(_value(reply) or []) for reply in await self._redis.run(commands, Budget(TRIP_S))]


def _cell(key: DigestKey, agent_type: str | None) -> str:
    return OTHERS if agent_type is None else key.digest("agent_type", agent_type.encode())


def _opened(blob: bytes | None, cell: str, key: DigestKey) -> tuple[int, str | None] | None:
    """Since when, ms, and the agent_type; None: it isn't ours."""
    text = None if blob is None else unseal_text(blob, f"stats {cell}", key)
    if text is None:
        return None
    since, _, agent_type = text.partition(" ")
    return int(since), agent_type or None


def _believed(there: Sequence[bytes], key: DigestKey) -> list[tuple[str, int, str | None]]:
    """Cell, since when and agent_type of what we sealed."""
    cells = [field.decode("ascii", "replace") for field in there[::2]]
    opened = [(cell, _opened(blob, cell, key)) for cell, blob in zip(cells, there[1::2], strict=True)]
    return [(cell, *one) for cell, one in opened if one is not None]


def _merged(counted: Sequence[Counted]) -> Counted | None:
    """Under the current and the previous secret."""
    total: Counter[Field] = Counter()
    for one in counted:
        total.update(one.counts)
    return Counted(min(one.since_ms for one in counted), total) if counted else None


def _members(cell: Mapping[Field, int]) -> list[str | int]:
    return [part for field, number in cell.items() for part in (number, "|".join(field))]


def _fields(reply: Sequence[bytes]) -> Counter[Field]:
    """Members and scores; what isn't ours is left out."""
    found: Counter[Field] = Counter()
    for member, score in zip(reply[::2], reply[1::2], strict=True):
        field, number = _field(member.decode("utf-8", "replace")), float(score)
        if field is not None and math.isfinite(number):
            found[field] += int(number)
    return found


def _field(text: str) -> Field | None:
    """A rule may have our separator in its name; it stands last."""
    parts = text.split("|", 2)
    if parts[1:2] == ["ms"] and len(parts) > 2:  # noqa: PLR2004 - there is something behind it
        parts[2:] = parts[2].rsplit("|", 1)
    fits = parts[0] in _KINDS and len(parts) == _length(parts)
    timed = parts[0] == "stage" or parts[1:2] == ["ms"]
    if not fits or (timed and not (parts[-1].isdecimal() and int(parts[-1]) <= LAST)):
        return None
    return tuple(parts)


def _length(parts: Sequence[str]) -> int:
    if parts[0] in {"tokens", "nano_usd", "unpriced", "shadow"}:
        return 2
    return 4 if parts[1:2] == ["ms"] else 3


def _transaction(*commands: Command) -> list[Command]:
    return [("MULTI",), *commands, ("EXEC",)]


def _pages(items: Sequence[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(items), PAGE):
        yield list(items[at : at + PAGE])


def _value(reply: Any) -> Any:
    """A reply's value; of another type than ours it is none."""
    if isinstance(reply, Exception):
        if str(reply).startswith("WRONGTYPE"):
            return None
        raise refusal(reply)
    return reply


def _measure(cell: Mapping[Field, int], tenant: str) -> None:
    """For Prometheus, as it leaves the request's path."""
    for kind in ("input", "output"):
        TOKENS_SAVED.labels(tenant, kind).inc(cell.get(("tokens", kind), 0))
    MONEY_SAVED.labels(tenant).inc(cell.get(("nano_usd", "saved"), 0) / NANO)
    MONEY_SPENT.labels(tenant).inc(cell.get(("nano_usd", "spent"), 0) / NANO)
