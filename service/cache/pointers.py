"""Pointers: the same words, asked again, need no embedding, search or verifier.

A semantic hit leaves one under the question's own id: which entry was served, how near it is, how the
verifier scored it. The entry is read anew, and everything that a policy, a request or a guard can say is
asked anew; a pointer spares what depends on the two texts alone. One that leads to nothing is passed by.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.cache.digests import DigestKey, TenantKeys
from service.cache.lifetime import end_of
from service.cache.policy import weighed
from service.cache.ports import Clock, KeptPointers, NewPointer, Verifier
from service.cache.question import Question
from service.cache.writing import Writing
from service.model import Candidate, Generation, Pointer, Record, Tier
from service.telemetry import POINTERS

LIFE_MS = 86_400_000
"""An entry that comes later and is nearer isn't seen before the pointer's end, which no hit puts off."""


class Pointers:
    """Leaves pointers, and follows them."""

    def __init__(self, kept: KeptPointers, clock: Clock, redis_s: float) -> None:
        self._kept = kept
        self._clock = clock
        self._writing = Writing[NewPointer](kept, redis_s)

    def found(self, question: Question, keys: TenantKeys, generation: Generation) -> Pointer | None:
        """The one that may lead to an answer, of those that were read for the question."""
        for sealed, key, identity in zip(
            question.pointers or (), keys.keys, question.query.identities, strict=False
        ):
            pointer = None if sealed is None else self._kept.opened(sealed, identity.entry_id, key)
            if pointer is None:
                continue
            why = self._unfit(pointer, question, key, generation)
            if why is None:
                return pointer
            POINTERS.labels(why).inc()
        return None

    def _unfit(
        self, pointer: Pointer, question: Question, key: DigestKey, generation: Generation
    ) -> str | None:
        """Why it leads to nothing, as far as it says itself."""
        if pointer.embedding != generation.embedding:
            return "model"
        if pointer.text != _digest(question, key):  # an id is the same for other spaces at the ends
            return "words"
        if pointer.created_at + LIFE_MS <= self._clock():
            return "expired"
        return None if pointer.similarity >= question.asked.threshold else "threshold"

    def follow(
        self, question: Question, pointer: Pointer, record: Record | None, verifier: Verifier | None
    ) -> None:
        """Serve what it leads to, unless something speaks against that; then the question is as before."""
        why = self._rejected(question, pointer, record, verifier)
        POINTERS.labels(why or "served").inc()
        if why is not None:
            question.forget()

    def _rejected(
        self, question: Question, pointer: Pointer, record: Record | None, verifier: Verifier | None
    ) -> str | None:
        if record is not None and record.stored_at != pointer.stored_at:  # perhaps with another vector
            return "replaced"
        question.judge(Candidate(pointer.entry_id, pointer.similarity), record, self._clock())
        why = question.judged[pointer.entry_id].rejected_by
        if why is not None:
            return why
        if verifier is None or question.needs_no_reading():
            question.settle(0, None, 0.0)
        elif pointer.score is None or pointer.verifier != verifier.version:
            return "unread"
        else:
            policy = question.asked.policy
            question.settle(0, *weighed(pointer.score, pointer.similarity, policy, verifier))
        return "verifier" if question.served is None else None

    def note(
        self, question: Question, keys: TenantKeys, generation: Generation, verifier: Verifier | None
    ) -> None:
        """Leave a pointer to the semantic hit, if it is one, a little later."""
        if question.pointers is None or question.served is None:
            return
        tier, candidate, record = question.served
        if tier is not Tier.SEMANTIC:
            return
        now, end = self._clock(), end_of(record, question.asked.policy)
        score = next(one.score for one in question.held if one.candidate is candidate)
        pointer = Pointer(
            name=question.query.identities[0].entry_id,
            text=_digest(question, keys.current),
            embedding=generation.embedding,
            entry_id=record.entry_id,
            stored_at=record.stored_at,
            similarity=candidate.similarity,
            verifier=None if verifier is None or score is None else verifier.version,
            score=score,
            created_at=now,
        )
        life_ms = LIFE_MS if end is None else min(LIFE_MS, end - now)
        if life_ms > 0:
            self._writing.add(NewPointer(keys, pointer, life_ms))

    async def close(self) -> None:
        """Write what waits to be."""
        await self._writing.close()


def _digest(question: Question, key: DigestKey) -> str:
    return key.digest("pointer", (question.text or "").encode())


@asynccontextmanager
async def pointers(kept: KeptPointers, clock: Clock, redis_s: float) -> AsyncIterator[Pointers]:
    """What waits to be written is written at the end."""
    one = Pointers(kept, clock, redis_s)
    try:
        yield one
    finally:
        await one.close()
