"""Whether a candidate may be served, so that wrong answers stay within a share of all requests.

After vCache (arXiv 2502.03771, eq. 9-11). Let P(correct) be at least alpha(eps), by a quantile that is right
with confidence 1 - eps. Then exploring with probability tau(eps) = 1 - d / (1 - alpha(eps)) bounds P(wrong
answer) by d. Each eps gives a valid bound; the least tau is taken. Ours are the pooled prior, the logarithmic
grid of eps, the floor and the audits.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from service.cache.learning.observations import Observation, Row, row
from service.cache.learning.pooled import Floats, Prior, rising, square, triangle

MARGIN = 0.02
"""How far below what was confirmed an answer may be served."""

AUDITED = 0.02
"""Share of what may be served that is explored all the same, so that a changed world is noticed."""

WORTH = 0.7
"""Below this probability of a right answer nothing is served: it would use the bound up for too little."""

DOUBTED = 100
"""Requests that count as decided before any is known."""

LATELY = 20_000
"""Requests that count, at most."""

STEPS, SETTLED = 40, 1e-9
FAR_OFF = 700.0  # whose exponential is no overflow


class Quantile(NamedTuple):
    """Eps, and how many standard deviations below the mean that is."""

    epsilon: float
    z: float


def quantiles(epsilons: Sequence[float]) -> tuple[Quantile, ...]:
    """A grid of eps, all in (0, 1)."""
    return tuple(Quantile(one, -NormalDist().inv_cdf(one)) for one in epsilons)


GRID = quantiles([10 ** (-6 + 5.7 * at / 19) for at in range(20)])
"""From 1e-6 to 0.5: a linear grid begins too coarsely where δ is small."""


class Fit(NamedTuple):
    """An entry's coefficients, as sure as they are."""

    mean: tuple[float, ...]  # 4
    covariance: tuple[float, ...]  # 10, of what more observations of any entry would tell
    within: float  # variance of the entry's own u beside that
    floor: float  # similarity below which nothing is served


def posterior(prior: Prior, observations: Sequence[Observation]) -> Fit:
    """Of an entry, from its agent_type's prior and its own observations: Laplace's approximation."""
    mean, covariance = np.array(prior.mean), square(prior.covariance)
    told = prior.spread**-2
    if observations:
        covariance[0, 0] += prior.spread**2
        x = np.array([row(one.similarity, one.score) for one in observations])
        correct = np.array([one.correct for one in observations], np.float64)
        mean, covariance, weight = _updated(mean, covariance, x, correct)
        told += weight
        covariance[0, 0] -= 1 / told
        mean, covariance = rising(mean, covariance)
    lowest = min([prior.lowest, *(one.similarity for one in observations if one.correct)])
    return Fit(tuple(map(float, mean)), triangle(covariance), 1 / told, lowest - MARGIN)


def _updated(mean: Floats, covariance: Floats, x: Floats, correct: Floats) -> tuple[Floats, Floats, float]:
    """Mode, covariance, and the observations' weight; steps in their space, as a prior may be sure."""
    at, eta = mean, x @ mean
    gram = x @ covariance
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-eta))
        weight = np.maximum(p * (1 - p), 1e-12)
        goal = eta + (correct - p) / weight - x @ mean
        gain = np.linalg.solve(gram @ x.T + np.diag(1 / weight), np.column_stack([goal, gram]))
        step = mean + gram.T @ gain[:, 0] - at
        scale = min(1.0, 2.0 / max(1e-12, float(np.abs(x @ step).max())))
        at = at + scale * step
        eta = x @ at
        if float(np.abs(step).max()) < SETTLED:
            break
    p = 1 / (1 + np.exp(-eta))
    weight = np.maximum(p * (1 - p), 1e-12)
    left: Floats = covariance - gram.T @ np.linalg.solve(gram @ x.T + np.diag(1 / weight), gram)
    return at, left, float(weight.sum())


class Drawn(NamedTuple):
    """How likely a candidate was to be asked afresh, and how likely to be wrong at most."""

    chance: float
    wrong: float


class Account:
    """What wrong answers an agent_type may cost, and has cost at most, lately.

    Where nothing may be served, nothing wrong is; what such requests leave of the bound is for the others.
    How much that is, the shares of both so far say; and no more is given than has been left, so that the
    bound holds as well where the requests that can be served come all at once.
    """

    __slots__ = ("decided", "requests", "spent")

    def __init__(self) -> None:
        self.requests = 0.0  # whatever answered them
        self.decided = 0.0  # those of them that had a chance to be served
        self.spent = 0.0  # wrong answers among these, at most

    def allowed(self, max_error_rate: float) -> float:
        """What to give `drawn`: wrong answers per request of its kind, at most."""
        share = max_error_rate * (self.requests + DOUBTED) / (self.decided + DOUBTED)
        return max(0.0, min(share, max_error_rate * (self.requests + DOUBTED) - self.spent))

    def add(self, drawn: Drawn | None) -> None:
        """A request was answered; None: there was nothing to draw for. What was long ago counts half."""
        self.requests += 1
        if drawn is not None and drawn.chance < 1:
            self.decided += 1
            self.spent += (1 - drawn.chance) * drawn.wrong
        if self.requests >= LATELY:
            self.requests, self.decided, self.spent = self.requests / 2, self.decided / 2, self.spent / 2


def drawn(
    fit: Fit,
    similarity: float,
    score: float | None,
    allowed: float,
    *,
    audited: float = AUDITED,
    worth: float = WORTH,
    grid: Sequence[Quantile] = GRID,
) -> Drawn:
    """How likely (tau) the LLM is asked rather than the entry's answer served. Some µs.

    The chance never rises with the similarity, nor with `allowed`.

    Args:
        fit: the entry's.
        similarity: a cosine.
        score: the verifier's, 0 to 1; None: it read nothing.
        allowed: P(wrong answer), at most: `Account.allowed`.
        audited: the least chance.
        worth: P(right answer) below which nothing is served.
        grid: of eps.
    """
    if not similarity >= fit.floor:  # so that NaN is explored
        return Drawn(1.0, 1.0)
    surest = confirmed(fit, row(similarity, score), grid)
    wrong = max(1 - surest, 1e-12)
    return Drawn(1.0 if surest < worth else max(audited, 1 - allowed / wrong), wrong)


def confirmed(fit: Fit, seen: Row, grid: Sequence[Quantile]) -> float:
    """The greatest alpha(eps), a lower bound on P(correct).

    alpha(eps) = (1 - eps) · sigma(the eps-quantile of the predictor), the mean over the entry's own u. Where
    a greater similarity only makes the quantile less sure, the one of the best lesser similarity is taken:
    the answer is no less likely to be right than there.
    """
    _, near, score, unread = seen
    b, g, w, shift = fit.mean
    v00, v01, v02, v03, v11, v12, v13, v22, v23, v33 = fit.covariance
    level = b + w * score + shift * unread
    # The predictor's variance is q0 + 2·q1·near + v11·near².
    q0 = v00 + 2 * (v02 * score + v03 * unread + v23 * score * unread) + v22 * score**2 + v33 * unread**2
    q1 = v01 + v12 * score + v13 * unread
    spare = max(0.0, q0 * v11 - q1 * q1)
    flatter = 1 / math.sqrt(1 + math.pi / 8 * fit.within)
    surest = 0.0
    for epsilon, z in grid:
        at = near
        steep = z * z * v11 - g * g
        if z > 0 and steep > 0:
            at = min(near, (g * math.sqrt(spare / steep) - q1) / v11)
        eta = level + g * at - z * math.sqrt(max(0.0, q0 + (2 * q1 + v11 * at) * at))
        alpha = (1 - epsilon) / (1 + math.exp(-max(-FAR_OFF, flatter * eta)))
        surest = max(surest, alpha)
    return surest
