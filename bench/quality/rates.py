"""Rates with their 95 % intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.calibrate import Rate

FALSE_RATES = (0.001, 0.01, 0.05)
REPLICATES = 400
SEED = 1


class Share(NamedTuple):
    """`hits` of `total`, with Wilson's interval."""

    hits: int
    total: int
    share: float
    low: float
    high: float


def share(hits: int, total: int) -> Share:
    """0 of 0 is 0, and may be anything."""
    rate = Rate(hits, total)
    return Share(hits, total, rate.share, *rate.interval)


class Estimate(NamedTuple):
    """A rate and its interval."""

    rate: float
    low: float
    high: float


def mean(shares: Sequence[Share]) -> Estimate:
    """The mean of shares, each with the same weight; interval by MOVER from theirs (sets taken as given)."""
    if not shares:
        return Estimate(0.0, 0.0, 1.0)
    rate = sum(one.share for one in shares) / len(shares)
    below = math.sqrt(sum((one.share - one.low) ** 2 for one in shares)) / len(shares)
    above = math.sqrt(sum((one.high - one.share) ** 2 for one in shares)) / len(shares)
    return Estimate(rate, max(0.0, rate - below), min(1.0, rate + above))


class Sweep:
    """What every threshold serves of label 1 and of label 0; pairs may be weighted by their group."""

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64], groups: Sequence[str]) -> None:
        usable = np.isfinite(scores)
        order = np.flatnonzero(usable)[np.argsort(-scores[usable], kind="stable")]
        self._right, self._wrong = labels[order] == 1, labels[order] == 0
        ranked = scores[order]
        # Pairs with one score are served together.
        self._ends = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
        _, of = np.unique(np.array(groups), return_inverse=True)
        self._group, self._groups = of[order], int(of.max()) + 1 if len(of) else 0
        self._totals = np.stack([np.bincount(of[labels == one], minlength=self._groups) for one in (1, 0)])

    def at(self, false_rates: Sequence[float], weights: NDArray[np.int64] | None = None) -> list[float]:
        """The greatest share of label 1 served while the share of label 0 is within each rate."""
        weights = np.ones(self._groups, np.int64) if weights is None else weights
        ones, zeros = self._totals @ weights
        if not ones or not zeros:
            return [0.0] * len(false_rates)
        each = weights[self._group]
        right = np.append(0, np.cumsum(each * self._right)[self._ends]) / ones
        wrong = np.append(0, np.cumsum(each * self._wrong)[self._ends]) / zeros
        places = np.searchsorted(wrong, np.array(false_rates) + 1e-12, side="right") - 1
        return [float(right[place]) for place in places]

    def estimates(self, false_rates: Sequence[float], replicates: int = REPLICATES) -> list[Estimate]:
        """With intervals from drawing groups with replacement; the threshold is chosen anew in each draw."""
        rng = np.random.default_rng(SEED)
        drawn = [
            self.at(
                false_rates, np.bincount(rng.integers(0, self._groups, self._groups), minlength=self._groups)
            )
            for _ in range(replicates)
        ]
        low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
        found = self.at(false_rates)
        return [Estimate(*one) for one in zip(found, low.tolist(), high.tolist(), strict=True)]
