"""Tool results: what a call is, whether its result may be kept or served, and for how long."""

import random
import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from service.cache.admission import is_failed_call
from service.cache.arguments import canonical
from service.cache.canonical import check_identifier
from service.cache.digests import TenantKeys
from service.cache.invalidation import tool_subject
from service.cache.leases import REFRESH_S, Leases, Wish
from service.cache.lifetime import JITTER, Jitter
from service.cache.ports import Budget, Clock, NewTool, Policies, ToolResults, Work
from service.cache.sharing import Shared
from service.cache.side_effects import by_name
from service.cache.tickets import Ticket, issued, ticket
from service.errors import InvalidInputError, StoreUnavailableError
from service.model import (
    INVALIDATED,
    Reason,
    Refused,
    ToolCall,
    ToolHit,
    ToolMiss,
    ToolPolicy,
    ToolRecord,
    ToolStored,
    ToolStoreRequest,
)

COMPRESSED_FROM = 1024
"""Bytes. Smaller results lose half at most, less than an entry takes beside them (docs/tools.md)."""

_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """A call, checked."""

    keys: TenantKeys
    names: tuple[str, ...]  # its ids, the current secret's first
    policy: ToolPolicy | None
    refusal: str | None  # the rule that keeps its result out

    @property
    def stale_ms(self) -> int:
        """How long a result is served after its end."""
        return 0 if self.policy is None else round(self.policy.stale_while_revalidate_s * 1000)


@dataclass(slots=True)
class Looked:
    """What a lookup brought."""

    record: ToolRecord | None
    stale: bool
    number: int
    reason: Reason = Reason.EMPTY
    lookup_id: str | None = None

    @property
    def missing(self) -> bool:
        """See `leases.Look`."""
        return self.record is None and self.reason is Reason.EMPTY

    def token(self, now: int) -> str:
        """See `leases.Look`."""
        self.lookup_id = self.lookup_id or issued(self.number, now)
        return self.lookup_id


class Tools:
    """Looks up and stores tool results."""

    def __init__(
        self,
        results: ToolResults,
        *,
        policies: Policies,
        leases: Leases,
        clock: Clock,
        redis_s: float,
        jitter: Jitter = random.random,
    ) -> None:
        self._results = results
        self._policies = policies
        self._leases = leases
        self._clock = clock
        self._redis_s = redis_s
        self._jitter = jitter
        self._shared = Shared[Looked]()

    def call(self, request: ToolCall, keys: TenantKeys) -> Call:
        """Check a call and give it its ids.

        Raises:
            InvalidInputError: names the field.
        """
        named = {"agent_type": request.agent_type, "tool": request.tool, "version": request.version}
        for field, value in named.items():
            if value is not None:
                check_identifier(field, value)
        policy = self._policies.tool(keys, request.tool)
        arguments = canonical(request.arguments, () if policy is None else policy.ignore_arguments)
        parts = _encode([keys.tenant, *named.values()])
        names = tuple(key.digest("tool_call", parts + arguments) for key in keys.keys)
        return Call(keys, names, policy, refusal(policy))

    async def look_up(
        self, call: Call, wait_s: float | None, work: Work, *, leads: bool
    ) -> ToolHit | ToolMiss:
        """A result or a miss. Never fails.

        Args:
            call: checked.
            wait_s: how long to wait for whoever makes the same call already; None: not at all.
            work: into which goes how long it waited.
            leads: whether the caller can store.
        """
        if call.refusal is not None:
            miss = Looked(None, stale=False, number=0, reason=Reason.POLICY)
            return self._missed(miss, rule=call.refusal)

        async def look() -> Looked:
            return replace(await self._shared.call(call.names, lambda: self._look(call)))

        if wait_s is None:
            found, lease = await self._look(call), False
        else:
            wish = Wish(call.keys, call.names[0], wait_s, leads)
            found, lease, work.waited_ms = await self._leases.led(wish, look)
        if found.record is None:
            return self._missed(found, lease=lease)
        if found.stale and leads and await self._refreshes(call, found):
            now = await self._look(call)  # another may have refreshed it before we were told to
            if now.record is None or now.stale:
                return self._missed(found, lease=True, rule="stale")
            await self._leases.release(call.keys, call.names[0], found.token(self._clock()), refused=False)
            return self._hit(now.record, stale=False)
        return self._hit(found.record, stale=found.stale)

    async def _look(self, call: Call) -> Looked:
        try:
            records, number = await self._results.read(call.keys, call.names, Budget(self._redis_s))
        except StoreUnavailableError:
            return Looked(None, stale=False, number=0, reason=Reason.DEGRADED)
        now = self._clock()
        record = next((one for one in records if one is not None and serves(one, now, call.stale_ms)), None)
        return Looked(record, stale=record is not None and not serves(record, now), number=number)

    async def _refreshes(self, call: Call, found: Looked) -> bool:
        """Whether this is the one caller who is told to."""
        return await self._leases.take(call.keys, call.names[0], found.token(self._clock()), REFRESH_S)

    def _hit(self, record: ToolRecord, *, stale: bool) -> ToolHit:
        now, end = self._clock(), record.fresh_until
        return ToolHit(
            result=msgspec.Raw(zlib.decompress(record.result) if record.compressed else record.result),
            age_s=max(0, now - record.stored_at) / 1000,
            expires_in_s=None if end is None else max(0, end - now) / 1000,
            stale=stale,
            sources=record.sources,
        )

    def _missed(self, found: Looked, *, lease: bool = False, rule: str | None = None) -> ToolMiss:
        return ToolMiss(
            lookup_id=found.token(self._clock()), reason=found.reason, rule=rule or UNSET, lease=lease
        )

    async def store(self, request: ToolStoreRequest, keys: TenantKeys) -> ToolStored | Refused:
        """Keep a result.

        Raises:
            InvalidInputError: names the field.
            StoreUnavailableError: Redis did not answer in time, or has no room.
        """
        result = _checked(request)
        call = self.call(request, keys)
        why = call.refusal or ("error" if is_failed_call(result) else None)
        stored = await self._kept(request, call, call.policy) if why is None and call.policy else None
        if stored is not None:
            return stored
        if request.lookup_id is not None:  # another's would be refused, too, but for an error or a late one
            by_policy = call.refusal is not None
            await self._leases.release(keys, call.names[0], request.lookup_id, refused=by_policy)
        return INVALIDATED if why is None else Refused(stored=False, reason=why)

    async def _kept(self, request: ToolStoreRequest, call: Call, policy: ToolPolicy) -> ToolStored | None:
        """None: what it rests on was invalidated since its lookup."""
        budget = Budget(self._redis_s)
        lookup = None if request.lookup_id is None else ticket(request.lookup_id)
        before, newer = await self._results.before(call.keys, call.names, lookup, budget)
        entry = self._entry(request, call, policy, next((one for one in before if one), None), lookup)
        if newer is not None and lookup is not None and newer.refuses(tool_subject(entry.record), lookup):
            return None
        if not await self._results.put(call.keys, entry, budget):
            return None
        end = entry.record.fresh_until
        left_s = None if end is None else (end - entry.record.stored_at) / 1000
        return ToolStored(stored=True, entry_id=entry.record.entry_id, expires_in_s=left_s)

    def _entry(
        self,
        request: ToolStoreRequest,
        call: Call,
        policy: ToolPolicy,
        before: ToolRecord | None,
        lookup: Ticket | None,
    ) -> NewTool:
        now, key = self._clock(), call.keys.current
        result, compressed = packed(bytes(request.result))
        fresh_until = self._end(request, policy, now)
        sources = list(dict.fromkeys(request.sources))
        if before is not None and before.result == result:
            # The same again: its life is never shortened, and who stores it may not know all it rests on.
            ends = (fresh_until, before.fresh_until)
            fresh_until = None if None in ends else max(end for end in ends if end is not None)
            sources = list(dict.fromkeys([*before.sources, *sources]))
        record = ToolRecord(
            entry_id=call.names[0],
            tenant=key.tenant,
            agent_type=request.agent_type,
            tool=request.tool,
            version=request.version,
            result=result,
            compressed=compressed,
            sources=sources,
            stored_at=now,
            fresh_until=fresh_until,
            expires_at=None if fresh_until is None else fresh_until + call.stale_ms,
        )
        return NewTool(
            record,
            agent_type=key.digest("agent_type", request.agent_type.encode()),
            tool=key.digest("tool", request.tool.encode()),
            sources=[key.digest("source", source.encode()) for source in sources],
            superseded=call.names[1:],
            lookup=lookup,
        )

    def _end(self, request: ToolStoreRequest, policy: ToolPolicy, now: int) -> int | None:
        """When it is fresh no longer: as the caller says, else a little before the policy's time is over."""
        if request.ttl_s is not UNSET:
            return None if request.ttl_s is None else now + round(request.ttl_s * 1000)
        return (
            None if policy.ttl_s is None else now + round(policy.ttl_s * 1000 * (1 - JITTER * self._jitter()))
        )


def refusal(policy: ToolPolicy | None) -> str | None:
    """The rule by which a tool's results are not kept, if any."""
    if policy is None:
        return "unreadable"
    if policy.cacheable is None:
        return "side_effects" if by_name(policy.tool) else None
    return None if policy.cacheable else "cacheable"


def serves(record: ToolRecord, now: int, stale_ms: int = 0) -> bool:
    """Whether a result may be served: fresh, or so long past its end."""
    return record.fresh_until is None or now < record.fresh_until + stale_ms


def packed(result: bytes) -> tuple[bytes, bool]:
    """A result as it is kept, and whether it is compressed: large ones, where that helps."""
    if len(result) < COMPRESSED_FROM:
        return result, False
    smaller = zlib.compress(result, 1)
    return (smaller, True) if len(smaller) < len(result) else (result, False)


def _checked(request: ToolStoreRequest) -> object:
    for source in request.sources:
        check_identifier("sources", source)
    try:
        return msgspec.json.decode(request.result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("result", f"is no JSON: {error}") from None
