"""The prior that an agent_type's observations make."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.learning.observations import Observation, logit
from service.cache.learning.pooled import LEAST, SAMPLE, UNSEEN, fitted, square, unlearned
from tests.learning import world


def test_nothing_seen_is_the_hyperprior() -> None:
    assert fitted([], []) == unlearned()
    assert unlearned().lowest == UNSEEN


def test_coefficients_and_spread_are_found() -> None:
    entries, seen = world(4000, entries=300, spread=1.5, seed=1)
    prior = fitted(entries, seen)
    b, g, w, _ = prior.mean
    assert (b, g, w) == pytest.approx((-1, 2, 2.4), abs=0.5)
    assert prior.spread in {1.0, 1.5, 2.0}
    assert prior.observed == 4000
    assert fitted(*world(4000, entries=300, spread=0.0, seed=1)).spread <= 0.5


@pytest.mark.parametrize("split", [0.7, 0.85, 0.99])
def test_labels_that_separate_completely_give_a_finite_fit(split: float) -> None:
    draws = [0.65 + 0.35 * k / 500 for k in range(500)]
    seen = [Observation(s, None, s > split) for s in draws]
    prior = fitted(range(len(seen)), seen)
    assert all(map(math.isfinite, [*prior.mean, *prior.covariance]))
    assert 0 < prior.mean[1] < 30


@pytest.mark.parametrize("correct", [True, False])
def test_labels_of_one_kind_give_a_finite_fit(correct: bool) -> None:  # noqa: FBT001 - a parameter
    prior = fitted([0] * 300, [Observation(0.9, 0.9, correct)] * 300)
    assert all(map(math.isfinite, [*prior.mean, *prior.covariance]))
    assert (prior.lowest < 1) == correct


def test_what_points_the_other_way_is_taken_for_nothing() -> None:
    seen = [Observation(0.65 + 0.35 * k / 400, 0.5, k < 200) for k in range(400)]
    prior = fitted(range(400), seen)
    assert prior.mean[1] == 0
    assert square(prior.covariance)[1].tolist() == [0, 0, 0, 0]
    assert np.linalg.eigvalsh(square(prior.covariance)).min() > -1e-9


def test_few_confirmations_are_no_confirmation() -> None:
    few = [Observation(0.9, None, correct=True)] * (LEAST - 1)
    assert fitted([0] * len(few), few).lowest == UNSEEN
    more = [*few, Observation(0.95, None, correct=True)]
    assert fitted([0] * len(more), more).lowest == 0.95


def test_only_the_newest_are_read() -> None:
    entries, seen = world(SAMPLE, entries=50, spread=1.0, seed=2)
    old: Sequence[Observation] = [Observation(0.99, 0.99, correct=False)] * 1000
    assert fitted([-1] * len(old) + entries, [*old, *seen]) == fitted(entries, seen)


def test_order_says_nothing() -> None:
    entries, seen = world(500, entries=20, spread=1.0, seed=3)
    once, back = fitted(entries, seen), fitted(entries[::-1], seen[::-1])
    assert once.mean == pytest.approx(back.mean, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.builds(Observation, st.floats(0.5, 1), st.none() | st.floats(0, 1), st.booleans()),
        ),
        max_size=40,
    )
)
def test_any_observations_can_be_fitted(found: list[tuple[int, Observation]]) -> None:
    prior = fitted([entry for entry, _ in found], [one for _, one in found])
    assert np.linalg.eigvalsh(square(prior.covariance)).min() > -1e-9
    assert min(prior.mean[1:3]) >= 0


def test_the_world_of_these_tests() -> None:
    _, seen = world(4000, entries=300, spread=0.0, seed=1)
    sure = [one for one in seen if one.similarity > 0.95 and logit(one.score or 0) > 2]
    assert sum(one.correct for one in sure) > 0.9 * len(sure)
