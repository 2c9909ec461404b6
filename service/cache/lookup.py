"""A lookup: exact tier → pointer → embedder → semantic tier → guards → verifier → hit or miss.

Works on batches, with one round trip to Redis per stage; a single lookup is a batch of one. What may be
served is decided in `guards.py` and by the verifier. A failing Redis, embedder or verifier makes misses,
never errors.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import msgspec

from service.cache import canonical
from service.cache.bypass import allowed, passed_by
from service.cache.digests import TenantKeys
from service.cache.embeddings import Embeddings, Wanted
from service.cache.guards import Asked
from service.cache.learning.learned import Learned
from service.cache.learning.trial import Trial
from service.cache.leases import Leases, Wish, life_s
from service.cache.memory import Memory
from service.cache.pointers import Pointers
from service.cache.policy import DEFAULT, filled, threshold_of, weighed
from service.cache.ports import (
    Budget,
    Clock,
    Embedder,
    Learning,
    Policies,
    Responses,
    Sought,
    Uses,
    Verifier,
    Work,
)
from service.cache.question import VERIFIED, Question
from service.cache.recent import Share
from service.cache.rewriting import Rewriting, as_it_is, is_wanted
from service.cache.sharing import Shared
from service.cache.tickets import SKEW_MS
from service.errors import EmbedderError, StoreUnavailableError, VerifierError
from service.model import Candidate, Generation, Hit, LookupRequest, Miss, Policy, QueryFields, Reason, Tier

ITEM_S = 0.002
"""What each further item of a batch adds to the time for Redis."""

NOBODY: Mapping[int, float] = {}

WASTED = 0.1
"""Share of searches that may be in vain for others to go along: one costs as much as ten round trips."""

FIRST = 2
"""How many of its candidates a question reads first: mostly the nearest is served."""


@dataclass(slots=True)
class Run:
    """One batch on its way."""

    keys: TenantKeys
    budget: Budget
    work: Work = field(default_factory=Work)

    @property
    def stages_ms(self) -> dict[str, float]:
        """Time per stage."""
        return self.work.stages_ms


class Lookup:
    """Answers lookups from the stores it is given."""

    def __init__(
        self,
        responses: Responses,
        embedder: Embedder,
        *,
        embeddings: Embeddings,
        verifier: Verifier | None,
        policies: Policies,
        rewriting: Rewriting,
        leases: Leases,
        uses: Uses,
        clock: Clock,
        redis_s: float,
        pointers: Pointers | None = None,
        memory: Memory | None = None,
        learning: Learning | None = None,
    ) -> None:
        self._learning = learning
        self._memory = memory or Memory(0)
        self._responses = responses
        self._embedder = embedder
        self._embeddings = embeddings
        self._verifier = verifier
        self._policies = policies
        self._rewriting = rewriting
        self._leases = leases
        self._shared = Shared[Question]()
        self._uses = uses
        self._clock = clock
        self._redis_s = redis_s
        self._pointers = pointers
        self._own = Share()  # of questions that brought a vector, and were answered by their own entry

    def question(self, request: LookupRequest, keys: TenantKeys) -> Question:
        """Check a request.

        Raises:
            InvalidInputError: names the field.
        """
        generation = self._responses.generation
        query = canonical.query(request, keys, None if generation is None else generation.dim)
        found = self._policies.of(keys, request.agent_type)
        policy = found or DEFAULT
        own = 1.0 if generation is None else self._threshold(keys, request.agent_type, policy, generation)
        threshold = own if request.threshold is None else request.threshold
        question = Question(
            query=query,
            trial=self._trial(keys, request.agent_type, policy),
            tiers=allowed(request.tiers, policy),
            asked=Asked(query.identities, as_it_is(query, policy), threshold, policy),
            explain=request.explain,
            in_force=filled(policy, own, self._verifier) if request.explain else None,
            vector=query.vector,
        )
        if found is None:
            question.close()
        elif not question.tiers:
            question.pass_by("tiers")
        elif (rule := passed_by(query, request, policy)) is not None:
            question.pass_by(rule)
        return question

    def _trial(self, keys: TenantKeys, agent_type: str, policy: Policy) -> Trial | None:
        """Of the mode `verified`; where nothing is learned, a new agent_type's."""
        if policy.mode != "verified":
            return None
        learned = None if self._learning is None else self._learning.of(keys, agent_type)
        return Trial(learned or Learned(), policy.max_error_rate)

    def name(self, request: QueryFields, keys: TenantKeys) -> str:
        """The id that a request's entry has.

        Raises:
            InvalidInputError: names the field.
        """
        return canonical.query(request, keys, None).identities[0].entry_id

    def policy(self, keys: TenantKeys, agent_type: str) -> Policy:
        """An agent_type's policy with the defaults in force filled in.

        Raises:
            StoreUnavailableError: the service is not ready, or the policy can't be read.
        """
        generation, policy = self._responses.generation, self._policies.of(keys, agent_type)
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        if policy is None:
            raise StoreUnavailableError(
                "this agent_type's policy was altered, or another version of semcached set it: PUT it again"
            )
        return filled(policy, self._threshold(keys, agent_type, policy, generation), self._verifier)

    def _threshold(self, keys: TenantKeys, agent_type: str, policy: Policy, generation: Generation) -> float:
        """Where a request names none: the policy's, or the one that follows the verdicts."""
        if policy.mode == "adaptive" and self._learning is not None:
            return self._learning.threshold(keys, agent_type, policy)
        return threshold_of(policy, generation, self._verifier)

    def recalled(self, question: Question, keys: TenantKeys) -> bool:
        """Whether the question is answered from this process' memory now. Awaits nothing, takes some µs.

        Only under the current secret: what lies under the previous one, Redis serves.
        """
        if Tier.EXACT not in question.tiers or question.asked.policy.shadow:
            return False
        entry_id = question.own_id
        kept = self._memory.get(keys.tenant, entry_id)
        if kept is None or not question.judge_exact(entry_id, kept.record, self._clock()):
            return False
        question.recalled, question.number = True, max(kept.number, self._clock() - SKEW_MS)
        if question.asked.policy.max_entries is not None:
            self._uses.hit(keys.tenant, kept.record)
        return True

    async def answer(
        self,
        questions: Sequence[Question],
        keys: TenantKeys,
        work: Work | None = None,
        waits: Mapping[int, float] = NOBODY,
    ) -> list[Hit | Miss]:
        """One answer per question, in order. Never fails: what can't be looked up is a miss.

        Args:
            questions: a batch.
            keys: the tenant's.
            work: into which goes what it took.
            waits: which of them want a lease, s. Nobody waits: a batch would hold up what it leads.
        """
        begun = perf_counter()
        stages_ms = await self._look(questions, keys, work or Work())
        generation, now = self._responses.generation, self._clock()
        wanted = [(at, wait_s) for at, wait_s in waits.items() if questions[at].missing]
        taken = await asyncio.gather(*(self._lease(questions[at], keys, s, now) for at, s in wanted))
        led = {at for (at, _), one in zip(wanted, taken, strict=True) if one}
        latency_ms = _ms_since(begun)
        return [
            question.answer(generation, now, stages_ms, latency_ms, lease=at in led)
            for at, question in enumerate(questions)
        ]

    def recall(self, question: Question, keys: TenantKeys, work: Work) -> Hit | Miss | None:
        """The answer, if this process' memory has it; nothing is awaited. None: ask `answer_one`."""
        begun = perf_counter()
        if not self.recalled(question, keys):
            return None
        work.stages_ms["memory"] = latency_ms = _ms_since(begun)
        return question.answer(self._responses.generation, self._clock(), work.stages_ms, latency_ms)

    async def answer_one(self, question: Question, keys: TenantKeys, work: Work) -> Hit | Miss:
        """The answer to what `recall` doesn't know. Never fails."""
        begun = perf_counter()
        await self._search_for((question,), Run(keys, Budget(self._redis_s), work))
        generation, now = self._responses.generation, self._clock()
        return question.answer(generation, now, work.stages_ms, _ms_since(begun))

    async def _lease(self, question: Question, keys: TenantKeys, wait_s: float, now: int) -> bool:
        name = question.query.identities[0].entry_id
        return await self._leases.take(keys, name, question.token(now), life_s(wait_s))

    async def answer_waiting(
        self, request: LookupRequest, keys: TenantKeys, wait_s: float, work: Work, *, leads: bool
    ) -> tuple[Question, Hit | Miss]:
        """One answer, for which a miss waits up to `wait_s` s while somebody else makes it.

        Args:
            request: as it came.
            keys: the tenant's.
            wait_s: how long.
            work: into which goes what it took.
            leads: whether the caller can store, and so may be the one who makes it.

        Raises:
            InvalidInputError: names the field.
        """
        begun = perf_counter()
        exact = msgspec.structs.replace(request, tiers=[Tier.EXACT])
        explored: list[Question] = []

        async def look() -> Question:
            """Whose candidate isn't served waits for his own words: another draw would be one too many."""
            question = self.question(exact if explored else request, keys)
            if self.recalled(question, keys):
                return question
            if question.explain:
                await self._looked(question, keys, work)
            else:
                question = replace(
                    await self._shared.call(question.likeness, lambda: self._looked(question, keys, work))
                )
            if explored and question.served is None:
                return explored[0]
            if question.explored is not None:
                explored.append(question)
            return question

        name = self.name(request, keys)
        question, lease, work.waited_ms = await self._leases.led(Wish(keys, name, wait_s, leads), look)
        generation, now, latency_ms = self._responses.generation, self._clock(), _ms_since(begun)
        return question, question.answer(generation, now, work.stages_ms, latency_ms, lease=lease)

    async def lead(
        self, missed: Question, request: LookupRequest, keys: TenantKeys, wait_s: float, work: Work
    ) -> tuple[Question, Hit | Miss]:
        """For a question that was looked up and missed: the lease, or what somebody else makes of it in time.

        Args:
            missed: the question.
            request: what it was made from.
            keys: the tenant's.
            wait_s: how long.
            work: into which goes what it took.
        """
        begun, first = perf_counter(), [missed]
        exact = msgspec.structs.replace(request, tiers=[Tier.EXACT])

        async def look() -> Question:
            if first:
                return first.pop()
            question = self.question(exact, keys)
            return replace(
                await self._shared.call(question.likeness, lambda: self._looked(question, keys, work))
            )

        name = missed.query.identities[0].entry_id
        question, lease, work.waited_ms = await self._leases.led(Wish(keys, name, wait_s, leads=True), look)
        generation, now = self._responses.generation, self._clock()
        return question, question.answer(generation, now, work.stages_ms, _ms_since(begun), lease=lease)

    async def _looked(self, question: Question, keys: TenantKeys, work: Work) -> Question:
        await self._look([question], keys, work)
        return question

    async def _look(self, questions: Sequence[Question], keys: TenantKeys, work: Work) -> dict[str, float]:
        """Bring each question to its end; ms per stage."""
        run = Run(keys, Budget(self._redis_s + ITEM_S * len(questions[1:])), work)
        await self._search_for(self._unknown(questions, run), run)
        return run.stages_ms

    async def _search_for(self, questions: Sequence[Question], run: Run) -> None:
        """Where memory has no answer."""
        try:
            await self._exact(questions, run)
            unserved = [question for question in questions if question.served is None]
            if unserved:
                await self._pointed(unserved, run)
                await self._semantic([q for q in unserved if q.served is None], run)
        except StoreUnavailableError:
            for question in (one for one in questions if one.tiers):
                question.reason, question.rule = Reason.DEGRADED, None
        for question in questions:
            if question.asked.policy.shadow:
                question.shadow()
            if question.served is not None and question.asked.policy.max_entries is not None:
                self._uses.hit(run.keys.tenant, question.served[2])

    def _unknown(self, questions: Sequence[Question], run: Run) -> list[Question]:
        """Those that memory has no answer to."""
        begun = perf_counter()
        unknown = [one for one in questions if not (one.recalled or self.recalled(one, run.keys))]
        if len(unknown) < len(questions):
            run.stages_ms["memory"] = _ms_since(begun)
        return unknown

    async def _exact(self, questions: Sequence[Question], run: Run) -> None:
        begun = perf_counter()
        asked = [question for question in questions if question.tiers]
        if not asked:
            return
        expected = [self._is_expected(one) for one in asked]
        sought = [
            Sought(_ids(one)) if known else self._sought(one, run.keys, alone=len(asked) == 1)
            for one, known in zip(asked, expected, strict=True)
        ]
        await self._read_first(asked, sought, run)
        if len(asked) == 1 and asked[0].vector is not None and not expected[0]:
            self._own.note(asked[0].served is not None)
        gone = [one for one, known in zip(asked, expected, strict=True) if known and one.served is None]
        for question in gone:
            self._memory.recent.discard(question.own_id)
        again = [one for one in gone if one.may_be_embedded]
        if again:
            sought = [self._sought(one, run.keys, alone=False) for one in again]  # they brought no vector
            await self._read_first(again, sought, run)
        run.stages_ms["exact"] = _ms_since(begun)

    def _is_expected(self, question: Question) -> bool:
        """Whether its own entry was served lately: it will be again, and nothing more need be read."""
        return (
            question.ends_with_its_own
            and Tier.EXACT in question.tiers
            and question.own_id in self._memory.recent
        )

    async def _read_first(self, asked: Sequence[Question], sought: Sequence[Sought], run: Run) -> None:
        """Look for each under its own ids, and take what else was read for it."""
        found, number = await self._responses.first(run.keys, sought, run.budget)
        now = self._clock()
        for question, wanted, first in zip(asked, sought, found, strict=True):
            question.number, question.pointers, question.found = number, first.pointers, first.near
            if wanted.embedding is not None:
                question.kept = Wanted(question.text or "", wanted.embedding, first.embedding)
            for entry_id, record in zip(wanted.entry_ids, first.records, strict=True):
                if question.judge_exact(entry_id, record, now) and entry_id == question.own_id:
                    self._memory.hit(run.keys, entry_id)

    def _sought(self, question: Question, keys: TenantKeys, *, alone: bool) -> Sought:
        """Its own entry, and what is of use if that isn't there.

        A search goes along with one that is `alone`, unless such questions were hits too often: those of a
        batch would hold up what needs none.
        """
        ids = _ids(question)
        along = alone and self._own.value < WASTED
        if along and question.vector is not None and self._may_be_searched(question):
            return Sought(ids, search=question.search(question.vector, None))
        if not question.may_be_embedded:
            return Sought(ids)
        name = self._embeddings.name(question.text or "", keys)
        return Sought(ids, name, pointed=self._pointers is not None and question.may_be_pointed)

    def _may_be_searched(self, question: Question) -> bool:
        """Whether the vector that the caller gave is what the semantic tier will search for."""
        rewritten = is_wanted(question.query, question.asked.policy, question.asked.standalone)
        return Tier.SEMANTIC in question.tiers and not rewritten and self._unfit(question) is None

    async def _pointed(self, questions: Sequence[Question], run: Run) -> None:
        """Serve what answered the same words before, where nothing speaks against it now."""
        begun, pointers, generation = perf_counter(), self._pointers, self._responses.generation
        if pointers is None or generation is None:
            return
        found = [(q, pointers.found(q, run.keys, generation)) for q in questions]
        leads = [(question, pointer) for question, pointer in found if pointer is not None]
        if not leads:
            return
        sought = [Sought([pointer.entry_id]) for _, pointer in leads]
        read, _ = await self._responses.first(run.keys, sought, run.budget)
        for (question, pointer), first in zip(leads, read, strict=True):
            pointers.follow(question, pointer, first.records[0], self._verifier)
        run.stages_ms["pointer"] = _ms_since(begun)

    async def _semantic(self, questions: Sequence[Question], run: Run) -> None:
        asked = [question for question in questions if Tier.SEMANTIC in question.tiers]
        asked = await self._rewrite(asked, run)
        await self._embed(asked, run)
        asked = [question for question in asked if question.vector is not None]
        await self._search(asked, run, exhaustive=False)
        await self._search([q for q in asked if q.hidden], run, exhaustive=True)
        await self._verify([q for q in asked if q.held], run)
        for question in asked:
            question.explain_miss()
            self._point(question, run)

    def _point(self, question: Question, run: Run) -> None:
        """Leave a pointer to what is served."""
        generation = self._responses.generation
        if self._pointers is not None and generation is not None:
            self._pointers.note(question, run.keys, generation, self._verifier)

    async def _rewrite(self, questions: Sequence[Question], run: Run) -> list[Question]:
        """The questions that can be looked up; those whose policy wants it in words that need no history."""
        begun = perf_counter()
        wanted = [
            q
            for q in questions
            if is_wanted(q.query, q.asked.policy, q.asked.standalone)
            and self._embedder.unfit(q.query.text or "") is None  # else `_embed` says why
        ]
        if not wanted:
            return list(questions)
        texts = await self._rewriting.texts([q.query for q in wanted], run.keys, run.budget)
        for question, text in zip(wanted, texts, strict=True):
            question.asked = question.asked._replace(standalone=text)
            if text is None:
                question.fail("rewriter")
        run.stages_ms["rewrite"] = _ms_since(begun)
        return [question for question in questions if question.reason is not Reason.DEGRADED]

    async def _embed(self, questions: Sequence[Question], run: Run) -> None:
        begun = perf_counter()
        for question in questions:
            why = self._unfit(question)
            if why is not None:
                question.reason, question.rule, question.vector = Reason.POLICY, why, None
        asked = [q for q in questions if q.vector is None and q.reason is not Reason.POLICY]
        if not asked:
            return
        vectors = await self._embeddings.vectors([question.wanted for question in asked], run.keys, run.work)
        for question, vector in zip(asked, vectors, strict=True):
            if isinstance(vector, EmbedderError):
                question.reason = Reason.DEGRADED
            else:
                question.vector = vector
        run.stages_ms["embed"] = _ms_since(begun)

    def _unfit(self, question: Question) -> str | None:
        """Why the semantic tier can't take it, also with a vector: that can't speak for an image."""
        if question.text is None:
            return "not_plain_text"
        if len(question.text) > canonical.LONGEST_TEXT:
            return "too_long"
        return self._embedder.unfit(question.text) if question.vector is None else None

    async def _search(self, questions: Sequence[Question], run: Run, *, exhaustive: bool) -> None:
        begun = perf_counter()
        if not questions:
            return
        live_at = self._clock() if exhaustive else None
        unknown = [q for q in questions if exhaustive or q.found is None]
        searches = [q.search(q.vector, live_at) for q in unknown if q.vector is not None]
        if searches:
            pages = await self._responses.nearest(run.keys, searches, run.budget)
            for question, page in zip(unknown, pages, strict=True):
                question.found = page
        await self._judge([(q, (q.found or ())[:FIRST]) for q in questions], run)
        await self._judge([(q, (q.found or ())[FIRST:]) for q in questions], run)
        run.stages_ms["exhaustive" if exhaustive else "semantic"] = _ms_since(begun)

    async def _judge(self, pages: Sequence[tuple[Question, Sequence[Candidate]]], run: Run) -> None:
        """Read and judge candidates, nearest first, of the questions that need more."""
        candidates = [(q, candidate) for q, page in pages if q.looks_on for candidate in page]
        wanted = dict.fromkeys(c.entry_id for q, c in candidates if c.similarity >= q.asked.threshold)
        read = await self._responses.records(run.keys, list(wanted), run.budget)
        records = dict(zip(wanted, read, strict=True))
        now = self._clock()
        for question, candidate in candidates:
            if question.looks_on:
                question.judge(candidate, records.get(candidate.entry_id), now)

    async def _verify(self, questions: Sequence[Question], run: Run) -> None:
        """Read the nearest candidates that nothing speaks against, one by one until one may be served."""
        begun = perf_counter()
        for question in questions:
            if self._verifier is None or question.needs_no_reading():
                question.settle(0, None, 0.0)
        for rank in range(VERIFIED):
            asked = [q for q in questions if q.is_open and len(q.held) > rank]
            if self._verifier is None or not asked:
                return
            await self._read(self._verifier, asked, rank)
            run.stages_ms["verify"] = _ms_since(begun)

    async def _read(self, verifier: Verifier, questions: Sequence[Question], rank: int) -> None:
        pairs = [(question.text or "", question.held[rank].text) for question in questions]
        try:
            scores = await verifier.scores(pairs)
        except VerifierError:
            for question in questions:
                question.fail("verifier")
            return
        for question, score in zip(questions, scores, strict=True):
            held = question.held[rank]
            held.score, similarity = score, held.candidate.similarity
            question.settle(rank, *weighed(score, similarity, question.asked.policy, verifier))


def _ids(question: Question) -> list[str]:
    return [one.entry_id for one in question.query.identities] if Tier.EXACT in question.tiers else []


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 3)
