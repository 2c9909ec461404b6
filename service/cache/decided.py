"""A decision as it is kept: what a lookup served, or why it served nothing."""

import zlib
from functools import lru_cache

from msgspec import Struct

from service.model import Generation, Origin, Reason, Record

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
PLACES = {one: at for at, one in enumerate(OUTCOMES)}


OWN_BYTES = 8
"""Of an entry id: enough to tell that it is another's."""


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
    stratum: int = 0  # how certain a hit is: `learning.strata`
    answer: int = 0  # which answer of the entry's was served, or would have been: `answer_of`
    model: int = 0  # whose similarities: `model_of`
    own: bytes = b""  # what the asker's own entry id begins with, where its answer is to be compared

    @property
    def outcome(self) -> Origin | Reason:
        """The tier of a hit, or the reason of a miss."""
        return OUTCOMES[self.at]

    @property
    def is_hit(self) -> bool:
        """Whether an answer was served."""
        return isinstance(self.outcome, Origin)


class Review(Struct, frozen=True, kw_only=True):
    """A hit that waits for somebody's verdict."""

    agent_type: str
    decided: Decided
    asked: str | None  # None: not kept, a user complained
    stored: str | None  # the question that the answer was made for; None: it was gone
    response: str  # JSON, perhaps cut
    note: str | None = None  # what a user said to it

    @property
    def id(self) -> str:
        """Its lookup's."""
        return self.decided.lookup_id.hex()


@lru_cache(maxsize=8)
def model_of(generation: Generation) -> int:
    """Tells embedding models apart: similarities of two say nothing of each other."""
    return zlib.crc32(repr(generation.embedding).encode())


def answer_of(record: Record) -> int:
    """Tells an entry's answers apart: another one's observations start anew."""
    return sum_of(record.response)


def sum_of(response: bytes) -> int:
    """The same of an answer's bytes."""
    return zlib.crc32(response)
