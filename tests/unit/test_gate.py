"""When a provider is called, and when it is left alone."""

import math
from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.providers.gate import DOWN_AFTER, Gate, ProviderError, RetryBudget, Why, retry_after_s

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("NaN", None),
        ("inf", None),
        ("-inf", None),
        ("1e999", None),
        ("-1", None),
        ("0", 0),
        ("1.5", 1.5),
        (" 7 ", 7),
        ("60", 60),
        ("61", 60),
        ("1e9", 60),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 60),
        ("Wed, 99 Oct 2099 07:28:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


@given(st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str))
def test_retry_after_is_finite_and_bounded_whatever_it_says(header: str) -> None:
    seconds = retry_after_s(header, NOW)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 60)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(gate: Gate, why: Why = "server", after_s: float | None = None) -> str:
    """What a call that fails ends with."""
    with pytest.raises(ProviderError, match="failed") as caught, gate.call():
        raise ProviderError(why, "failed", after_s)
    return caught.value.why


def test_five_failures_in_a_row_close_it_for_a_second_and_one_probe_opens_it() -> None:
    clock = Clock()
    gate = Gate("it", clock)
    assert [fail(gate) for _ in range(DOWN_AFTER + 1)] == ["server"] * DOWN_AFTER + ["paused"]
    clock.now += 0.99
    assert fail(gate) == "paused"
    clock.now += 0.01
    with gate.call(), pytest.raises(ProviderError), gate.call():
        pass  # a second one beside the probe
    for _ in range(3):
        gate.check()


def test_a_failed_probe_closes_it_again() -> None:
    clock = Clock()
    gate = Gate("it", clock)
    for _ in range(DOWN_AFTER):
        fail(gate)
    for _ in range(3):
        clock.now += 1
        assert [fail(gate), fail(gate)] == ["server", "paused"]


def test_a_success_between_failures_counts() -> None:
    gate = Gate("it", Clock())
    for _ in range(3):
        for _ in range(DOWN_AFTER - 1):
            assert fail(gate) == "server"
        with gate.call():
            pass


def test_retry_after_holds_back_everybody_also_after_a_success() -> None:
    clock = Clock()
    gate = Gate("it", clock)
    with gate.call():
        assert fail(gate, "rate_limited", 30) == "rate_limited"
    clock.now += 29.9
    assert fail(gate) == "paused"
    clock.now += 0.2
    gate.check()


@pytest.mark.parametrize("why", ["text", "values"])
def test_what_one_text_does_is_not_held_against_the_provider(why: Why) -> None:
    gate = Gate("it", Clock())
    assert {fail(gate, why) for _ in range(3 * DOWN_AFTER)} == {why}


def test_a_cancelled_probe_is_no_verdict() -> None:
    clock = Clock()
    gate = Gate("it", clock)
    for _ in range(DOWN_AFTER):
        fail(gate)
    clock.now += 1
    with suppress(KeyboardInterrupt), gate.call():
        raise KeyboardInterrupt
    gate.check()


def test_only_what_may_pass_is_retried() -> None:
    assert {why for why in get_args(Why) if ProviderError(why, "").may_pass} == {
        "connection",
        "rate_limited",
        "server",
    }


def test_a_budget_starts_empty_and_gives_one_in_ten_and_saves_ten() -> None:
    budget = RetryBudget()
    assert not budget.spend()
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert [budget.spend(), budget.spend()] == [True, False]
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10
