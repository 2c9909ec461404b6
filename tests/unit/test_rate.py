"""How fast texts are embedded anew: so many a second at most."""

import pytest

from service.migrate.progress import Rate


@pytest.mark.parametrize(
    ("per_s", "at_once", "owed_s"), [(None, 64, 0.0), (0.5, 1, 1.9), (10.0, 10, 0.9), (200.0, 64, 0.22)]
)
def test_a_call_of_no_more_than_a_second(per_s: float | None, at_once: int, owed_s: float) -> None:
    rate = Rate(per_s)
    assert rate.at_once(64) == at_once
    assert rate.owed_s(rate.at_once(64), 0.1) == pytest.approx(owed_s)


def test_a_slow_embedder_owes_nothing() -> None:
    assert Rate(10).owed_s(10, 2.0) == 0


def test_no_second_has_more() -> None:
    """Whatever the calls take, and however many texts there are."""
    rate, now, left, sent = Rate(7.5), 0.0, 100, list[tuple[float, int]]()
    while left:
        count = min(left, rate.at_once(64))
        sent.append((now, count))
        now += 0.05 + rate.owed_s(count, 0.05)
        left -= count
    for begun, _ in sent:
        assert sum(count for at, count in sent if begun <= at < begun + 0.9) <= 7.5
