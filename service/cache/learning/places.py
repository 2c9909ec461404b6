"""Where a threshold may go, by labelled similarities."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from service.cache.learning.certainty import interval

DIGITS = 3
SURE = 0.8
"""Confidence of what labels between two places say."""

LEAST_MOVE = 0.01
FEWEST = 10
"""Labels above a place without which nothing is said of it."""


class Source(StrEnum):
    """Who gave a verdict, and on what."""

    FEEDBACK = "feedback"
    REVIEW = "review"
    SHADOW = "shadow"  # on a candidate below the threshold that was not served, beside the fresh answer


class Verdict(Struct, frozen=True):
    """On a hit, or on what would have been one."""

    at: int  # when it was said, ms since 1970
    similarity: float
    right: bool
    source: Source
    threshold: float  # in force when it was looked up: of what is less similar nothing was served
    stratum: int = 0  # of `strata.py`


def above(seen: Sequence[Verdict], threshold: float, most: float, wrong: float) -> float:
    """The least place above the threshold from which on at most that share is wrong; else the highest."""
    first = min(threshold + LEAST_MOVE, most)
    wanted = sorted({round(one.similarity, DIGITS) for one in seen if first < one.similarity < most})
    for place in (first, *wanted):
        # Only hits of lookups that would have served all from that place on: no sample by similarity.
        near = [one.right for one in seen if one.similarity >= place and one.threshold <= place]
        if len(near) >= FEWEST and near.count(False) <= wrong * len(near):
            return round(place, DIGITS)
    return round(most, DIGITS)


def below(seen: Sequence[Verdict], threshold: float, blind: float, least: float, wrong: float) -> float:
    """The lowest place such that what lies between is surely right; else `blind`, unless it is surely wrong.

    Args:
        seen: labelled similarities.
        threshold: where it is.
        blind: where it goes where nothing is known.
        least: where it may go at most.
        wrong: the greatest share that may be wrong.
    """
    between = [one for one in seen if least <= one.similarity < threshold]
    for place in sorted({round(one.similarity, DIGITS) for one in between if one.similarity < blind}):
        if least <= place and _share(between, place)[1] <= wrong:
            return place
    return threshold if _share(between, blind)[0] > wrong else round(blind, DIGITS)


def _share(seen: Sequence[Verdict], place: float) -> tuple[float, float]:
    right = [one.right for one in seen if one.similarity >= place]
    return interval(right.count(True), right.count(False), SURE)
