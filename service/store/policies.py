"""The policies of all tenants: in Redis, and in this process.

In Redis they lie in one hash per partition, each sealed; nothing deletes one. Each has a number that grows
with every change. The greatest that a process knows is in force there, and what Redis lacks of it (it was
emptied, came back with older data, has it under the previous secret only) is written to it again.
"""

import contextlib
import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from service.cache.digests import MAC_BYTES, DigestKey, Keyring, TenantKeys, partition_of
from service.cache.policy import DEFAULT, check, counting
from service.cache.ports import Budget, Clock
from service.errors import InvalidInputError, StoreFullError
from service.model import Embedding, Generation, Policy, Tenant, ToolPolicy
from service.store import chosen
from service.store.client import Command, RedisClient, outcome
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.telemetry import POLICIES, POLICIES_REFUSED

log = logging.getLogger(__name__)

VERSION = b"\x01"
LOAD_S = 5.0
"""All policies at once may take longer than a request's time for Redis."""

RESPONSES, TOOLS = "responses", "tools"

Names = tuple[Tenant, str, str]
"""Tenant, kind, and agent_type or tool."""

Token = tuple[bytes | None, int]
"""The version of a partition's policies, and whether there are any."""


class Body(Struct, frozen=True, array_like=True):
    """A policy as kept in Redis. Fields are kept by position: append only, each with a default."""

    tenant: Tenant  # of the key that set it
    agent_type: str
    number: int  # when it was set, ms since 1970; greater than that of the policy before
    given: bytes  # the JSON that was PUT: what it leaves open follows the defaults of later versions
    kind: str = RESPONSES  # what `agent_type` names: that, or a tool
    chosen_for: Embedding | None = None  # whose similarities were known; None: see `store.chosen`

    @property
    def names(self) -> Names:
        """Whose it is."""
        return self.tenant, self.kind, self.agent_type


class Kept(NamedTuple):
    """A value of the hash that we wrote."""

    blob: bytes
    body: Body
    policy: Policy | ToolPolicy | None  # None: it has fields of another version
    current: bool  # under the current secret


class Doubted(NamedTuple):
    """A value of the hash that we didn't write, or that was altered since."""

    blob: bytes
    why: str
    claimed: Names | None


_encoder = msgspec.msgpack.Encoder()
_body = msgspec.msgpack.Decoder(Body)
_DECODERS: dict[str, msgspec.json.Decoder[Policy] | msgspec.json.Decoder[ToolPolicy]] = {
    RESPONSES: msgspec.json.Decoder(Policy),
    TOOLS: msgspec.json.Decoder(ToolPolicy),
}
_FIELDS = {RESPONSES: "policy", TOOLS: "tool_policy"}


class RedisPolicies:
    """Fulfils `cache.ports.Policies`."""

    def __init__(
        self, redis: RedisClient, keys: Keys, keyring: Keyring, responses: RedisResponses, clock: Clock
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._keyring = keyring
        self._responses = responses
        self._clock = clock
        self._loaded: list[Token] | None = None
        self._seen: dict[bytes, Kept | Doubted] = {}  # what Redis had, by field
        self._known: dict[Names, Kept] = {}
        self._doubted: dict[bytes, str] = {}  # why, by field
        self._told: dict[bytes, str] = {}
        self._chosen_for: Embedding | None = None  # where a policy doesn't say
        self._counting: dict[Names, tuple[Kept, Generation, Policy]] = {}
        self.bounds: dict[tuple[Tenant, str], int] = {}
        """`max_entries` by tenant and agent_type, of those that have one."""
        self.learning: set[tuple[Tenant, str]] = set()
        """Tenants and agent_types with a mode other than `static`."""

    def of(self, keys: TenantKeys, agent_type: str) -> Policy | None:
        """See `cache.ports.Policies`. Costs no round trip."""
        found = self._of(keys, RESPONSES, agent_type, DEFAULT)
        return found if isinstance(found, Policy) else None

    def tool(self, keys: TenantKeys, tool: str) -> ToolPolicy | None:
        """See `cache.ports.Policies`. Costs no round trip."""
        found = self._of(keys, TOOLS, tool, ToolPolicy(tool=tool))
        return found if isinstance(found, ToolPolicy) else None

    def tools(self, keys: TenantKeys) -> list[ToolPolicy]:
        """Those of a tenant that were set and can be read."""
        known = (kept for (tenant, _, _), kept in self._known.items() if tenant == keys.tenant)
        found = [kept.policy for kept in known if isinstance(kept.policy, ToolPolicy)]
        return sorted(found, key=lambda policy: policy.tool)

    def _of(
        self, keys: TenantKeys, kind: str, name: str, default: Policy | ToolPolicy
    ) -> Policy | ToolPolicy | None:
        kept = self._known.get((keys.tenant, kind, name))
        if kept is not None:
            return self._as_it_counts(kept) if isinstance(kept.policy, Policy) else kept.policy
        if self._doubted and any(field_of(key, kind, name) in self._doubted for key in keys.keys):
            return None
        return default

    def _as_it_counts(self, kept: Kept) -> Policy | None:
        """Over the generation that is searched; the same object for as long as that and the policy stay."""
        generation, policy = self._responses.generation, kept.policy
        whose = kept.body.chosen_for or self._chosen_for
        if generation is None or whose is None or not isinstance(policy, Policy):
            return policy if isinstance(policy, Policy) else None
        known = self._counting.get(kept.body.names)
        if known is None or known[0] is not kept or known[1] is not generation:
            known = kept, generation, counting(policy, whose, generation)
            self._counting[kept.body.names] = known
        return known[2]

    async def refresh(self) -> None:
        """Follow what was set elsewhere.

        Raises:
            StoreUnavailableError: Redis does not answer, or nothing is served now.
        """
        await self.load(self._responses.partitions)

    async def load(self, partitions: int) -> None:
        """Read the policies where they changed since the last time, and write what Redis lacks.

        Raises:
            StoreUnavailableError: Redis does not answer; the policies known so far stay in force.
        """
        numbers = range(partitions)
        asked: list[Command] = [("GET", self._keys.policies_version(one)) for one in numbers]
        asked += [("EXISTS", self._keys.policies(one)) for one in numbers]
        *replies, whose = await self._run([*asked, ("GET", chosen.name(self._keys))])
        self._chosen_for = chosen.decoded(whose) or self._chosen_for
        if whose is None and self._chosen_for is not None:  # lost, as a policy may be
            with contextlib.suppress(StoreFullError):
                await chosen.note_chosen(self._redis, self._keys, self._chosen_for)
        tokens = list(zip(replies[:partitions], replies[partitions:], strict=True))
        if tokens == self._loaded:
            return
        found: dict[bytes, bytes] = {}
        for pairs in await self._run([("HGETALL", self._keys.policies(one)) for one in numbers], LOAD_S):
            found.update(zip(pairs[::2], pairs[1::2], strict=True))
        self._take(found)
        self._loaded = tokens if await self._restored(partitions) else None

    async def put(self, keys: TenantKeys, agent_type: str, given: bytes, kind: str = RESPONSES) -> None:
        """Set a policy: in force here at once, elsewhere with their next refresh.

        Args:
            keys: the tenant's.
            agent_type: whose policy; with the kind `TOOLS` a tool's name.
            given: JSON of a `Policy`, or of a `ToolPolicy`.
            kind: which of them.

        Raises:
            StoreUnavailableError: Redis did not answer in time, or has no room: nothing is promised.
        """
        partitions = self._responses.partitions
        await self.load(partitions)
        known = self._known.get((keys.tenant, kind, agent_type))
        number = max(self._clock(), 0 if known is None else known.body.number + 1)
        generation = self._responses.generation
        whose = None if generation is None else generation.embedding
        body = Body(keys.tenant, agent_type, number, given, kind, whose)
        self._loaded = None  # what it was before mustn't look like what it is after a loss
        await self._write(partition_of(keys.tenant, partitions), [body])
        self._learn(Kept(sealed(body, keys.current), body, _DECODERS[kind].decode(given), current=True))

    def _take(self, found: Mapping[bytes, bytes]) -> None:
        """What Redis has; values that were there the last time aren't opened again."""
        before = self._seen
        self._seen = {
            field: before[field]
            if field in before and before[field].blob == blob
            else opened(field, blob, self._keyring)
            for field, blob in found.items()
        }
        for value in self._seen.values():
            if isinstance(value, Kept):
                self._learn(value)
        doubted = {field: value.why for field, value in self._seen.items() if isinstance(value, Doubted)}
        self._tell({field: why for field, why in doubted.items() if not self._is_left_over(field)})
        self._doubted = doubted

    def _learn(self, kept: Kept) -> None:
        """Put it in force unless a later one is known."""
        known = self._known.get(kept.body.names)
        if known is None or kept.body.number >= known.body.number:
            self._known[kept.body.names] = kept
            names = kept.body.tenant, kept.body.agent_type
            if isinstance(kept.policy, Policy) and kept.policy.max_entries is not None:
                self.bounds[names] = kept.policy.max_entries
            elif kept.body.kind == RESPONSES:
                self.bounds.pop(names, None)
            if isinstance(kept.policy, Policy) and kept.policy.mode != "static":
                self.learning.add(names)
            elif kept.body.kind == RESPONSES:
                self.learning.discard(names)
        POLICIES.set(len(self._known))

    def _is_left_over(self, field: bytes) -> bool:
        """Whether it was written under a secret that is no longer ours, and since then under ours."""
        value = self._seen[field]
        return isinstance(value, Doubted) and value.why == "id" and value.claimed in self._known

    def _tell(self, doubted: dict[bytes, str]) -> None:
        """Count and log what is new."""
        unread = {
            field: "fields"
            for field, value in self._seen.items()
            if isinstance(value, Kept) and value.policy is None
        }
        new = Counter(why for field, why in (doubted | unread).items() if field not in self._told)
        self._told = doubted | unread
        for why, count in new.items():
            POLICIES_REFUSED.labels(why).inc(count)
            log.warning(
                "%d policies in Redis can't be read (%s): where none is known from before, the exact tier "
                "alone serves their agent_types; PUT them again",
                count,
                why,
            )

    async def _restored(self, partitions: int) -> bool:
        """Write what Redis lacks of what we know; whether there was nothing to write."""
        there = {
            value.body.names: value.body.number
            for value in self._seen.values()
            if isinstance(value, Kept) and value.current
        }
        lost: dict[int, list[Body]] = {}
        for names, kept in self._known.items():
            if there.get(names, -1) < kept.body.number:
                lost.setdefault(partition_of(kept.body.tenant, partitions), []).append(kept.body)
        with contextlib.suppress(StoreFullError):  # with the next refresh, then
            for partition, bodies in lost.items():
                await self._write(partition, bodies)
        return not lost

    async def _write(self, partition: int, bodies: Sequence[Body]) -> None:
        values: list[bytes] = []
        for body in bodies:
            key = self._keyring.of(body.tenant).current
            values += (field_of(key, body.kind, body.agent_type), sealed(body, key))
        commands: list[Command] = [
            ("MULTI",),
            ("HSET", self._keys.policies(partition), *values),
            ("SET", self._keys.policies_version(partition), secrets.token_hex(8)),
            ("EXEC",),
        ]
        error = outcome(await self._redis.run(commands))
        if error is not None:
            raise error

    async def _run(self, commands: Sequence[Command], timeout_s: float | None = None) -> list[Any]:
        """Replies, none of them an error."""
        return await self._redis.values(commands, None if timeout_s is None else Budget(timeout_s))


async def read_all(redis: RedisClient, keys: Keys, keyring: Keyring, partitions: int) -> list[Kept | Doubted]:
    """Every policy in Redis, in force or not, for who looks and changes nothing.

    Raises:
        StoreUnavailableError: Redis does not answer, or refuses.
    """
    found: list[Kept | Doubted] = []
    commands: list[Command] = [("HGETALL", keys.policies(one)) for one in range(partitions)]
    for reply in await redis.values(commands):
        found += [opened(field, blob, keyring) for field, blob in zip(reply[::2], reply[1::2], strict=True)]
    return found


def is_foreign(kept: Kept, unmarked: Embedding | None, generation: Generation) -> bool:
    """Whether it counts for less over a generation than it says; `unmarked`: as `chosen.decoded`."""
    whose = kept.body.chosen_for or unmarked
    if whose in (None, generation.embedding) or not isinstance(kept.policy, Policy):
        return False
    return kept.policy.threshold is not None or kept.policy.verifier_head is not None


def field_of(key: DigestKey, kind: str, name: str) -> bytes:
    """Where a policy lies in the hash; the tenant is in the key."""
    return key.digest(_FIELDS.get(kind, kind), name.encode()).encode()


def sealed(body: Body, key: DigestKey) -> bytes:
    """The bytes kept in Redis: version, MAC, body."""
    raw = _encoder.encode(body)
    return VERSION + _mac(key, raw) + raw


def opened(field: bytes, blob: bytes, keyring: Keyring) -> Kept | Doubted:
    """What lies in a field of the hash."""
    mac, raw = blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]
    try:
        body = _body.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Doubted(blob, "form", None)
    if blob[:1] != VERSION:
        return Doubted(blob, "form", None)
    keys = keyring.of(body.tenant)
    key = next((key for key in keys.keys if field_of(key, body.kind, body.agent_type) == field), None)
    if key is None:
        return Doubted(blob, "id", body.names)
    if not hmac.compare_digest(mac, _mac(key, raw)):
        return Doubted(blob, "mac", None)
    try:
        decoded = _DECODERS[body.kind].decode(body.given)
        policy = check(decoded) if isinstance(decoded, Policy) else decoded
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidInputError, KeyError):
        policy = None
    return Kept(blob, body, policy, key is keys.current)


def _mac(key: DigestKey, raw: bytes) -> bytes:
    """Of a policy, so that nothing else of the tenant's passes for one."""
    return key.mac(b"policy" + VERSION + raw)
