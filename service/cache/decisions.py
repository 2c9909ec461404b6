"""What each lookup decided, to be found by its lookup id: for feedback, reviews and replays.

A decision gathers here, which costs a lookup some microseconds; `store/decisions.py` takes what has gathered
to Redis within a second.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from service.cache.digests import TenantKeys
from service.cache.question import Question
from service.model import Hit, JudgedCandidate, Miss, Nearest, Origin, Reason, Tenant

MOST_WAITING = 20_000
"""Decisions of all tenants that wait; further ones are dropped, and counted."""
UNIT = 10_000
"""Similarities, thresholds and scores are kept as whole numbers of this part."""
OUTCOMES: tuple[Origin | Reason, ...] = (
    Origin.EXACT,
    Origin.SEMANTIC,
    Origin.MEMORY,
    Reason.EMPTY,
    Reason.BELOW_THRESHOLD,
    Reason.GUARD,
    Reason.POLICY,
    Reason.DEGRADED,
    Reason.EXPLORE,
)
"""Kept by position: append only."""
_PLACES = {one: at for at, one in enumerate(OUTCOMES)}


class Decided(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One lookup's decision. Fields are kept by position: append only, each with a default."""

    lookup_id: bytes  # 16
    at: int  # of OUTCOMES
    entry_id: bytes | None = None  # 16: what was served; else what would have been, or was nearest
    similarity: int = 0  # these three in parts of UNIT
    threshold: int = 0
    score: int | None = None  # the verifier's; None: it wasn't asked
    generation: int = 0
    rule: str | None = None  # the guard or policy behind a miss
    seconds: int = 0  # how long it is kept

    @property
    def outcome(self) -> Origin | Reason:
        """The tier of a hit, or the reason of a miss."""
        return OUTCOMES[self.at]

    @property
    def is_hit(self) -> bool:
        """Whether an answer was served."""
        return isinstance(self.outcome, Origin)


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
        self.dropped = 0

    def note(self, keys: TenantKeys, question: Question, answer: Hit | Miss) -> None:
        """One lookup's."""
        seconds = question.asked.policy.decisions_s
        if not seconds:
            return
        if self._count >= MOST_WAITING:
            self.dropped += 1
            return
        name = keys.tenant, question.query.agent_type
        found = self._gathered.get(name)
        if found is None:
            found = self._gathered[name] = Gathered(keys, name[1], [])
        found.decided.append(decided(question, answer, seconds))
        self._count += 1

    def of(
        self, keys: TenantKeys, lookup_id: bytes, drained: Sequence[Gathered] = ()
    ) -> tuple[str, Decided] | None:
        """One that isn't written yet, with its agent_type: feedback may come at once."""
        each = [one for one in (*drained, *self._gathered.values()) if one.keys.tenant == keys.tenant]
        found = ((one.agent_type, it) for one in each for it in one.decided if it.lookup_id == lookup_id)
        return next(found, None)

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
    if isinstance(answer, Hit):
        shown = question.judged.get(answer.entry_id) or Nearest(answer.entry_id, answer.similarity)
    else:
        shown = question.nearest()
    score = shown.verifier_score if isinstance(shown, JudgedCandidate) else None
    return Decided(
        lookup_id=bytes.fromhex(answer.lookup_id),
        at=_PLACES[answer.tier if isinstance(answer, Hit) else answer.reason],
        entry_id=None if shown is None else bytes.fromhex(shown.entry_id),
        similarity=0 if shown is None else round(UNIT * shown.similarity),
        threshold=round(UNIT * question.asked.threshold),
        score=None if score is None else round(UNIT * score),
        generation=question.generation,
        rule=answer.rule if isinstance(answer, Miss) and isinstance(answer.rule, str) else None,
        seconds=seconds,
    )
