"""Whether an answer was right: what people and comparisons said, decision by decision.

An outcome is kept under its lookup id, so that whoever says it twice says it once; everything learned
is worked out from the outcomes that are kept.
"""

from typing import Literal, NamedTuple

from msgspec import Struct

from service.cache.decided import OUTCOMES, UNIT, Decided
from service.model import Origin, Reason

Source = Literal["feedback", "review", "explore", "shadow"]
"""Who says so: a user unasked, a reviewer, or an answer that was made although there was one."""


class Outcome(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One verdict. Fields are kept by position: append only, each with a default."""

    lookup_id: bytes  # 16
    source: Source
    correct: bool
    at: int  # of OUTCOMES: the tier that served, or why none did
    entry_id: bytes  # 16
    similarity: int = 0  # these three in parts of UNIT
    threshold: int = 0
    score: int | None = None
    generation: int = 0
    answer: int = 0  # which answer of the entry's: `answer_of`
    model: int = 0  # whose similarities: `Decided.model`
    stratum: int = 0  # of `learning.strata`

    @property
    def outcome(self) -> Origin | Reason:
        """The tier that served, or the reason why none did."""
        return OUTCOMES[self.at]

    @property
    def was_served(self) -> bool:
        """Whether somebody got the answer."""
        return isinstance(self.outcome, Origin)

    @property
    def cosine(self) -> float:
        """Similarity as a cosine."""
        return self.similarity / UNIT

    @property
    def verified(self) -> float | None:
        """The verifier's score, 0 to 1."""
        return None if self.score is None else self.score / UNIT


class Said(NamedTuple):
    """An outcome, and when it was said, ms since 1970."""

    at: int
    outcome: Outcome

    @property
    def order(self) -> tuple[int, bytes]:
        """When it was said; those of one moment in some order, always the same."""
        return self.at, self.outcome.lookup_id

    @property
    def weight(self) -> tuple[bool, int]:
        """Of what was said of one lookup the greatest holds: a reviewer's word, else the last."""
        return self.outcome.source == "review", self.at


def outcome_of(decided: Decided, source: Source, *, correct: bool) -> Outcome:
    """A verdict on what was decided.

    Args:
        decided: the decision; it has an entry.
        source: who says so.
        correct: what is said.
    """
    return Outcome(
        lookup_id=decided.lookup_id,
        source=source,
        correct=correct,
        at=decided.at,
        entry_id=decided.entry_id or b"",
        similarity=decided.similarity,
        threshold=decided.threshold,
        score=decided.score,
        generation=decided.generation,
        answer=decided.answer,
        model=decided.model,
        stratum=decided.stratum,
    )
