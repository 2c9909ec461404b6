"""What is learned, per tenant and agent_type: followed from the outcomes in Redis, and moved.

Each process reads the outcomes and works out the rest; only the threshold of mode `adaptive` is kept, with
its moves.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.cache.accounting import Field
from service.cache.decided import model_of
from service.cache.digests import Keyring, TenantKeys
from service.cache.learning.adaptive import Aim, State, Told, next_state, set_to, undo
from service.cache.learning.learned import Learned
from service.cache.learning.pooled import fitted
from service.cache.learning.quality import (
    Quality,
    Shadowed,
    aim_of,
    hits_by_stratum,
    quality,
    shadowed,
    verdicts,
)
from service.cache.policy import threshold_of
from service.cache.ports import Clock, Policies, Verifier
from service.errors import InvalidInputError, StoreUnavailableError
from service.model import Policy, Tenant
from service.store.client import RedisClient
from service.store.keys import Keys
from service.store.outcomes import RedisOutcomes
from service.store.responses import RedisResponses
from service.store.stats import RedisStats
from service.store.thresholds import Thresholds
from service.telemetry import FALSE_HITS

log = logging.getLogger(__name__)

OVERLAP_MS = 5000
"""What was said so long before what was read last is read again: others' clocks and writes are late."""
TRIES = 40
MOST = 1000
"""Agent_types whose outcomes a process follows; those that need it least begin anew where there are more."""
MEASURED_MS, NAMED_MS = 10_000, 60_000
"""How often the gauges are set, and it is asked which agent_types they are of."""


@dataclass(slots=True)
class Known:
    """Of an agent_type under a model."""

    keys: TenantKeys
    agent_type: str
    model: int
    learned: Learned = field(default_factory=Learned)
    state: State | None = None  # of the mode `adaptive`
    watched: bool = False  # each second; else only where its gauges are due
    measured: int = 0  # when the gauges were set, ms since 1970
    judged: tuple[int, Policy] | None = None  # how much had been said when the threshold was judged last


class RedisLearning:
    """Fulfils `cache.ports.Learning`."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        keyring: Keyring,
        responses: RedisResponses,
        *,
        outcomes: RedisOutcomes,
        stats: RedisStats,
        policies: Policies,
        clock: Clock,
        verifier: Verifier | None,
        named: frozenset[str] = frozenset(),
    ) -> None:
        """`named` are the tenants that metrics may name."""
        self._thresholds = Thresholds(redis, keys, responses)
        self._keyring = keyring
        self._responses = responses
        self._outcomes = outcomes
        self._stats = stats
        self._policies = policies
        self._clock = clock
        self._verifier = verifier
        self._named = named
        self._known: dict[tuple[Tenant, str], Known] = {}
        self._named_at = 0  # when it was asked which agent_types those tenants have

    def of(self, keys: TenantKeys, agent_type: str) -> Learned:
        """See `cache.ports.Learning`. From the first time on its outcomes are followed."""
        one = self._of(keys, agent_type)
        one.watched = True
        return one.learned

    def threshold(self, keys: TenantKeys, agent_type: str, policy: Policy) -> float:
        """See `cache.ports.Learning`."""
        state, aim = self._of(keys, agent_type).state, self._aim(policy)
        return aim.greatest if state is None else min(max(state.threshold, aim.least), aim.greatest)

    async def settle(self, keys: TenantKeys, agent_type: str) -> None:
        """A policy was set: if it names another threshold than before, that is in force now.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        if self._mode(self._peek(keys, agent_type)) == "adaptive":
            one = self._of(keys, agent_type)
            await self._follow(one)
            await self._move(one, was_set=True)

    def _aim(self, policy: Policy) -> Aim:
        return aim_of(policy, reads=self._verifier is not None)

    async def refresh(self) -> None:
        """Follow what was said since the last time.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        for tenant, agent_type in self._policies.learning:
            self._of(self._keyring.of(tenant), agent_type).watched = True
        await self._name_all()
        for one in list(self._known.values()):
            try:
                await self._look(one)
            except StoreUnavailableError:
                raise
            except Exception:  # a defect in one must not keep the others from what they learn
                log.exception("unexpected error while following what is learned")

    async def _look(self, one: Known) -> None:
        now = self._clock()
        due = one.keys.tenant in self._named and now - one.measured >= MEASURED_MS
        if one.watched or due:
            await self._follow(one)
        if due:
            await self._measure(one, now)
        if self._mode(one) == "adaptive":
            await self._move(one)

    async def _name_all(self) -> None:
        """Follow what gauges are for, from the start on."""
        now = self._clock()
        if now - self._named_at < NAMED_MS:
            return
        self._named_at = now
        for tenant in self._named:
            keys = self._keyring.of(tenant)
            for agent_type in await self._stats.agent_types(keys):
                self._of(keys, agent_type)

    async def told(
        self, keys: TenantKeys, agent_type: str
    ) -> tuple[Quality, Shadowed | None, tuple[int, int]]:
        """How often its answers were wrong lately, what would have been served; outcomes and their entries.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        one = self._peek(keys, agent_type)
        await self._follow(one)
        counts, said = await self._counts(one), one.learned.said.values()
        entries = {it.outcome.entry_id for it in said}
        return quality(counts, said, self._clock()), shadowed(counts, said), (len(said), len(entries))

    async def state(self, keys: TenantKeys, agent_type: str) -> State | None:
        """Of the mode `adaptive`: its threshold and moves; None: it has not been in that mode.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        return await self._read(self._peek(keys, agent_type))

    async def undo(self, keys: TenantKeys, agent_type: str, number: int) -> State:
        """Take the last move back.

        Raises:
            InvalidInputError: the last move isn't that one.
            StoreUnavailableError: Redis does not answer, or another process is at it: try again.
        """
        one = self._peek(keys, agent_type)
        await self._follow(one)
        for _ in range(TRIES):
            before = await self._read(one)
            after = None if before is None else undo(before, number, await self._told(one))
            if after is None or after == before:
                raise InvalidInputError("number", "is not the last move's")
            if await self._write(one, after):
                return after
        raise StoreUnavailableError("the threshold is being moved; try again")

    async def _measure(self, one: Known, now: int) -> None:
        """Set the gauges: also where nothing is said, hits become more and days go by."""
        one.measured = now
        found = quality(await self._counts(one), one.learned.said.values(), now)
        for end, value in (("rate", found.false_hit_rate), ("low", found.low), ("high", found.high)):
            if value is not None:
                FALSE_HITS.labels(one.keys.tenant, one.agent_type, end).set(value)

    def _of(self, keys: TenantKeys, agent_type: str) -> Known:
        """What is followed from now on."""
        found, name = self._peek(keys, agent_type), (keys.tenant, agent_type)
        if self._known.get(name) is not found:
            if len(self._known) >= MOST:
                idle = (one for one in self._known if one not in self._policies.learning)
                self._known.pop(next(idle, next(iter(self._known))))
            self._known[name] = found
        return found

    def _peek(self, keys: TenantKeys, agent_type: str) -> Known:
        """What is followed, else one to be read once: a question about it must not make it stay."""
        generation = self._responses.generation
        model = 0 if generation is None else model_of(generation)
        found = self._known.get((keys.tenant, agent_type))
        return found if found is not None and found.model == model else Known(keys, agent_type, model)

    def _mode(self, one: Known) -> str | None:
        policy = self._policies.of(one.keys, one.agent_type)
        return None if policy is None else policy.mode

    async def _follow(self, one: Known) -> None:
        since = max(0, one.learned.until - OVERLAP_MS)
        said = await self._outcomes.read(one.keys, one.agent_type, one.model, since)
        if one.learned.take(said):
            names, seen = one.learned.rows()
            outcomes = len(one.learned.said)
            prior = await asyncio.to_thread(fitted, names, seen)
            one.learned.follow(prior, outcomes)

    async def _counts(self, one: Known) -> Mapping[Field, int]:
        counted = await self._stats.of(one.keys, one.agent_type)
        return {} if counted is None else counted.counts

    async def _told(self, one: Known) -> Told:
        return Told(hits_by_stratum(await self._counts(one)), one.learned.until, self._clock())

    async def _move(self, one: Known, *, was_set: bool = False) -> None:
        """Of processes that follow the same, one writes; all go by what is written.

        Only who was told that the policy was set takes its threshold: others may know an older one.
        """
        before = await self._read(one)
        policy = self._policies.of(one.keys, one.agent_type)
        generation = self._responses.generation
        if policy is None or generation is None:
            return
        aim, said = self._aim(policy), (one.learned.changes, policy)
        if before is not None and said == one.judged and not was_set:
            return
        told = await self._told(one)
        start = min(max(threshold_of(policy, generation, self._verifier), aim.least), aim.greatest)
        known = before or State(start, asked=policy.threshold)
        if was_set and known.asked != policy.threshold:
            after = set_to(known, policy.threshold, start, told)
        else:
            after = next_state(known, verdicts(one.learned.said.values()), aim, told.hits, told.now)
        written = (before is not None and after == before) or await self._write(one, after)
        if written:
            one.judged = said
            if after.moves[-1:] != known.moves[-1:]:
                move = after.moves[-1]
                log.info("a threshold moved from %.3f to %.3f: %s", move.before, move.after, move.why.value)

    async def _read(self, one: Known) -> State | None:
        found = await self._thresholds.read(one.keys, one.agent_type, one.model)
        one.state = found or one.state
        return found

    async def _write(self, one: Known, state: State) -> bool:
        """False: another process has kept something else."""
        written = await self._thresholds.write(one.keys, one.agent_type, one.model, state)
        if written:
            one.state = state
        return written
