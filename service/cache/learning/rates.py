"""The live false-hit rate: wrong answers among those served; its interval is honest for few verdicts.

Verdicts come from reviews (a random part of each stratum, more of the uncertain ones) and from feedback
(whoever cares to give it). docs/learning.md has the formulas.
"""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from service.cache.learning.certainty import CONFIDENCE, Draws, Numbers, high, interval, low, tails

ENOUGH = 10
"""Reviews from which on a part is judged by its own alone."""

ALIKE = 1.5
"""Standard deviations that numbers of reviews may differ by where strata are reviewed at one rate."""


class Stratum(NamedTuple):
    """Counts of hits that are equally uncertain. A hit with one verdict is in one of the four."""

    hits: int = 0  # with a verdict or not
    reviewed_right: int = 0
    reviewed_wrong: int = 0
    volunteered_right: int = 0
    volunteered_wrong: int = 0

    @property
    def reviewed(self) -> int:
        """Hits with a review alone."""
        return self.reviewed_right + self.reviewed_wrong

    @property
    def volunteered(self) -> int:
        """Hits with feedback alone."""
        return self.volunteered_right + self.volunteered_wrong

    @property
    def size(self) -> int:
        """Hits; a verdict may be counted before its hit."""
        return max(self.hits, self.reviewed + self.volunteered)


class Checked(NamedTuple):
    """Hits with feedback and a review, of all strata: what users said, and whether the review said so too.

    They are among their stratum's hits, and in none of its four counts.
    """

    right_confirmed: int = 0
    right_overruled: int = 0
    wrong_confirmed: int = 0
    wrong_overruled: int = 0


NOTHING = Checked()


class Basis(StrEnum):
    """What an estimate rests on."""

    REVIEWS = "reviews"  # of hits without feedback; those with it are parts of their own, whoever gave it
    FEEDBACK = "feedback"  # no reviews: feedback as if given at random
    COMPLAINTS = "complaints"  # no reviews, and nobody said "right": a lower bound
    NONE = "none"  # no verdicts


class Estimate(NamedTuple):
    """A rate, 0 to 1, with its interval."""

    rate: float | None  # None: there are no verdicts
    low: float
    high: float
    basis: Basis
    hits: int
    verdicts: int  # hits with one
    wrong: int  # of these
    assumed: int  # hits that nothing was reviewed like: taken as no worse than the less certain ones


class Part(NamedTuple):
    """Hits that are estimated together: some reviewed, in any order, and the others."""

    right: int
    wrong: int
    unseen: int

    @property
    def seen(self) -> int:
        """Reviewed."""
        return self.right + self.wrong

    def counts(self, draws: Draws, shares: Numbers, *, to_come: bool) -> Numbers:
        """Wrong ones among them, or among as many to come."""
        if to_come:
            return shares * (self.seen + self.unseen)
        return self.wrong + draws.counts(self.unseen, shares)


def estimate(
    strata: Sequence[Stratum],
    checked: Checked = NOTHING,
    confidence: float = CONFIDENCE,
    *,
    to_come: bool = False,
) -> Estimate:
    """The share of wrong answers among the hits counted, or among further ones like them.

    Args:
        strata: by uncertainty, the least certain first.
        checked: hits with both verdicts.
        confidence: of the two-sided interval.
        to_come: of further hits; else those that all have a verdict are known.
    """
    twice = sum(checked)
    told = sum(one.reviewed + one.volunteered for one in strata) + twice
    hits = max(told, sum(one.size for one in strata))
    if any(one.reviewed for one in strata):
        return _from_reviews(strata, checked, hits, confidence, to_come=to_come)
    right = sum(one.volunteered_right for one in strata) + checked.right_confirmed + checked.wrong_overruled
    wrong = told - right
    if told == 0:
        return Estimate(None, 0.0, 1.0, Basis.NONE, hits, 0, 0, hits)
    if right == 0:
        least = interval(hits - wrong, wrong, confidence)[0] if to_come else wrong / hits
        return Estimate(wrong / hits, least, 1.0, Basis.COMPLAINTS, hits, wrong, wrong, 0)
    ends = interval(right, wrong, confidence) if to_come else tails(right, wrong, hits, confidence)
    return Estimate(wrong / told, *ends, Basis.FEEDBACK, hits, told, wrong, 0)


def _from_reviews(
    strata: Sequence[Stratum], checked: Checked, hits: int, confidence: float, *, to_come: bool
) -> Estimate:
    parts = list(_merged(_rests(strata, sum(checked))))
    said = list(_said(strata, checked))
    size = sum(one.seen + one.unseen for one in (*parts, *said))
    draws = Draws()
    fewest, most = draws.zeros(), draws.zeros()
    middle, bound = 0.0, draws.ones()
    share = sum(one.wrong for one in parts) / sum(one.seen for one in parts)
    for one in parts:
        share = one.wrong / one.seen if one.seen else share
        low_share, high_share = _ends(draws, one, bound)
        bound = high_share if one.seen >= ENOUGH else bound
        fewest += one.counts(draws, low_share, to_come=to_come)
        most += one.counts(draws, high_share, to_come=to_come)
        middle += one.wrong + one.unseen * share
    for one in said:
        low_share, high_share = draws.shares(one.right, one.wrong)
        fewest += one.counts(draws, low_share, to_come=to_come)
        most += one.counts(draws, high_share, to_come=to_come)
        middle += one.wrong + one.unseen * (one.wrong / one.seen if one.seen else 1.0)
    ends = low(fewest, confidence) / size, high(most, confidence) / size
    return Estimate(
        min(max(middle / size, ends[0]), ends[1]),
        *ends,
        Basis.REVIEWS,
        hits,
        verdicts=sum(one.reviewed + one.volunteered for one in strata) + sum(checked),
        wrong=sum(one.reviewed_wrong + one.volunteered_wrong for one in strata)
        + checked.wrong_confirmed
        + checked.right_overruled,
        assumed=sum(one.unseen for one in parts if not one.seen),
    )


def _ends(draws: Draws, one: Part, bound: Numbers) -> tuple[Numbers, Numbers]:
    """Shares of wrong ones; with few reviews no greater than those of the less certain part."""
    least, most = draws.shares(one.right, one.wrong)
    if one.seen >= ENOUGH:
        return least, most
    most = np.minimum(most, bound)
    return np.minimum(least, most), most


def _rests(strata: Sequence[Stratum], twice: int) -> Iterator[Part]:
    """The hits without feedback. Which strata those with both verdicts are of isn't known: by their size."""
    hits = sum(one.size for one in strata) or 1
    for one in strata:
        unseen = one.size - one.reviewed - one.volunteered - round(twice * one.size / hits)
        yield Part(one.reviewed_right, one.reviewed_wrong, max(0, unseen))


def _merged(parts: Iterator[Part]) -> Iterator[Part]:
    """Neighbours of which the same share seems to have been reviewed are one: the interval is narrower."""
    last = next(parts)
    for one in parts:
        if _alike(last, one):
            last = Part(last.right + one.right, last.wrong + one.wrong, last.unseen + one.unseen)
        else:
            yield last
            last = one
    yield last


def _alike(one: Part, other: Part) -> bool:
    size, seen = one.seen + one.unseen, one.seen + other.seen
    both = size + other.seen + other.unseen
    if not both or not seen:
        return True
    share = size / both
    return abs(one.seen - seen * share) <= ALIKE * math.sqrt(seen * share * (1 - share))


def _said(strata: Sequence[Stratum], checked: Checked) -> Iterator[Part]:
    """Hits with feedback, by what was said; reviews of some tell how far to believe it.

    "Right" is believed where few were checked: little depends on it. "Wrong" is not, for some false ones
    among thousands of hits would be most of the rate: without a check it may be all true or all false.
    """
    right, wrong = sum(one.volunteered_right for one in strata), sum(one.volunteered_wrong for one in strata)
    believed = checked.right_confirmed + checked.right_overruled < ENOUGH
    yield Part(checked.right_confirmed + right * believed, checked.right_overruled, right * (not believed))
    yield Part(checked.wrong_overruled, checked.wrong_confirmed, wrong)
