"""Holds each agent_type to its policy's `max_entries`, off the way of requests."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.cache.digests import Keyring, TenantKeys
from service.cache.usage import Names, Use, Uses
from service.errors import StoreFullError, StoreUnavailableError
from service.store.policies import RedisPolicies
from service.store.usage import RedisUsage
from service.telemetry import EVICTED

log = logging.getLogger(__name__)

FLUSH_S = 0.5
CHECK_S, CHECK_PART = 10.0, 1000
"""How often ids and entries are compared: so that it takes a thousandth of the time at most."""
SEED_S, SEED_PART = 60.0, 200
"""How often what is missing is looked for in the whole index, unless much is missing."""
SLACK = 500
"""The part of a bound by which ids may be beyond it before entries are counted."""
MISSING, EXTRA = 20, 50
"""The parts of a bound from which on ids too few, or too many, are mended at once."""
FEW, MANY = 64, 500
"""Entries per step of eviction: each keeps Redis from others for 0.4 ms (384 dimensions)."""
TURN_S = 1.0
"""After which an agent_type that has much to evict lets the others have their turn."""
LAST_S = 5.0


@dataclass(slots=True)
class State:
    """What is known of an agent_type."""

    bound: int
    extra: int = 0  # ids more than entries, when they were last counted
    beyond: bool = True  # whether there may be entries beyond the bound
    check_at: float = 0.0  # the event loop's time
    seed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Visit:
    """An agent_type whose turn it is."""

    keys: TenantKeys
    agent_type: str
    state: State
    stores: int  # noted since the last one


class Bounds:
    """Writes what was noted every half second, or at once when a 200th of a bound was stored."""

    def __init__(self, uses: Uses, usage: RedisUsage, policies: RedisPolicies, keyring: Keyring) -> None:
        self._uses = uses
        self._usage = usage
        self._policies = policies
        self._keyring = keyring
        self._states: dict[Names, State] = {}
        self._unfinished: set[Names] = set()
        self._told = ""

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._stored_within(0 if self._unfinished else FLUSH_S)
            try:
                await self.flush()
            except StoreUnavailableError as error:
                self._tell(error)
                await asyncio.sleep(FLUSH_S)
            except Exception:  # a defect must not end the task
                log.exception("unexpected error while holding max_entries")
                await asyncio.sleep(FLUSH_S)

    def _tell(self, error: StoreUnavailableError) -> None:
        """Log what Redis refuses, once; that it is away, the breaker has logged."""
        if type(error) is not StoreUnavailableError and str(error) != self._told:
            self._told = str(error)
            log.warning("max_entries can't be held: %s", error)

    async def _stored_within(self, seconds: float) -> None:
        """Wait, until much was stored at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._uses.due.wait()

    async def flush(self) -> None:
        """Write all that was noted, and evict what is beyond the bounds.

        Raises:
            StoreUnavailableError: Redis did not answer; what wasn't written is noted still.
        """
        bounds, notes = dict(self._policies.bounds), self._uses.take()
        for names in self._states.keys() - bounds.keys():
            del self._states[names]
        changed = {names for names, bound in bounds.items() if not self._is_known(names, bound)}
        due = (notes.keys() | changed | self._unfinished) & bounds.keys()
        self._unfinished = set(due)
        try:
            for names in due:
                state = await self._visit(names, bounds[names], notes.get(names, {}))
                self._states[names] = state
                notes.pop(names, None)
                if not state.beyond:
                    self._unfinished.discard(names)
        finally:
            for names in notes.keys() & bounds.keys():
                self._uses.put_back(names, notes[names])

    def _is_known(self, names: Names, bound: int) -> bool:
        state = self._states.get(names)
        return state is not None and state.bound == bound

    async def _visit(self, names: Names, bound: int, uses: Mapping[str, Use]) -> State:
        keys, agent_type = self._keyring.of(names[0]), names[1]
        known = self._is_known(names, bound)
        state = self._states[names] if known else State(bound)
        stores = sum(use.stored for use in uses.values())
        visit = Visit(keys, agent_type, state, stores)
        members = await self._written(keys, agent_type, uses)
        lost = bool(uses) and members <= stores  # the set ended, or Redis evicted it
        if not known or lost or _now() >= state.check_at:
            await self._check(visit, thorough=not known or lost)
            await self._written(keys, agent_type, uses)  # again: hits of those whom nobody knew before
            state.beyond = True
        if state.beyond or members - state.extra - bound > bound // SLACK:
            state.beyond = not await self._trim(visit)
        return state

    async def _written(self, keys: TenantKeys, agent_type: str, uses: Mapping[str, Use]) -> int:
        """How many ids there are. A full Redis takes none, but lets evict, which makes room."""
        try:
            return await self._usage.write(keys, agent_type, uses)
        except StoreFullError:
            members, _ = await self._usage.count(keys, agent_type)
            return members

    async def _check(self, visit: Visit, *, thorough: bool) -> None:
        """Add ids of entries that nobody noted: of a killed process, or from before there was a bound."""
        state, begun = visit.state, _now()
        members, entries = await self._usage.count(visit.keys, visit.agent_type)
        state.check_at = _after(begun, CHECK_S, CHECK_PART)
        missing, state.extra = entries - members, members - entries
        if missing > 0 and (thorough or begun >= state.seed_at or missing * MISSING > state.bound):
            begun = _now()
            with contextlib.suppress(StoreFullError):
                await self._usage.seed(visit.keys, visit.agent_type)
            state.seed_at = _after(begun, SEED_S, SEED_PART)

    async def _trim(self, visit: Visit) -> bool:
        """Evict what is beyond the bound; False: there may be more, but its turn is over."""
        state, until = visit.state, _now() + TURN_S
        most = min(MANY, max(FEW, 2 * visit.stores))
        while (begun := _now()) < until:
            step = await self._usage.evict(visit.keys, visit.agent_type, state.bound, most)
            EVICTED.inc(step.entries)
            members, entries = step.before.members - step.members, step.before.entries - step.entries
            state.extra = members - entries
            if entries <= state.bound or not step.members:
                await self._tidy(visit)
                return True
            if most == FEW:  # nobody stores much: requests go first
                await self._stored_within(_now() - begun)
            if self._uses.due.is_set():  # somebody does now: that is written first
                break
        return False

    async def _tidy(self, visit: Visit) -> None:
        """Forget ids without an entry where they are many."""
        state = visit.state
        if state.extra * EXTRA > state.bound:
            state.extra -= await self._usage.sweep(visit.keys, visit.agent_type, state.extra)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _after(begun: float, least_s: float, part: int) -> float:
    """When to do again what took since `begun`: so that it takes that part of the time at most."""
    return begun + max(least_s, part * (_now() - begun))


@asynccontextmanager
async def holding(bounds: Bounds) -> AsyncIterator[None]:
    """Hold them meanwhile; at the end what was noted is written."""
    task = asyncio.create_task(bounds.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        with contextlib.suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                await bounds.flush()
