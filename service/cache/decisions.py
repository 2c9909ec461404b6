"""What each lookup decided, to be found by its lookup id: for feedback, reviews and replays.

A decision gathers here, which costs a lookup some microseconds; `store/decisions.py` takes what has gathered
to Redis within a second.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from service.cache.decided import OWN_BYTES, PLACES, UNIT, Decided, Review, answer_of, model_of
from service.cache.digests import TenantKeys
from service.cache.learning.strata import EXACT, stratum
from service.cache.question import Question
from service.cache.tickets import is_fresh
from service.model import Hit, JudgedCandidate, Miss, Nearest, Origin, Record, Tenant, Tier

MOST_SAMPLED = 200
"""Hits to be judged that wait to be written."""
LONGEST = 16_384
"""Characters that are kept of each text to be judged."""
MOST_WAITING = 20_000
"""Decisions of all tenants that wait; further ones are dropped, and counted."""


class Sampled(NamedTuple):
    """A review, and whose."""

    keys: TenantKeys
    review: Review


class Gathered(NamedTuple):
    """An agent_type's decisions."""

    keys: TenantKeys
    agent_type: str
    decided: list[Decided]


class Decisions:
    """What was decided since the last `drain`."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[Tenant, str], Gathered] = {}
        self._count = 0
        self._sampled: list[Sampled] = []
        self.dropped = 0

    def note(self, keys: TenantKeys, question: Question, answer: Hit | Miss) -> Decided | None:
        """One lookup's; None: it isn't kept."""
        policy = question.asked.policy
        if question.trial is not None and question.was_asked:
            question.trial.learned.account.add(question.drawn)
        if not policy.decisions_s:
            return None
        if self._count >= MOST_WAITING:
            self.dropped += 1
            return None
        name = keys.tenant, question.query.agent_type
        found = self._gathered.get(name)
        if found is None:
            found = self._gathered[name] = Gathered(keys, name[1], [])
        one = decided(question, answer, policy.decisions_s)
        found.decided.append(one)
        self._count += 1
        if one.is_hit and policy.review_sample_rate:
            self._sample(keys, question, one)
        return one

    def _sample(self, keys: TenantKeys, question: Question, one: Decided) -> None:
        chosen = random.random() < question.asked.policy.review_sample_rate  # noqa: S311 - no secret
        if chosen and question.served is not None and len(self._sampled) < MOST_SAMPLED:
            self._sampled.append(Sampled(keys, review_of(one, question.served[2], question.text)))

    def of(
        self, keys: TenantKeys, lookup_id: bytes, drained: Sequence[Gathered] = ()
    ) -> tuple[str, Decided] | None:
        """One that isn't written yet, with its agent_type: feedback may come at once."""
        each = [one for one in (*drained, *self._gathered.values()) if one.keys.tenant == keys.tenant]
        found = ((one.agent_type, it) for one in each for it in one.decided if it.lookup_id == lookup_id)
        return next(found, None)

    def take_sampled(self) -> list[Sampled]:
        """Hits to be judged; the caller's now."""
        sampled, self._sampled = self._sampled, []
        return sampled

    def take_dropped(self) -> int:
        """How many were dropped since the last time."""
        count, self.dropped = self.dropped, 0
        return count

    def drain(self) -> list[Gathered]:
        """What has gathered; it is the caller's now."""
        gathered, self._gathered, self._count = list(self._gathered.values()), {}, 0
        return gathered


def decided(question: Question, answer: Hit | Miss, seconds: int) -> Decided:
    """What is kept of an answer."""
    shown: JudgedCandidate | Nearest | None
    served, found = question.served or question.shadowed, None
    if served is not None:
        _, candidate, found = served
        shown = question.judged.get(candidate.entry_id) or Nearest(candidate.entry_id, candidate.similarity)
    elif question.explored is not None:
        shown, found = question.judged[question.explored.candidate.entry_id], question.explored.record
    else:
        shown = question.nearest()
    score = shown.verifier_score if isinstance(shown, JudgedCandidate) else None
    return Decided(
        lookup_id=bytes.fromhex(answer.lookup_id),
        at=PLACES[answer.tier if isinstance(answer, Hit) else answer.reason],
        entry_id=None if shown is None else bytes.fromhex(shown.entry_id),
        similarity=0 if shown is None else round(UNIT * shown.similarity),
        threshold=round(UNIT * question.asked.threshold),
        score=None if score is None else round(UNIT * score),
        generation=0 if question.under is None else question.under.number,
        rule=answer.rule if isinstance(answer, Miss) and isinstance(answer.rule, str) else None,
        seconds=seconds,
        stratum=_stratum(question, answer, score),
        answer=0 if found is None else answer_of(found),
        model=0 if question.under is None else model_of(question.under),
        own=bytes.fromhex(question.own_id)[:OWN_BYTES] if is_fresh(answer.lookup_id) else b"",
    )


def _stratum(question: Question, answer: Hit | Miss, score: float | None) -> int:
    if not isinstance(answer, Hit):
        return EXACT if question.shadowed is not None and question.shadowed[0] is Tier.EXACT else 0
    if answer.tier is not Origin.SEMANTIC:
        return EXACT
    return stratum(answer.similarity, question.asked.threshold, score, question.cut)


def review_of(one: Decided, record: Record, asked: str | None, note: str | None = None) -> Review:
    """A hit to be judged."""
    return Review(
        agent_type=record.agent_type,
        decided=one,
        asked=None if asked is None else asked[:LONGEST],
        stored=(record.standalone or record.text or "")[:LONGEST],
        response=record.response.decode()[:LONGEST],
        note=note,
    )
