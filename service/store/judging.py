"""What a verdict does: it is kept, and an entry that was wrong is served no more."""

from typing import NamedTuple

from msgspec.structs import replace

from service.cache.decided import Decided, Review, answer_of
from service.cache.decisions import review_of
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.cache.outcomes import Source, outcome_of
from service.cache.ports import Budget
from service.errors import InvalidInputError, NotFoundError, StoreFullError
from service.model import Origin, Record
from service.store.decisions import Found, RedisDecisions
from service.store.invalidator import Invalidator
from service.store.learning import RedisLearning
from service.store.outcomes import RedisOutcomes
from service.store.quarantine import RedisQuarantine
from service.store.responses import RedisResponses
from service.store.reviews import RedisReviews

READ_S = 1.0
HEARD: dict[Source, tuple[Source, ...]] = {"feedback": ("feedback",), "review": ("feedback", "review")}
"""Whose word who says `correct` takes back: a reviewer's holds over a user's."""
UNKNOWN = (
    "no decision of that lookup_id is kept for this tenant: a policy's decisions_s says how long they are, "
    "and an answer shared with another request has none of its own"
)


class Judged(NamedTuple):
    """What became of a verdict."""

    entry_id: str
    quarantined: bool


class Judging:
    """Takes verdicts."""

    def __init__(
        self,
        responses: RedisResponses,
        *,
        decisions: RedisDecisions,
        quarantine: RedisQuarantine,
        outcomes: RedisOutcomes,
        reviews: RedisReviews,
        invalidator: Invalidator,
        learning: RedisLearning,
    ) -> None:
        self._responses = responses
        self._decisions = decisions
        self._quarantine = quarantine
        self._invalidator = invalidator
        self._learning = learning
        self.outcomes = outcomes
        self.reviews = reviews

    async def feedback(
        self, keys: TenantKeys, lookup_id: str, *, correct: bool, note: str | None = None
    ) -> Judged:
        """A user's verdict on a hit. Given again it changes nothing; another one takes its place.

        A note is shown to who reviews it.

        Raises:
            NotFoundError: no decision of that lookup is kept.
            InvalidInputError: it was a miss.
            StoreUnavailableError: Redis does not answer, or has no room: give it again.
        """
        found = await self._decided(keys, lookup_id)
        return await self._take(keys, found, "feedback", note, correct=correct)

    async def review(self, keys: TenantKeys, lookup_id: str, *, correct: bool) -> Judged:
        """A reviewer's verdict on a hit that was queued, or whose decision is kept; it may be changed later.

        Raises:
            NotFoundError: there is neither.
            InvalidInputError: it was a miss.
            StoreUnavailableError: Redis does not answer, or has no room: give it again.
        """
        queued = await self.reviews.one(keys, lookup_id)
        if queued is None:
            found = await self._decided(keys, lookup_id)
        else:
            found = Found(queued.agent_type, queued.decided)
        judged = await self._take(keys, found, "review", correct=correct)
        if queued is not None:
            await self.reviews.done(keys, queued)
        return judged

    async def clear(self, keys: TenantKeys) -> None:
        """Forget a tenant's texts to be judged, and which of its entries answer their own words only.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        await self.reviews.clear(keys)
        await self._quarantine.clear(keys)

    async def _decided(self, keys: TenantKeys, lookup_id: str) -> Found:
        found = await self._decisions.find(keys, lookup_id)
        if found is None:
            raise NotFoundError(UNKNOWN)
        if not found.decided.is_hit:
            raise InvalidInputError("lookup_id", "is a miss's: no answer was served")
        return found

    async def _take(
        self, keys: TenantKeys, found: Found, source: Source, note: str | None = None, *, correct: bool
    ) -> Judged:
        """The verdict is kept last: while it isn't, whoever gives it again has all of it done."""
        one = found.decided
        if one.entry_id is None:
            raise InvalidInputError("lookup_id", "has no entry")
        entry_id, gone = one.entry_id.hex(), False
        if correct:
            await self._quarantine.lift(keys, entry_id, one.lookup_id.hex(), HEARD[source])
        else:
            gone = await self._object(keys, found, source, note)
        await self.outcomes.put(keys, found.agent_type, outcome_of(one, source, correct=correct))
        self._learning.of(keys, found.agent_type)  # is followed from now on
        return Judged(entry_id, gone)

    async def _object(self, keys: TenantKeys, found: Found, source: Source, note: str | None) -> bool:
        """Away with the answer, unless the same was said before, or a reviewer says otherwise."""
        one = found.decided
        same, denial = outcome_of(one, source, correct=False), outcome_of(one, "review", correct=True)
        again, denied = await self.outcomes.are_kept(keys, found.agent_type, [same, denial])
        record, gone = await self._record(keys, one), False
        served = None if record is None or answer_of(record) != one.answer else record
        heard = not again and (source == "review" or not denied)
        if heard and (record is None or served is not None):  # else another answer stands there since
            gone = await self._take_out(keys, one, source)
        if note is not None:
            await self._complain(keys, found, served, note)
        return gone

    async def _complain(self, keys: TenantKeys, found: Found, served: Record | None, note: str) -> None:
        """Have it reviewed; with what is known, where the answer is gone."""
        one = found.decided
        queued = await self.reviews.one(keys, one.lookup_id.hex())
        if queued is None and served is not None:
            queued = review_of(one, served, None)
        elif queued is None:
            queued = Review(
                agent_type=found.agent_type, decided=one, asked=None, stored=None, response="null"
            )
        await self.reviews.put(keys, [replace(queued, note=note)])

    async def _take_out(self, keys: TenantKeys, one: Decided, source: Source) -> bool:
        """Marked first, so that nobody stores it anew as it was, once it is gone. Whether it went."""
        if one.outcome is Origin.SEMANTIC:
            marked = (one.entry_id or b"").hex(), one.lookup_id.hex(), source
            try:
                await self._quarantine.mark(keys, *marked)
            except StoreFullError:  # deleting makes room
                await self._remove(keys, one)
                await self._quarantine.mark(keys, *marked)
        return await self._remove(keys, one)

    async def _remove(self, keys: TenantKeys, one: Decided) -> bool:
        """Unless another answer is there, or one that answers its own words only and was wrong for others."""
        record = await self._record(keys, one)
        if record is not None:
            harmless = one.outcome is Origin.SEMANTIC and record.embedding is None
            if harmless or answer_of(record) != one.answer:
                return False
        where = Where(entry_id=(one.entry_id or b"").hex())
        predicates = await self._invalidator.predicates([where], [Keyspace.RESPONSES])
        done = await self._invalidator.run(keys, predicates, keeps_texts=True)
        return bool(done.deleted.total())

    async def _record(self, keys: TenantKeys, one: Decided) -> Record | None:
        (record,) = await self._responses.records(keys, [(one.entry_id or b"").hex()], Budget(READ_S))
        return record
