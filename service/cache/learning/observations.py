"""What was seen of an entry: how near a question was, and whether the entry's answer fitted it."""

import math
from typing import NamedTuple

KEPT = 64
"""Observations of an entry that are kept."""

FAR = 5.0
"""Logits of a score are cut to ± this: what lies beyond says no more."""

Row = tuple[float, float, float, float]
"""What the models see of a candidate: 1, similarity, the score's logit, 1 where nobody read it."""


class Observation(NamedTuple):
    """One question that was near to an entry, and answered afresh."""

    similarity: float
    score: float | None  # the verifier's, 0 to 1; None: it didn't read them
    correct: bool  # whether the entry's answer would have been right


def logit(score: float) -> float:
    """Of a score from 0 to 1, cut to ± FAR."""
    if score <= 0 or score >= 1:
        return FAR if score >= 1 else -FAR
    return max(-FAR, min(FAR, math.log(score / (1 - score))))


def row(similarity: float, score: float | None) -> Row:
    """Scaled so that each number is about 1 in size."""
    near = (similarity - 0.85) / 0.1
    return (1.0, near, 0.0, 1.0) if score is None else (1.0, near, logit(score) / 4, 0.0)
