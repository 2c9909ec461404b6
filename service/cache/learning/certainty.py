"""How sure counts of right and wrong are, where some of the hits have no verdict and parts are added up.

The two ends are drawn apart: an end that must not be too low from Beta(wrong + 1, right), one that must not
be too high from Beta(wrong, right + 1), then the hits without a verdict by that share. Of one part that is
Clopper's and Pearson's interval, of a finite number; of sums it keeps to their caution, for one stratum
with nothing wrong among few says little, and says so.
"""

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 4096
SEED = 20_011

Numbers = NDArray[np.float64]


class Draws:
    """As many draws of everything, always the same: equal counts have equal intervals."""

    def __init__(self, count: int = DRAWS) -> None:
        self._random = np.random.default_rng(SEED)
        self._count = count

    def zeros(self) -> Numbers:
        """Nothing, in every draw."""
        return np.zeros(self._count)

    def ones(self) -> Numbers:
        """All, in every draw."""
        return np.ones(self._count)

    def shares(self, right: int, wrong: int) -> tuple[Numbers, Numbers]:
        """Shares of wrong ones that aren't too high, and such that aren't too low."""
        least = self._random.beta(wrong, right + 1, self._count) if wrong else self.zeros()
        most = self._random.beta(wrong + 1, right, self._count) if right else self.ones()
        return least, most

    def counts(self, of: int, shares: Numbers) -> Numbers:
        """How many of so many are wrong, where each is with that share."""
        return self._random.binomial(of, shares).astype(np.float64) if of else self.zeros()


def low(counts: Numbers, confidence: float = CONFIDENCE) -> float:
    """The lower end of a two-sided interval."""
    return float(np.quantile(counts, (1 - confidence) / 2, method="lower"))


def high(counts: Numbers, confidence: float = CONFIDENCE) -> float:
    """The upper end of a two-sided interval."""
    return float(np.quantile(counts, (1 + confidence) / 2, method="higher"))


def tails(right: int, wrong: int, hits: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The least and the greatest share of wrong ones among hits, of which some have a verdict."""
    draws = Draws()
    least, most = draws.shares(right, wrong)
    unseen = hits - right - wrong
    return (
        (wrong + low(draws.counts(unseen, least), confidence)) / hits,
        (wrong + high(draws.counts(unseen, most), confidence)) / hits,
    )


def interval(right: int, wrong: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The share of wrong ones among those to come."""
    least, most = Draws().shares(right, wrong)
    return low(least, confidence), high(most, confidence)
