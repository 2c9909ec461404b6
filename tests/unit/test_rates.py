"""The live false-hit rate: intervals honest for few verdicts, and what each kind of verdict counts for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.learning.certainty import interval, tails
from service.cache.learning.rates import Basis, Checked, Stratum, estimate
from service.cache.learning.strata import EXACT, SEMANTIC, STRATA, stratum

some = st.integers(0, 60)
strata = st.lists(
    st.builds(Stratum, st.integers(0, 2000), some, some, some, some), min_size=1, max_size=STRATA
)
checks = st.builds(Checked, some, some, some, some)


def test_nothing_is_known_without_verdicts() -> None:
    found = estimate([Stratum(500), Stratum(20)])
    assert found == (None, 0.0, 1.0, Basis.NONE, 520, 0, 0, 520)
    assert estimate([Stratum()]).basis is Basis.NONE


def test_none_wrong_of_twenty_is_not_never() -> None:
    found = estimate([Stratum(10_000, volunteered_right=20)])
    assert (found.rate, found.low, found.basis) == (0.0, 0.0, Basis.FEEDBACK)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20), rel=0.06)  # Clopper's and Pearson's


@pytest.mark.parametrize(("right", "wrong"), [(20, 0), (0, 20), (95, 5), (498, 2), (50, 50)])
def test_the_interval_of_one_share(right: int, wrong: int) -> None:
    low, high = interval(right, wrong)
    total = right + wrong
    assert tail(total, wrong, low) == pytest.approx(0.025 if wrong else 1, abs=0.01)
    assert 1 - tail(total, wrong + 1, high) == pytest.approx(0.025 if right else 1, abs=0.01)


def tail(total: int, least: int, share: float) -> float:
    """The chance of so many or more."""
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(least, total + 1))


@pytest.mark.parametrize("wrong", [0, 1, 7, 40, 79, 80])
def test_of_few_hits_the_end_is_that_of_drawing_without_putting_back(wrong: int) -> None:
    """80 hits, 30 of them judged: the chance of what lies beyond an end is 2.5 % at most."""
    random = np.random.default_rng(2)
    seen = random.hypergeometric(wrong, 80 - wrong, 30, 4000)
    ends = {k: tails(30 - k, k, 80) for k in np.unique(seen).tolist()}
    missed = [not ends[k][0] <= wrong / 80 <= ends[k][1] for k in seen.tolist()]
    assert np.mean(missed) <= 0.05


def test_all_judged_is_known() -> None:
    found = estimate([Stratum(10, 8, 2), Stratum(10, 10, 0)])
    assert (found.rate, found.low, found.high) == (0.1, 0.1, 0.1)


def test_what_is_to_come_is_never_known() -> None:
    for counts in ([Stratum(20, volunteered_right=20)], [Stratum(20, reviewed_right=20)]):
        assert estimate(counts).high == 0.0
        assert 0.1 < estimate(counts, to_come=True).high < 0.2


def test_strata_are_weighed_by_their_hits() -> None:
    """Uncertain ones are reviewed ten times as often: a mean of all verdicts would be 27 %."""
    found = estimate([Stratum(200, 60, 40), Stratum(4800, 50, 0)])
    assert found.rate == pytest.approx(0.4 * 200 / 5000)
    assert found.low <= 0.016 <= found.high < 0.1


def test_what_nobody_reviewed_is_taken_as_no_worse_than_the_less_certain() -> None:
    known, unknown = Stratum(200, 90, 10), Stratum(4800)
    found = estimate([known, unknown])
    assert found.assumed == 4800
    assert found.low <= 0.01
    assert 0.1 < found.high < 0.2
    assert estimate([unknown, known]).high > 0.9  # nothing bounds the least certain


def test_complaints_bound_it_from_below_only() -> None:
    found = estimate([Stratum(1000, volunteered_wrong=30)])
    assert (found.low, found.high, found.basis) == (0.03, 1.0, Basis.COMPLAINTS)


def test_reviews_count_before_biased_feedback() -> None:
    biased = Stratum(2000, volunteered_right=1, volunteered_wrong=20)
    assert estimate([biased]).low > 0.7
    found = estimate([biased._replace(reviewed_right=200, reviewed_wrong=2)])
    assert found.basis is Basis.REVIEWS
    assert found.high < 0.06


def test_false_reports_are_overruled() -> None:
    hits = Stratum(5000, reviewed_right=250, volunteered_right=430, volunteered_wrong=20)
    believed = estimate([hits], Checked(right_confirmed=25, wrong_confirmed=20))
    doubted = estimate([hits], Checked(right_confirmed=25, wrong_overruled=20))
    assert believed.low >= 40 / 5000 * 0.8
    assert doubted.rate == 0.0
    assert doubted.high < believed.high


def test_a_hit_with_both_verdicts_counts_once() -> None:
    found = estimate([Stratum(50, 20, 0, 10, 5)], Checked(3, 1, 2, 2))
    assert (found.hits, found.verdicts) == (50, 43)
    assert found.wrong == 5 + 1 + 2


@given(strata, checks)
@settings(max_examples=60, deadline=None)
def test_the_rate_is_within_its_interval(counts: list[Stratum], checked: Checked) -> None:
    found = estimate(counts, checked)
    assert 0 <= found.low <= found.high <= 1
    assert found.rate is None or found.low <= found.rate <= found.high
    assert found.verdicts <= found.hits
    assert found == estimate(counts, checked)


@given(st.integers(0, 200), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_more_wrong_ones_are_no_better(right: int, wrong: int) -> None:
    fewer, more = interval(right + 1, wrong - 1), interval(right, wrong)
    assert fewer[0] <= more[0] + 0.003
    assert fewer[1] <= more[1] + 0.003


def test_uncertainty() -> None:
    by_score = [stratum(0.7, 0.65, score, 0.6) for score in (0.6, 0.69, 0.71, 0.81, 0.91, 1.0)]
    assert by_score == [0, 0, 1, 2, 3, 3]
    by_similarity = [stratum(at, 0.6, None, None) for at in (0.5, 0.6, 0.75, 0.85, 0.95, 1.0)]
    assert by_similarity == [0, 0, 1, 2, 3, 3]
    assert stratum(1.0, 1.0, None, None) == SEMANTIC - 1 < EXACT
