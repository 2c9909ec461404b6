"""A lookup: exact tier → embedder → semantic tier → guards → hit or miss.

Works on batches, with one round trip to Redis per stage; a single lookup is a batch of one. What may be
served is decided in `guards.rejection`. A failing Redis or embedder makes misses, never errors.
"""

from collections.abc import Sequence
from time import perf_counter

from service.cache import canonical
from service.cache.digests import TenantKeys
from service.cache.ports import Clock, Embedder, Responses, Search
from service.cache.question import Question
from service.errors import EmbedderError, StoreUnavailableError
from service.model import Candidate, Hit, LookupRequest, Miss, Reason, Tier

Stages = dict[str, float]
"""ms per stage."""


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
        query = canonical.query(request, keys, None if generation is None else generation.dim)
        default = 1.0 if generation is None else generation.threshold
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
        stages: Stages = {}
        try:
            await self._exact(questions, keys, stages)
            await self._semantic([q for q in questions if q.served is None], keys, stages)
        except StoreUnavailableError:
            for question in questions:
                question.reason = Reason.DEGRADED
        generation, now, latency_ms = self._responses.generation, self._clock(), _ms_since(begun)
        return [question.answer(generation, now, stages, latency_ms) for question in questions]

    async def _exact(self, questions: Sequence[Question], keys: TenantKeys, stages: Stages) -> None:
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

    async def _semantic(self, questions: Sequence[Question], keys: TenantKeys, stages: Stages) -> None:
        asked = [question for question in questions if Tier.SEMANTIC in question.tiers]
        await self._embed(asked, stages)
        asked = [question for question in asked if question.vector is not None]
        await self._search(asked, keys, stages, exhaustive=False)
        await self._search([q for q in asked if q.hidden], keys, stages, exhaustive=True)
        for question in asked:
            question.explain_miss()

    async def _embed(self, questions: Sequence[Question], stages: Stages) -> None:
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
        self, questions: Sequence[Question], keys: TenantKeys, stages: Stages, *, exhaustive: bool
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
        wanted = dict.fromkeys(c.entry_id for q, c in candidates if c.similarity >= q.threshold)
        records = dict(zip(wanted, await self._responses.records(keys, list(wanted)), strict=True))
        now = self._clock()
        for question, candidate in candidates:
            question.judge(candidate, records.get(candidate.entry_id), now, Tier.SEMANTIC)
        stages["exhaustive" if exhaustive else "semantic"] = _ms_since(begun)


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 3)
