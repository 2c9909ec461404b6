"""What is kept of observations, and how it lies in Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.learning.observations import (
    FAR,
    KEPT,
    Observation,
    added,
    decoded,
    encoded,
    logit,
    noted,
    notes,
    row,
)

UNIT = st.floats(0, 1)
OBSERVATIONS = st.builds(Observation, st.floats(-1, 1), st.none() | UNIT, st.booleans())


@given(st.lists(OBSERVATIONS, max_size=KEPT))
def test_what_is_read_is_what_was_written(written: list[Observation]) -> None:
    data = encoded(written)
    read = decoded(data)
    assert len(data) == 1 + 4 * len(written)
    assert encoded(read) == data
    for one, other in zip(written, read, strict=True):
        assert (one.correct, one.score is None) == (other.correct, other.score is None)
        assert row(one.similarity, one.score) == pytest.approx(row(*other[:2]), abs=4e-4)


@given(st.lists(st.tuples(st.binary(min_size=16, max_size=16), OBSERVATIONS), max_size=5))
def test_notes_tell_entries_apart(written: list[tuple[bytes, Observation]]) -> None:
    found = notes([noted(entry.hex(), one) for entry, one in written])
    assert [one.entry for one in found] == [entry[:8] for entry, _ in written]
    assert encoded(one.seen for one in found) == encoded(one for _, one in written)


@given(st.binary(max_size=40))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert len(decoded(data)) in {0, (len(data) - 1) / 4}
    assert len(notes([data])) == (len(data) == 12)


def test_what_another_version_wrote_is_nothing() -> None:
    data = encoded([Observation(0.9, 0.9, correct=True)])
    assert decoded(data)
    assert decoded(bytes([data[0] + 1]) + data[1:]) == ()
    assert decoded(data[:-1]) == ()


@given(st.lists(OBSERVATIONS, max_size=3 * KEPT))
def test_the_newest_are_kept_whatever_they_say(seen: list[Observation]) -> None:
    kept: tuple[Observation, ...] = ()
    for one in seen:
        kept = added(kept, one)
    assert kept == tuple(seen[-KEPT:])


@given(UNIT, UNIT)
def test_logit_is_cut_and_rises(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert -FAR <= logit(low) <= logit(high) <= FAR
