"""What a verdict does: it is kept, and an entry that was wrong is served no more."""

from typing import NamedTuple

from msgspec.structs import replace

from service.cache.decided import Decided, answer_of
from service.cache.decisions import review_of
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.cache.outcomes import Source, outcome_of
from service.cache.ports import Budget
from service.errors import InvalidInputError, NotFoundError
from service.model import Origin
from service.store.client import RedisClient
from service.store.decisions import RedisDecisions
from service.store.invalidator import Invalidator
from service.store.keys import Keys
from service.store.learning import RedisLearning
from service.store.outcomes import RedisOutcomes
from service.store.responses import RedisResponses
from service.store.reviews import RedisReviews

QUARANTINE_MS = 30 * 86_400_000
"""How long an entry that was wrong for another question, stored again, answers its own words only."""
READ_S = 1.0


class Judged(NamedTuple):
    """What became of a verdict."""

    entry_id: str
    quarantined: bool


class Judging:
    """Takes verdicts."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        responses: RedisResponses,
        *,
        decisions: RedisDecisions,
        outcomes: RedisOutcomes,
        reviews: RedisReviews,
        invalidator: Invalidator,
        learning: RedisLearning,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._decisions = decisions
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
        found = await self._decisions.find(keys, lookup_id)
        if found is None:
            raise NotFoundError("no decision of that lookup_id is kept: it is another's, or too old")
        if not found.decided.is_hit:
            raise InvalidInputError("lookup_id", "is a miss's: no answer was served")
        if note is not None and not correct:
            await self._complain(keys, found.decided, note)
        return await self._take(keys, found.agent_type, found.decided, "feedback", correct=correct)

    async def review(self, keys: TenantKeys, lookup_id: str, *, correct: bool) -> Judged:
        """A reviewer's verdict on a hit that waits for one; it may be changed later.

        Raises:
            NotFoundError: there is no such review.
            StoreUnavailableError: Redis does not answer, or has no room: give it again.
        """
        one = await self.reviews.one(keys, lookup_id)
        if one is None:
            raise NotFoundError("there is no review of that id")
        judged = await self._take(keys, one.agent_type, one.decided, "review", correct=correct)
        if correct:  # whoever said otherwise erred
            partition = self._responses.partition(keys)
            await self._redis.call("UNLINK", self._keys.quarantine(partition, judged.entry_id))
        await self.reviews.done(keys, lookup_id)
        return judged

    async def _complain(self, keys: TenantKeys, one: Decided, note: str) -> None:
        """Have it reviewed, as long as the entry is there."""
        there = await self.reviews.one(keys, one.lookup_id.hex())
        if there is not None:
            await self.reviews.put(keys, [replace(there, note=note)])
            return
        (record,) = await self._responses.records(keys, [(one.entry_id or b"").hex()], Budget(READ_S))
        if record is not None and answer_of(record) == one.answer:
            await self.reviews.put(keys, [review_of(one, record, None, note)])

    async def _take(
        self, keys: TenantKeys, agent_type: str, one: Decided, source: Source, *, correct: bool
    ) -> Judged:
        """Quarantined first: what was counted needs no second call."""
        if one.entry_id is None:
            raise InvalidInputError("lookup_id", "has no entry")
        gone = not correct and await self._quarantine(keys, one)
        await self.outcomes.put(keys, agent_type, outcome_of(one, source, correct=correct))
        self._learning.of(keys, agent_type)  # is followed from now on
        return Judged(one.entry_id.hex(), gone)

    async def _quarantine(self, keys: TenantKeys, one: Decided) -> bool:
        """Away with the answer that was served, unless another stands there since; whether it went."""
        entry_id = (one.entry_id or b"").hex()
        (record,) = await self._responses.records(keys, [entry_id], Budget(READ_S))
        if record is not None and answer_of(record) != one.answer:
            return False
        if one.outcome is Origin.SEMANTIC:
            mark = self._keys.quarantine(self._responses.partition(keys), entry_id)
            await self._redis.call("SET", mark, one.lookup_id.hex(), "PX", QUARANTINE_MS)
        predicates = await self._invalidator.predicates([Where(entry_id=entry_id)], [Keyspace.RESPONSES])
        done = await self._invalidator.run(keys, predicates)
        return bool(done.deleted.total())
