"""May a candidate be served? The decision's properties, and a small world where the bound must hold."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.learning import pooled
from service.cache.learning.observations import KEPT, Observation, row
from service.cache.learning.pooled import square, unlearned
from service.cache.learning.verified import (
    AUDITED,
    GRID,
    LATELY,
    MARGIN,
    WORTH,
    Account,
    Drawn,
    Fit,
    confirmed,
    drawn,
    posterior,
    quantiles,
)
from tests.learning import probability, world

LEARNED = pooled.fitted(*world(2000, entries=100, spread=1.0, seed=1))
SCORES = st.none() | st.floats(0, 1)
SEEN = st.lists(st.builds(Observation, st.floats(0.6, 1), SCORES, st.booleans()), max_size=12)


def chance(fit: Fit, near: float, score: float | None, allowed: float, audited: float = AUDITED) -> float:
    """Tau."""
    return drawn(fit, near, score, allowed, audited=audited).chance


FITS = st.builds(posterior, st.sampled_from([unlearned(), LEARNED]), SEEN)


@settings(deadline=None)
@given(FITS, st.lists(st.floats(-1, 1), min_size=2, max_size=5), SCORES, st.floats(0.001, 0.3))
def test_the_nearer_the_surer(fit: Fit, near: list[float], score: float | None, bound: float) -> None:
    found = [chance(fit, one, score, bound) for one in sorted(near)]
    assert all(later <= before + 1e-9 for before, later in pairwise(found))


@settings(deadline=None)
@given(FITS, st.floats(0.5, 1), SCORES, st.lists(st.floats(0.0001, 0.5), min_size=2, max_size=5))
def test_the_laxer_the_more_is_served(
    fit: Fit, near: float, score: float | None, bounds: list[float]
) -> None:
    found = [chance(fit, near, score, one) for one in sorted(bounds)]
    assert found == sorted(found, reverse=True)


@settings(deadline=None)
@given(FITS, st.floats(-1, 1), SCORES, st.floats(0, 0.5), st.floats(0, 0.2))
def test_audits_never_end(fit: Fit, near: float, score: float | None, bound: float, audited: float) -> None:
    assert audited <= chance(fit, near, score, bound, audited=audited) <= 1


@settings(deadline=None)
@given(SEEN, st.floats(0, 1), SCORES)
def test_nothing_is_served_below_the_floor(
    seen: list[Observation], depth: float, score: float | None
) -> None:
    fit = posterior(LEARNED, seen)
    lowest = min([LEARNED.lowest, *(one.similarity for one in seen if one.correct)])
    assert fit.floor == lowest - MARGIN
    assert chance(fit, math.nextafter(fit.floor, -1) - depth, score, 0.5) == 1


def test_without_a_pool_nothing_lies_below_the_entrys_own() -> None:
    fit = posterior(unlearned(), [Observation(0.9 + k / 1000, 0.99, correct=True) for k in range(60)])
    assert fit.floor == 0.9 - MARGIN
    assert chance(fit, 0.75, 0.99, 0.05) == 1
    assert chance(fit, 0.93, 0.99, 0.05) < 0.5


def test_no_similarity_is_explored() -> None:
    assert chance(posterior(LEARNED, ()), math.nan, 0.99, 0.5) == 1


@settings(deadline=None)
@given(FITS, st.floats(0.7, 1), SCORES, st.floats(0.005, 0.2))
def test_what_is_served_is_within_the_bound_by_alpha(
    fit: Fit, near: float, score: float | None, bound: float
) -> None:
    tau = chance(fit, near, score, bound, audited=0.0)
    alpha = confirmed(fit, row(near, score), GRID)
    assert (1 - tau) * (1 - alpha) <= bound + 1e-9
    assert tau == 1 or alpha >= WORTH


def test_alpha_is_less_than_what_is_expected() -> None:
    for near in (0.8, 0.9, 0.97):
        for score in (0.5, 0.9, 0.99):
            fit = posterior(LEARNED, ())
            draws = np.random.default_rng(1)
            u = draws.normal(0, LEARNED.spread, 20_000)
            cov = square(LEARNED.covariance)
            coefficients = draws.multivariate_normal(LEARNED.mean, cov, 20_000)
            eta = coefficients @ np.array(row(near, score)) + u
            assert confirmed(fit, row(near, score), GRID) < (1 / (1 + np.exp(-eta))).mean() + 0.005


def test_a_new_entry_is_served_only_after_enough_was_seen_of_others() -> None:
    near, score = 0.97, 0.99
    entries, seen = world(2000, entries=100, spread=1.0, seed=1)
    found = [
        chance(posterior(pooled.fitted(entries[:k], seen[:k]), ()), near, score, 0.05)
        for k in (0, 5, 20, 500, 2000)
    ]
    assert found[:2] == [1, 1]
    assert found[-1] < found[-2] < 0.9
    assert found[-1] < 0.6


def test_its_own_observations_move_an_entry() -> None:
    near, score = 0.93, 0.95
    right, wrong = Observation(near, score, correct=True), Observation(near, score, correct=False)
    plain = chance(posterior(LEARNED, ()), near, score, 0.05)
    assert chance(posterior(LEARNED, [right] * 10), near, score, 0.05) < plain
    assert chance(posterior(LEARNED, [wrong] * 3), near, score, 0.05) > plain
    mixed = [right] * 12 + [wrong] * 4
    assert chance(posterior(LEARNED, mixed), near, score, 0.02) > 0.8


@settings(max_examples=50, deadline=None)
@given(SEEN, st.randoms(use_true_random=False))
def test_order_says_nothing(seen: list[Observation], order: random.Random) -> None:
    other = order.sample(seen, len(seen))
    one, two = posterior(LEARNED, seen), posterior(LEARNED, other)
    assert [*one.mean, *one.covariance] == pytest.approx([*two.mean, *two.covariance], abs=1e-6)


def test_labels_that_separate_with_and_without_noise() -> None:
    clean = [Observation(0.7 + k / 220, None, k >= 32) for k in range(64)]
    noisy = [one._replace(correct=not one.correct) if k % 16 == 8 else one for k, one in enumerate(clean)]
    sure, less = posterior(unlearned(), clean), posterior(unlearned(), noisy)
    assert all(map(math.isfinite, [*sure.mean, *sure.covariance]))
    assert 0 < less.mean[1] < sure.mean[1]
    assert chance(sure, 0.98, None, 0.02) < chance(less, 0.98, None, 0.02)


def test_the_logarithmic_grid_serves_more_where_the_bound_is_small() -> None:
    linear = quantiles([1e-6 + (1 - 2e-6) * at / 49 for at in range(50)])
    seen = row(0.99, 0.998)
    fit = Fit((8.0, 1.0, 1.0, 0.0), (0.1, *[0.0] * 9), 0.01, 0.7)
    assert confirmed(fit, seen, GRID) > 0.999 > 1 - 0.0204 + 0.001 > confirmed(fit, seen, linear[1:])


EVEN = Drawn(0.5, 0.02)


def account(others: int, decided: int, draw: Drawn = EVEN) -> Account:
    found = Account()
    for _ in range(others):
        found.add(None)
    for _ in range(decided):
        found.add(draw)
    return found


def test_what_others_leave_is_allowed() -> None:
    assert account(0, 0).allowed(0.02) == 0.02
    assert account(900, 100).allowed(0.02) == pytest.approx(0.02 * 1100 / 200)
    assert account(0, 1000, Drawn(0.5, 0.01)).allowed(0.02) == 0.02
    assert account(0, 1000, Drawn(1.0, 0.9)).allowed(0.02) == pytest.approx(0.02 * 11)


def test_no_more_is_given_than_was_left() -> None:
    """All that was saved is asked for at once: by the shares alone the bound would be exceeded twofold."""
    found, wrong = account(9000, 0), 0.0
    for _ in range(9000):
        tau = max(0.0, 1 - found.allowed(0.02) / 0.28)
        found.add(Drawn(tau, 0.28))
        wrong += (1 - tau) * 0.28
    assert 0.9 * 0.02 * 18_000 < wrong <= 0.02 * 18_100 + 0.28


def test_what_was_long_ago_counts_half() -> None:
    found = account(2 * LATELY, 3)
    assert found.requests < LATELY
    assert found.allowed(0.02) == pytest.approx(0.02 * (found.requests + 100) / 103)


@pytest.mark.parametrize("bound", [0.01, 0.05])
@pytest.mark.parametrize("averaged", [False, True])
def test_the_bound_holds_in_a_small_world(bound: float, averaged: bool) -> None:  # noqa: FBT001 - a parameter
    """4,000 requests, most with a candidate of one of 60 entries; the fits are made along the way."""
    draws = random.Random(7)  # noqa: S311 - no secret
    u = [draws.gauss(0, 1.0) for _ in range(60)]
    entries: list[int] = []
    seen: list[Observation] = []
    own: dict[int, tuple[Observation, ...]] = {}
    prior, wrong, served, books = unlearned(), 0, 0, Account()
    for _ in range(4000):
        if draws.random() < 0.4:
            books.add(None)
            continue  # no candidate
        entry, near, score = draws.randrange(60), draws.uniform(0.65, 1), draws.random() ** 0.3
        allowed = books.allowed(bound) if averaged else bound
        draw = drawn(posterior(prior, own.get(entry, ())), near, score, allowed)
        books.add(draw)
        right = draws.random() < probability(near, score, u[entry])
        if draws.random() > draw.chance:
            served, wrong = served + 1, wrong + (not right)
            continue
        one = Observation(near, score, right)
        own[entry] = (*own.get(entry, ()), one)[-KEPT:]
        entries.append(entry)
        seen.append(one)
        if len(seen) % 200 == 0:
            prior = pooled.fitted(entries, seen)
    assert wrong <= bound * 4000
    assert served > 30
