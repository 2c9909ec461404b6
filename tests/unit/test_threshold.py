"""The threshold for another model, from pairs under both."""

import numpy as np
import pytest

from service.migrate.threshold import FEWEST, UNKNOWN, Pair, recalibrated


def pairs(count: int, *, gain: float = 0.2, noise: float = 0.0) -> list[Pair]:
    """Pairs whose similarity under the new model is a line through that of the old one, and noise."""
    rng = np.random.default_rng(1)
    old = rng.uniform(0.3, 1.0, count)
    new = gain + (1 - gain) * old + noise * rng.normal(size=count)
    return [Pair(float(one), float(other)) for one, other in zip(old, new, strict=True)]


def test_a_line_is_followed() -> None:
    found = recalibrated(pairs(5000), 0.65)
    assert found.threshold == pytest.approx(0.2 + 0.8 * 0.65, abs=5e-3)
    assert found.is_known
    assert found.kept == found.accepted
    assert found.gained <= 0.011 * found.kept


def test_where_the_models_disagree_it_is_stricter() -> None:
    loose, strict = recalibrated(pairs(5000), 0.65), recalibrated(pairs(5000, noise=0.1), 0.65)
    assert strict.threshold > loose.threshold
    assert strict.gained <= 0.01 * (strict.kept + strict.gained)
    assert strict.kept < strict.accepted


def test_equal_ones_are_served_together_or_not_at_all() -> None:
    some = [Pair(0.9, 0.8)] * FEWEST + [Pair(0.1, 0.8)] * FEWEST
    found = recalibrated(some, 0.65)
    assert (found.threshold, found.kept, found.gained) == (UNKNOWN, 0, 0)
    assert not found.is_known


def test_too_few_pairs_tell_nothing() -> None:
    found = recalibrated([Pair(0.9, 0.99)] * (FEWEST - 1), 0.65)
    assert not found.is_known
    assert found.threshold == UNKNOWN
    assert recalibrated([], 0.97).threshold == 0.97


def test_without_pairs_that_are_not_served_nothing_bounds_it() -> None:
    found = recalibrated([Pair(0.9, 0.4 + at / 1000) for at in range(500)], 0.65)
    assert (found.is_known, found.threshold) == (False, UNKNOWN)
