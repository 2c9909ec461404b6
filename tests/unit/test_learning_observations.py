"""What the models see of observations."""

from hypothesis import given
from hypothesis import strategies as st

from service.cache.learning.observations import FAR, logit

UNIT = st.floats(0, 1)


@given(UNIT, UNIT)
def test_logit_is_cut_and_rises(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert -FAR <= logit(low) <= logit(high) <= FAR
