"""Who decides: the service's modules for verified serving, their parts left out, and fixed thresholds."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from bench.learning.simulate import Arm, Cache, Outcome
from bench.quality.decide import THRESHOLD
from service.cache.learning import pooled
from service.cache.learning.observations import KEPT, Observation
from service.cache.learning.pooled import SAMPLE
from service.cache.learning.verified import (
    GRID,
    Account,
    Fit,
    Quantile,
    drawn,
    posterior,
    quantiles,
)
from service.cache.question import VERIFIED

BOUNDS = (0.01, 0.02, 0.05)
ABLATED, LEAST = 0.02, 0.01
JUDGE_ERRS = 0.05
LINEAR = quantiles([1e-6 + (1 - 2e-6) * at / 49 for at in range(50)])
"""The paper's grid of ε."""

COSINES = (0.85, 0.9, 0.925, 0.95, 0.97, 0.99)
CUTS = (0.5, 0.8, 0.85, 0.9, 0.93, 0.95)
REFIT_LEAST, REFIT_MOST = 8, 256


class Fixed:
    """Serves from a threshold on; all that is asked afresh is stored, as the service does by default."""

    def __init__(self, threshold: float, cut: float | None = None, *, guarded: bool = True) -> None:
        self._threshold, self._cut, self._guarded = threshold, cut, guarded

    def ask(self, cache: Cache, text: int, before: int) -> Outcome:  # noqa: ARG002 - as Arm
        most = 1 if self._cut is None else VERIFIED
        found = cache.held(text, most) if self._guarded else cache.near(text)[:1]
        for one in found:
            if one.similarity >= self._threshold and self._passes(cache.score(text, one) if self._cut else 1):
                return cache.served(text, one)
        cache.exact[text] = cache.semantic[text] = True
        return Outcome.EXPLORED if found else Outcome.MISS

    def _passes(self, score: float | None) -> bool:
        return self._cut is None or (score is not None and score >= self._cut)


class Verified:
    """Serves so that wrong answers stay within a share; what is asked afresh is an observation.

    Args:
        max_error_rate: the share.
        seed: of the draws.
        averaged: the bound is for the mean over all requests, not for each.
        shared: entries share a prior.
        scored: the verifier's score is seen.
        judge_errs: how often the comparison of two answers says the opposite.
        grid: of ε.
    """

    def __init__(
        self,
        max_error_rate: float,
        seed: int,
        *,
        averaged: bool = True,
        shared: bool = True,
        scored: bool = True,
        judge_errs: float = 0.0,
        grid: Sequence[Quantile] = GRID,
    ) -> None:
        self._bound, self._random = max_error_rate, random.Random(seed)  # noqa: S311 - no secret
        self._averaged, self._shared, self._scored = averaged, shared, scored
        self._judge_errs, self._grid = judge_errs, grid
        self._account, self._asked = Account(), 0
        self._observed: dict[int, tuple[Observation, ...]] = {}
        self._sample: list[tuple[int, Observation]] = []
        self._prior, self._since, self._revision = pooled.unlearned(), 0, 0
        self._fits: dict[int, tuple[int, Fit]] = {}

    def ask(self, cache: Cache, text: int, before: int) -> Outcome:
        for _ in range(self._asked, before):
            self._account.add(None)  # answered without us
        self._asked = before + 1
        held = cache.held(text, 1)
        if not held:
            self._account.add(None)
            cache.exact[text] = cache.semantic[text] = True
            return Outcome.MISS
        (one,) = held
        score = cache.score(text, one) if self._scored else None
        bound = self._account.allowed(self._bound) if self._averaged else self._bound
        chance = drawn(self._fit(one.text), one.similarity, score, bound, grid=self._grid)
        self._account.add(chance)
        if self._random.random() > chance.chance:
            return cache.served(text, one)
        correct = cache.right(text, one) != (self._random.random() < self._judge_errs)
        cache.exact[text], cache.semantic[text] = True, not correct
        self._observe(one.text, Observation(one.similarity, score, correct))
        return Outcome.EXPLORED

    def _fit(self, entry: int) -> Fit:
        """By the prior in force."""
        revision, fit = self._fits.get(entry, (-1, None))
        if fit is None or revision != self._revision:
            fit = posterior(self._prior, self._observed.get(entry, ()))
            self._fits[entry] = self._revision, fit
        return fit

    def _observe(self, entry: int, one: Observation) -> None:
        self._observed[entry] = (*self._observed.get(entry, ()), one)[-KEPT:]
        self._fits.pop(entry, None)
        self._sample.append((entry, one))
        self._since += 1
        if self._shared and self._since >= min(REFIT_MOST, max(REFIT_LEAST, len(self._sample) // 8)):
            entries, seen = zip(*self._sample[-SAMPLE:], strict=True)
            self._prior = pooled.fitted(entries, seen)
            self._since, self._revision = 0, self._revision + 1


Made = Callable[[int], Arm]
"""An arm by the stream's seed."""


def verified() -> Iterator[tuple[str, float, Made]]:
    """Name, bound, arm."""
    kinds: dict[str, dict[str, Any]] = {
        "verified": {},
        "each request": {"averaged": False},
        "judge errs": {"judge_errs": JUDGE_ERRS},
    }
    for name, how in kinds.items():
        for bound in BOUNDS:
            yield name, bound, partial(Verified, bound, **how)
    yield "not pooled", ABLATED, partial(Verified, ABLATED, shared=False)
    yield "no score", ABLATED, partial(Verified, ABLATED, scored=False)
    yield "linear grid", LEAST, partial(Verified, LEAST, averaged=False, grid=LINEAR)


def fixed(cut: float) -> Iterator[tuple[str, str, Fixed]]:
    """Family, name, arm: what the service does by default, and what others might choose."""
    yield "default", f"{cut}", Fixed(THRESHOLD, cut)
    yield "exact only", "-", Fixed(math.inf)
    for one in COSINES:
        yield "cosine", f"{one}", Fixed(one, guarded=False)
    for one in COSINES:
        yield "guards", f"{one}", Fixed(one)
    for one in CUTS:
        yield "verifier", f"{one}", Fixed(THRESHOLD, one)
