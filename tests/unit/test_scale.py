"""LangCache's similarity scale."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.scale import cosine_of, similarity_of

COSINES = st.floats(-1, 1)


@pytest.mark.parametrize(("cosine", "similarity"), [(1, 1), (0.8, 0.9), (0.6, 0.8), (0, 0.5), (-1, 0)])
def test_known_values(cosine: float, similarity: float) -> None:
    """redisvl's norm_cosine_distance: (2 - d) / 2 where d = 1 - cosine."""
    assert similarity_of(cosine) == pytest.approx(similarity, abs=1e-15)
    assert cosine_of(similarity) == pytest.approx(cosine, abs=1e-15)
    assert similarity_of(cosine) == pytest.approx((2 - (1 - cosine)) / 2)


@given(COSINES)
def test_there_and_back(cosine: float) -> None:
    similarity = similarity_of(cosine)
    assert 0 <= similarity <= 1
    assert math.isclose(cosine_of(similarity), cosine, abs_tol=1e-15)


@given(COSINES)
def test_what_was_served_reaches_its_own_similarity(cosine: float) -> None:
    assert cosine_of(similarity_of(cosine)) <= cosine


@given(COSINES, COSINES)
def test_order_stays(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert similarity_of(low) <= similarity_of(high)
