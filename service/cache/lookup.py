"""A lookup: exact tier → embedder → semantic tier → guards → hit or miss.

Works on batches, with one round trip to Redis per stage; a single lookup is a batch of one.
`rejection` decides what may be served. A failing Redis or embedder makes misses, never errors.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import msgspec

from service.cache import canonical
from service.cache.canonical import Identity, Query, Vector
from service.cache.digests import TenantKeys
from service.cache.ports import Clock, Embedder, Responses, Search
from service.errors import EmbedderError, StoreUnavailableError
from service.model import (
    Candidate,
    Decision,
    Hit,
    JudgedCandidate,
    LookupRequest,
    Miss,
    Nearest,
    Reason,
    Record,
    Tier,
)

GUARDS = frozenset({"history"})
NOT_THERE = frozenset({"gone", "scope", "expired"})


def rejection(
    candidate: Candidate, record: Record | None, asked: Sequence[Identity], threshold: float, now: int
) -> str | None:
    """Why a candidate may not be served; None: it may. `asked` is the query under each secret."""
    if record is None:
        return "gone"
    identity = next((one for one in asked if one.scope == record.scope), None)
    if identity is None:
        return "scope"
    if record.expires_at is not None and record.expires_at <= now:
        return "expired"
    if not candidate.similarity >= threshold:  # so that NaN is rejected
        return "threshold"
    if record.history != identity.history:
        return "history"
    return None


@dataclass(slots=True)
class Question:
    """A question on its way to an answer."""

    query: Query
    tiers: Sequence[Tier]
    threshold: float
    explain: bool
    vector: Vector | None
    judged: dict[str, JudgedCandidate] = field(default_factory=dict)  # nearest first
    served: tuple[Tier, Candidate, Record] | None = None
    reason: Reason = Reason.EMPTY
    rule: str | None = None

    def judge(self, candidate: Candidate, record: Record | None, now: int, tier: Tier) -> None:
        """Serve the candidate if nothing speaks against it and nothing nearer was served."""
        why = rejection(candidate, record, self.query.identities, self.threshold, now)
        verdict = JudgedCandidate(candidate.entry_id, candidate.similarity, why)
        if tier is Tier.SEMANTIC:
            self.judged[candidate.entry_id] = verdict
        if why is None and record is not None and self.served is None:
            self.served = (tier, candidate, record)

    @property
    def hidden(self) -> bool:
        """Only rejected candidates were seen, none below the threshold: nearer ones may hide behind."""
        return self.served is None and all(j.rejected_by != "threshold" for j in self.judged.values())

    def nearest(self) -> JudgedCandidate | None:
        """The nearest candidate that is really there."""
        return next((j for j in self.judged.values() if j.rejected_by not in NOT_THERE), None)


class Lookup:
    """Answers lookups from the stores it is given."""

    def __init__(self, responses: Responses, embedder: Embedder, clock: Clock) -> None:
        self._responses = responses
        self._embedder = embedder
        self._clock = clock

    def question(self, request: LookupRequest, keys: TenantKeys) -> Question:
        """Check a request.

        Raises:
            InvalidInputError: names the field.
        """
        generation = self._responses.generation
        query = canonical.query(request, keys, generation and generation.dim)
        default = generation.threshold if generation else 1.0
        return Question(
            query=query,
            tiers=request.tiers or tuple(Tier),
            threshold=default if request.threshold is None else request.threshold,
            explain=request.explain,
            vector=query.vector,
        )

    async def answer(self, questions: Sequence[Question], keys: TenantKeys) -> list[Hit | Miss]:
        """One answer per question, in order. Never fails: what can't be looked up is a miss."""
        begun = perf_counter()
        stages: dict[str, float] = {}
        try:
            await self._exact(questions, keys, stages)
            await self._semantic([q for q in questions if q.served is None], keys, stages)
        except StoreUnavailableError:
            for question in questions:
                question.reason = Reason.DEGRADED
        return [self._finish(question, begun, stages) for question in questions]

    async def _exact(self, questions: Sequence[Question], keys: TenantKeys, stages: dict[str, float]) -> None:
        begun = perf_counter()
        wanted = [
            (question, identity)
            for question in questions
            if Tier.EXACT in question.tiers
            for identity in question.query.identities
        ]
        records = await self._responses.records(keys, [identity.entry_id for _, identity in wanted])
        now = self._clock()
        for (question, identity), record in zip(wanted, records, strict=True):
            question.judge(Candidate(identity.entry_id, 1.0), record, now, Tier.EXACT)
        stages["exact"] = _ms_since(begun)

    async def _semantic(self, questions: Sequence[Question], keys: TenantKeys, stages: dict[str, float]) -> None:
        asked = [question for question in questions if Tier.SEMANTIC in question.tiers]
        await self._embed(asked, stages)
        asked = [question for question in asked if question.vector is not None]
        await self._search(asked, keys, stages, exhaustive=False)
        await self._search([q for q in asked if q.hidden], keys, stages, exhaustive=True)
        for question in asked:
            question.reason, question.rule = _explained(question.nearest())

    async def _embed(self, questions: Sequence[Question], stages: dict[str, float]) -> None:
        begun = perf_counter()
        texts: list[tuple[Question, str]] = []
        for question in questions:
            text = question.query.text
            if question.vector is not None:
                continue
            question.rule = "not_plain_text" if text is None else self._embedder.unfit(text)
            if text is None or question.rule is not None:
                question.reason = Reason.POLICY
            else:
                texts.append((question, text))
        if not texts:
            return
        try:
            vectors = await self._embedder.embed([text for _, text in texts])
        except EmbedderError:
            for question, _ in texts:
                question.reason = Reason.DEGRADED
        else:
            for (question, _), vector in zip(texts, vectors, strict=True):
                question.vector = vector
        stages["embed"] = _ms_since(begun)

    async def _search(
        self, questions: Sequence[Question], keys: TenantKeys, stages: dict[str, float], *, exhaustive: bool
    ) -> None:
        begun = perf_counter()
        live_at = self._clock() if exhaustive else None
        searches = [
            Search(question.query.identities, question.vector, live_at)
            for question in questions
            if question.vector is not None
        ]
        if not searches:
            return
        found = await self._responses.nearest(keys, searches)
        candidates = [(q, candidate) for q, page in zip(questions, found, strict=True) for candidate in page]
        records = await self._responses.records(keys, [candidate.entry_id for _, candidate in candidates])
        now = self._clock()
        for (question, candidate), record in zip(candidates, records, strict=True):
            question.judge(candidate, record, now, Tier.SEMANTIC)
        stages["exhaustive" if exhaustive else "semantic"] = _ms_since(begun)

    def _finish(self, question: Question, begun: float, stages: dict[str, float]) -> Hit | Miss:
        generation = self._responses.generation
        decision = Decision(
            tiers=list(question.tiers),
            threshold=question.threshold if generation else None,
            generation=generation.number if generation else None,
            candidates=list(question.judged.values()),
            stages_ms=stages,
        )
        lookup_id = secrets.token_hex(16)
        shown = decision if question.explain else msgspec.UNSET
        if question.served is not None:
            tier, candidate, record = question.served
            now = self._clock()
            return Hit(
                lookup_id=lookup_id,
                tier=tier,
                entry_id=record.entry_id,
                response=msgspec.Raw(record.response),
                similarity=candidate.similarity,
                threshold=question.threshold if tier is Tier.SEMANTIC else None,
                age_s=max(0, now - record.stored_at) / 1000,
                expires_in_s=None if record.expires_at is None else max(0, record.expires_at - now) / 1000,
                sources=record.sources,
                attributes=record.attributes,
                metadata=msgspec.Raw(record.metadata),
                latency_ms=_ms_since(begun),
                decision=shown,
            )
        nearest = question.nearest()
        return Miss(
            lookup_id=lookup_id,
            reason=question.reason,
            rule=question.rule or msgspec.UNSET,
            nearest=nearest and Nearest(nearest.entry_id, nearest.similarity),
            latency_ms=_ms_since(begun),
            decision=shown,
        )


def _explained(nearest: JudgedCandidate | None) -> tuple[Reason, str | None]:
    """The miss reason that the nearest candidate stands for."""
    if nearest is None:
        return Reason.EMPTY, None
    if nearest.rejected_by in GUARDS:
        return Reason.GUARD, nearest.rejected_by
    return Reason.BELOW_THRESHOLD, None


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 3)
