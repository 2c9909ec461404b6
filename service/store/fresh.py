"""Answers that were made although there was one: compared in the background, and learned from."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from service.cache.comparing import Answers, Comparing
from service.cache.decided import answer_of
from service.cache.digests import TenantKeys
from service.cache.outcomes import outcome_of
from service.cache.ports import Budget, Clock
from service.cache.store import Accepted, Store
from service.cache.tickets import is_fresh, ticket
from service.errors import StoreUnavailableError
from service.model import Reason, Record, Stored
from service.store.decisions import RedisDecisions
from service.store.outcomes import RedisOutcomes
from service.store.responses import RedisResponses
from service.telemetry import COMPARED

log = logging.getLogger(__name__)

MOST = 1000
"""Answers that wait; further ones teach nothing."""
AT_ONCE = 4
READ_S = 2.0
LATE_MS = 3_600_000
"""Answers to lookups longer ago teach nothing: the world may have changed meanwhile."""


class Fresh(NamedTuple):
    """An answer that was stored."""

    keys: TenantKeys
    accepted: Accepted
    lookup_id: str
    before: Record | None  # the live entry that it took the place of


class Comparer:
    """Holds fresh answers against those that were there."""

    def __init__(
        self,
        comparing: Comparing,
        store: Store,
        *,
        responses: RedisResponses,
        decisions: RedisDecisions,
        outcomes: RedisOutcomes,
        clock: Clock,
    ) -> None:
        self._comparing = comparing
        self._store = store
        self._responses = responses
        self._decisions = decisions
        self._outcomes = outcomes
        self._clock = clock
        self._queue: asyncio.Queue[Fresh] = asyncio.Queue(MOST)

    def note(self, keys: TenantKeys, accepted: Accepted, answer: object, before: Record | None) -> None:
        """What a store answered, if there is something to compare with."""
        lookup_id = accepted.request.lookup_id
        if lookup_id is None or not is_fresh(lookup_id) or not isinstance(answer, Stored):
            return
        if ticket(lookup_id).at < self._clock() - LATE_MS:
            return
        try:
            self._queue.put_nowait(Fresh(keys, accepted, lookup_id, before))
        except asyncio.QueueFull:
            COMPARED.labels("too_many").inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compare all the time; at the end what waits, as long as nobody hurries."""
        tasks = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), READ_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Until nothing waits."""
        await self._queue.join()

    async def _work(self) -> None:
        while True:
            one = await self._queue.get()
            try:
                await self._compare(one)
            except StoreUnavailableError as error:
                COMPARED.labels("failed").inc()
                log.debug("an answer teaches nothing: %s", error)
            except Exception:  # a defect must not end the comparing
                log.exception("unexpected error while comparing answers")
            finally:
                self._queue.task_done()

    async def _compare(self, one: Fresh) -> None:
        found = await self._decisions.find(one.keys, one.lookup_id)
        if found is None or found.decided.entry_id is None:
            return
        decided = found.decided
        entry_id = (decided.entry_id or b"").hex()
        record = one.before  # to the very words that were asked: the fresh one stands there by now
        if record is None or record.entry_id != entry_id:
            (record,) = await self._responses.records(one.keys, [entry_id], Budget(READ_S))
        if record is None or answer_of(record) != decided.answer:
            COMPARED.labels("gone").inc()
            return
        accepted = one.accepted
        answers = Answers(accepted.text, record.response, bytes(accepted.request.response))
        verdict = await self._comparing.same(answers, accepted.policy.comparison)
        COMPARED.labels(verdict.value).inc()
        same = verdict.correct
        if same is None:
            return
        explored = decided.outcome is Reason.EXPLORE
        outcome = outcome_of(decided, "explore" if explored else "shadow", correct=same)
        await self._outcomes.put(one.keys, found.agent_type, outcome)
        if explored and not same:  # an answer of its own: others may be served it
            await self._store.answer([accepted._replace(settled=True)], one.keys)
