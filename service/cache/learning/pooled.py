"""What all entries of an agent_type have in common: the prior of each.

P(correct | s, v, entry) = sigma(b + g·s + w·logit v + u), u ~ N(0, spread²) by entry. By Laplace's method.
The spread is the one of a grid that makes the observations likeliest (empirical Bayes). A weak pessimistic
hyperprior stands in where nothing was seen, and keeps the fit finite where the labels separate completely.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.cache.learning.observations import Observation, row

SAMPLE = 4096
"""Observations of an agent_type that a fit reads, the newest."""

LEAST = 8
"""Confirmations of any entry that must lie at or below a similarity for it to count as seen."""

UNSEEN = 2.0
"""A similarity that nothing has."""

SPREADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
USUAL, DOUBT = 1.5, 0.7  # the spread's hyperprior: log-normal around USUAL

Floats = NDArray[np.floating[Any]]

# b, g per 0.1 of similarity, w per 4 of logit, the shift of what nobody read.
EXPECTED: Floats = np.array([-1.0, 1.0, 1.0, 0.0])
DEVIATION: Floats = np.array([2.0, 1.5, 1.5, 1.5])
STEPS, SETTLED = 60, 1e-6

UPPER = tuple((i, j) for i in range(4) for j in range(i, 4))


class Prior(NamedTuple):
    """What is known of an entry that nothing was seen of."""

    mean: tuple[float, ...]  # 4
    covariance: tuple[float, ...]  # 10: its upper triangle, by rows; without the spread
    spread: float  # of u between entries
    observed: int  # observations it was fitted to
    lowest: float  # similarity down to which enough was confirmed


def unlearned() -> Prior:
    """Of an agent_type that nothing was seen of."""
    return _prior(EXPECTED, np.diag(DEVIATION**2), USUAL, 0, UNSEEN)


def fitted(entries: Sequence[object], observations: Sequence[Observation]) -> Prior:
    """From observations, oldest first, and the entry that each belongs to.

    Takes some tens of ms for SAMPLE of them: not for a lookup.
    """
    if not observations:
        return unlearned()
    seen, places = observations[-SAMPLE:], dict[object, int]()
    of = np.array([places.setdefault(one, len(places)) for one in entries[-SAMPLE:]])
    x = np.array([row(one.similarity, one.score) for one in seen])
    correct = np.array([one.correct for one in seen], np.float64)
    best = max((_Fit(x, correct, of, spread) for spread in SPREADS), key=lambda one: one.evidence)
    confirmed = sorted(one.similarity for one in seen if one.correct)
    lowest = confirmed[LEAST - 1] if len(confirmed) >= LEAST else UNSEEN
    mean, covariance = rising(best.mean, best.covariance)
    return _prior(mean, covariance, best.spread, len(seen), lowest)


def rising(mean: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """The same on condition that neither similarity nor score speaks against an answer by being greater."""
    for at in (1, 2):
        if mean[at] < 0:
            share = covariance[:, at] / covariance[at, at]
            mean = mean - share * mean[at]
            covariance = covariance - np.outer(share, covariance[at])
            covariance[at, :] = covariance[:, at] = 0.0
            mean[at] = 0.0
    return mean, covariance


class _Fit:
    """The mode of (coefficients, u of each entry) under one spread, and how well that explains the labels."""

    def __init__(self, x: Floats, correct: Floats, of: NDArray[np.int64], spread: float) -> None:
        self.spread = spread
        self._x, self._correct, self._of = x, correct, of
        self._entries = int(of.max()) + 1
        self.mean, self._u = EXPECTED.copy(), np.zeros(self._entries)
        height = self._climb()
        schur, below = self._curvature()
        self.covariance: Floats = np.linalg.inv(schur)
        around = -0.5 * math.log(spread / USUAL) ** 2 / DOUBT**2
        volume = np.linalg.slogdet(schur)[1] + np.log(below[0]).sum()
        self.evidence = height - self._entries * math.log(spread) - 0.5 * volume + around

    def _climb(self) -> float:
        """To the only mode, the function being concave: Newton's steps, halved while they lose height."""
        height, gained, scale = self._height(self.mean, self._u), math.inf, 1.0
        for _ in range(STEPS):
            if gained < SETTLED or scale < SETTLED:
                break
            step, step_u = self._step(*self._curvature())
            there = self.mean + scale * step, self._u + scale * step_u
            gained = (at := self._height(*there)) - height
            while gained < 0 and scale >= SETTLED:
                scale /= 2
                there = self.mean + scale * step, self._u + scale * step_u
                gained = (at := self._height(*there)) - height
            if gained >= 0:
                (self.mean, self._u), height, scale = there, at, 1.0
        return height

    def _height(self, mean: Floats, u: Floats) -> float:
        """The logarithm of likelihood and priors, but for constants."""
        eta = self._x @ mean + u[self._of]
        likely = (self._correct * eta - np.logaddexp(0, eta)).sum()
        off = (((mean - EXPECTED) / DEVIATION) ** 2).sum() + (u**2).sum() / self.spread**2
        return float(likely - 0.5 * off)

    def _curvature(self) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
        """The Schur complement [4, 4] of u's block; that block's diagonal [entries], the border, p."""
        p = 1 / (1 + np.exp(-(self._x @ self.mean + self._u[self._of])))
        weighted = self._x * (p * (1 - p))[:, None]
        own = np.bincount(self._of, weighted[:, 0], self._entries) + self.spread**-2
        border = np.zeros((self._entries, 4))
        np.add.at(border, self._of, weighted)
        schur: Floats = self._x.T @ weighted + np.diag(DEVIATION**-2) - border.T @ (border / own[:, None])
        return schur, (own, border, p)

    def _step(self, schur: Floats, below: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats]:
        """Newton's."""
        own, border, p = below
        off = self._correct - p
        up = self._x.T @ off - (self.mean - EXPECTED) / DEVIATION**2
        up_u = np.bincount(self._of, off, self._entries) - self._u / self.spread**2
        step = np.linalg.solve(schur, up - border.T @ (up_u / own))
        return step, (up_u - border @ step) / own


def square(upper: Sequence[float]) -> Floats:
    """[4, 4] from its upper triangle."""
    found = np.zeros((4, 4))
    for (i, j), value in zip(UPPER, upper, strict=True):
        found[i, j] = found[j, i] = value
    return found


def triangle(matrix: Floats) -> tuple[float, ...]:
    """The upper triangle, by rows."""
    return tuple(float(matrix[i, j]) for i, j in UPPER)


def _prior(mean: Floats, covariance: Floats, spread: float, count: int, lowest: float) -> Prior:
    return Prior(tuple(map(float, mean)), triangle(covariance), spread, count, lowest)
