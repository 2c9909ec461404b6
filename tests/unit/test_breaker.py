"""When the breaker opens."""

import pytest

from service.store.breaker import IN_A_ROW, OF_WINDOW, WINDOW, Breaker


def test_opens_after_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(IN_A_ROW - 1):
        assert not breaker.failed("why")
    breaker.worked()
    for _ in range(IN_A_ROW - 1):
        assert not breaker.failed("why")
    assert not breaker.is_open
    assert breaker.failed("the last why")
    assert breaker.why == "the last why"


@pytest.mark.parametrize("works", [1, 2])
def test_opens_at_half_of_the_window(works: int) -> None:
    """Every other call fails; of every three, one does."""
    breaker = Breaker()
    for _ in range(3 * WINDOW):
        breaker.failed("why")
        for _ in range(works):
            breaker.worked()
    assert breaker.is_open is (works == 1)


def test_says_once_that_it_opened_and_starts_anew() -> None:
    breaker = Breaker()
    assert [breaker.failed("why") for _ in range(10)].count(True) == 1
    breaker.worked()  # a late answer
    assert breaker.why == "why"
    breaker.close()
    assert not any(breaker.failed("why") for _ in range(IN_A_ROW - 1))
    assert breaker.failed("another why")
    assert OF_WINDOW * 2 == WINDOW
