"""Answers that were made although there was one: compared in the background, and learned from."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import numpy as np

from service.cache.canonical import Vector
from service.cache.comparing import Answers, Comparing
from service.cache.decided import OWN_BYTES, Decided, answer_of, sum_of
from service.cache.digests import Keyring, TenantKeys
from service.cache.outcomes import Source, outcome_of
from service.cache.ports import Budget, Clock, Embedder
from service.cache.store import Kept
from service.cache.tickets import is_fresh, ticket
from service.errors import EmbedderError, StoreUnavailableError
from service.model import Reason, Record
from service.store.decisions import RedisDecisions
from service.store.outcomes import RedisOutcomes
from service.store.pending import Note, Pending
from service.store.responses import RedisResponses
from service.store.revealing import Revealing
from service.telemetry import COMPARED

log = logging.getLogger(__name__)

MOST = 1000
"""Answers that wait in this process; further ones teach nothing."""
AT_ONCE = 4
READ_S = 2.0
FLUSH_S = 0.5
"""With the round trip less than a second, which is the most that a kill -9 costs."""
LOOK_S = 5.0
"""How often what others left is looked for."""
LATE_MS = 3_600_000
"""Answers to lookups longer ago teach nothing: the world may have changed meanwhile."""


class Fresh(NamedTuple):
    """An answer that was stored."""

    name: bytes  # of its note
    note: Note
    record: Record | None  # as it was stored; None: another process did
    vector: Vector | None = None


class Comparer:
    """Holds fresh answers against those that were there."""

    def __init__(
        self,
        comparing: Comparing,
        embedder: Embedder,
        *,
        keyring: Keyring,
        responses: RedisResponses,
        decisions: RedisDecisions,
        outcomes: RedisOutcomes,
        pending: Pending,
        revealing: Revealing,
        clock: Clock,
    ) -> None:
        self._comparing = comparing
        self._embedder = embedder
        self._keyring = keyring
        self._responses = responses
        self._decisions = decisions
        self._outcomes = outcomes
        self._pending = pending
        self._revealing = revealing
        self._clock = clock
        self._queue: asyncio.Queue[Fresh] = asyncio.Queue(MOST)

    def note(self, keys: TenantKeys, kept: Kept) -> None:
        """What was stored, if there is something to compare with."""
        request, entry = kept.accepted.request, kept.entry
        lookup_id = request.lookup_id
        if lookup_id is None or not is_fresh(lookup_id) or ticket(lookup_id).at < self._clock() - LATE_MS:
            return
        if self._queue.full():
            COMPARED.labels("too_many").inc()
            return
        given = kept.accepted.query.vector if entry.hidden else None
        note = Note(
            tenant=keys.tenant,
            lookup_id=lookup_id,
            entry_ids=[entry.record.entry_id, *entry.superseded],
            stored_at=entry.record.stored_at,
            answer=answer_of(entry.record),
            how=kept.accepted.policy.comparison,
            hidden=entry.hidden,
            vector=None if given is None else given.astype("<f4").tobytes(),
            before=None if kept.before is None else kept.before.response,
        )
        self._queue.put_nowait(Fresh(self._pending.add(note), note, entry.record, entry.vector))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compare all the time; at the end what waits, as long as nobody hurries: others do the rest."""
        tasks = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]
        tasks.append(asyncio.create_task(self._keep()))
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), READ_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(StoreUnavailableError):
                await self._pending.flush()

    async def settled(self) -> None:
        """Until nothing waits in this process."""
        await self._queue.join()

    async def look(self) -> None:
        """Take up what other processes left.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        for name, note in await self._pending.left(MOST - self._queue.qsize()):
            self._queue.put_nowait(Fresh(name, note, None))

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._pending.flush()
                if loop.time() - looked_at > LOOK_S:
                    looked_at = loop.time()
                    await self.look()
            except StoreUnavailableError:
                pass  # what is written is there, the rest is tried again
            except Exception:  # a defect must not end it
                log.exception("unexpected error while keeping what is to be compared")

    async def _work(self) -> None:
        while True:
            one = await self._queue.get()
            try:
                await self._compare(one)
            except StoreUnavailableError as error:
                COMPARED.labels("failed").inc()
                log.debug("an answer is compared later: %s", error)
                self._pending.let_go(one.name)
            except Exception:  # a defect must not end the comparing
                log.exception("unexpected error while comparing answers")
                self._pending.done(one.name)
            else:
                self._pending.done(one.name)
            finally:
                self._queue.task_done()

    async def _compare(self, one: Fresh) -> None:
        note, keys = one.note, self._keyring.of(one.note.tenant)
        found = await self._decisions.find(keys, note.lookup_id)
        late = ticket(note.lookup_id).at < self._clock() - LATE_MS
        if late or found is None or found.decided.entry_id is None:
            COMPARED.labels("gone").inc()
            return
        decided, candidate = found.decided, found.decided.entry_id.hex()
        if decided.own not in {bytes.fromhex(it)[:OWN_BYTES] for it in note.entry_ids}:
            COMPARED.labels("other").inc()  # it names another question's lookup
            return
        record, cached = await self._answers(keys, one, candidate, decided)
        if record is None or cached is None:
            COMPARED.labels("gone").inc()
            return
        answers = Answers(record.text or "", cached, record.response)
        verdict = await self._comparing.same(answers, note.how)
        COMPARED.labels(verdict.value).inc()
        if verdict.correct is not None:
            source: Source = "explore" if decided.outcome is Reason.EXPLORE else "shadow"
            outcome = outcome_of(decided, source, correct=verdict.correct)
            await self._outcomes.put(keys, found.agent_type, outcome)
        if note.hidden and (verdict.correct is False or candidate in note.entry_ids):
            await self._reveal(keys, one, record)  # an answer of its own: others may be served it

    async def _answers(
        self, keys: TenantKeys, one: Fresh, candidate: str, decided: Decided
    ) -> tuple[Record | None, bytes | None]:
        """The fresh one's record, and what would have been served; None: it is another by now, or gone."""
        note = one.note
        record, there = await self._responses.records(keys, [note.entry_ids[0], candidate], Budget(READ_S))
        if one.record is not None:
            record = one.record
        elif record is None or (record.stored_at, answer_of(record)) != (note.stored_at, note.answer):
            return None, None
        if candidate in note.entry_ids:  # the fresh one took its place
            return record, _if(note.before, decided)
        return record, _if(None if there is None else there.response, decided)

    async def _reveal(self, keys: TenantKeys, one: Fresh, record: Record) -> None:
        vector = one.vector
        generation = self._responses.generation
        if vector is None and one.note.vector is not None:
            if generation is None or generation.embedding != record.embedding:
                return  # by then another model serves: it stays as it is
            vector = np.frombuffer(one.note.vector, "<f4")
        if vector is None:
            try:
                (vector,) = await self._embedder.embed([record.standalone or record.text or ""])
            except EmbedderError:
                return
        await self._revealing.reveal(keys, record, vector, ticket(one.note.lookup_id), Budget(READ_S))


def _if(response: bytes | None, decided: Decided) -> bytes | None:
    """An answer, if it is the one that was decided on."""
    return response if response is not None and sum_of(response) == decided.answer else None
