"""Mode adaptive: where the threshold moves, on which evidence, and what keeps it from swinging."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.learning.adaptive import (
    HOLD,
    KEPT,
    KEPT_MOVES,
    LOOKS,
    STEP,
    UP,
    Aim,
    State,
    Verdict,
    Why,
    live,
    next_state,
    noise,
    undo,
)
from service.cache.learning.places import Observation, Source, above, below
from service.cache.learning.rates import Basis
from service.cache.learning.strata import EXACT, STRATA

AIM = Aim(0.65, 0.97)
HITS = (1000,) * STRATA
ZERO = (0,) * STRATA


def told(
    state: State, rights: Iterable[bool], similarity: float | None = None, source: Source = Source.FEEDBACK
) -> list[Verdict]:
    """Verdicts that follow the last; a little above the threshold unless said."""
    place = state.threshold + 0.01 if similarity is None else similarity
    return [
        Verdict(state.seen + at, place, right, source, state.threshold, 1)
        for at, right in enumerate(rights, 1)
    ]


def followed(state: State, rights: Sequence[bool]) -> State:
    """One verdict after the other, each of a hit under the threshold of its time."""
    for right in rights:
        state = next_state(state, told(state, [right]), AIM, HITS, 1)
    return state


def test_wrong_answers_raise_it() -> None:
    state = followed(State(0.7), [False, True] * 10)
    (move,) = state.moves
    assert (move.why, move.before, move.after) == (Why.WRONG, 0.7, state.threshold)
    assert (move.verdicts, move.wrong, move.basis) == (20, 10, Basis.FEEDBACK)
    assert 0.05 < move.low < 0.5 < move.high
    assert 0.7 < state.threshold <= 0.7 + UP * STEP + 1e-9


def test_it_is_raised_to_where_answers_get_right() -> None:
    state = State(0.7)
    labels = [(0.7 + at / 1000, at >= 30) for at in range(80)]
    for at in np.random.default_rng(1).permutation(80).tolist():
        similarity, right = labels[at]
        if state.threshold == 0.7:
            one = Verdict(state.seen + 1, similarity, right, Source.FEEDBACK, 0.7, 1)
            state = next_state(state, [one], AIM, HITS, 1)
    assert 0.72 < state.threshold < 0.76


def test_few_wrong_answers_among_few_do_not() -> None:
    assert followed(State(0.7), [False] + [True] * 19).moves == ()
    assert followed(State(0.7), [False] * 19).moves == ()


def test_right_answers_lower_it_slowly() -> None:
    state = followed(State(0.9), [True] * 239)
    assert state.moves == ()
    state = followed(state, [True] * (LOOKS[-1] - 239))
    assert state.moves
    assert all(move.why is Why.RIGHT and move.before - move.after <= STEP + 1e-9 for move in state.moves)


def test_it_stays_where_enough_are_right() -> None:
    rights = [at % 33 != 0 for at in range(2000)]  # 97 %
    assert followed(State(0.8), rights).moves == ()


def test_it_stays_within_its_bounds() -> None:
    assert followed(State(0.95), [False, True] * 100).threshold == AIM.greatest
    assert followed(State(0.66), [True] * 2000).threshold == AIM.least
    moved = next_state(State(0.3), [], AIM, HITS, 5)
    assert (moved.threshold, moved.moves[0].why, moved.moves[0].at) == (0.65, Why.BOUNDS, 5)


def test_known_wrong_places_below_are_not_entered() -> None:
    state = State(0.8)
    bad = told(state, [False] * 10, 0.79, Source.SHADOW)
    state = followed(next_state(state, bad, AIM, HITS, 1), [True] * 700)
    assert state.moves == ()


def test_known_right_places_below_are_reached_in_one_move() -> None:
    state = State(0.9)
    good = [
        Verdict(at + 1, 0.9 - 0.08 * (at + 1) / 60, right=True, source=Source.SHADOW, threshold=0.9)
        for at in range(60)
    ]
    state = followed(next_state(state, good, AIM, HITS, 1), [True] * 240)
    assert state.threshold == pytest.approx(0.82, abs=0.002)


def test_shadow_labels_alone_move_nothing() -> None:
    state = next_state(State(0.8), told(State(0.8), [True] * 2000, 0.79, Source.SHADOW), AIM, HITS, 1)
    assert (state.threshold, state.fresh, state.moves) == (0.8, 0, ())


def test_hits_under_a_higher_threshold_do_not_count_as_this_ones() -> None:
    """Verdicts come late: after a move down those of before it know nothing of what lies between."""
    late = [Verdict(at, 0.95, right=True, source=Source.FEEDBACK, threshold=0.9) for at in range(1, 900)]
    state = next_state(State(0.8), late, AIM, HITS, 1)
    assert (state.fresh, state.moves, len(state.observations)) == (0, (), KEPT)


def test_complaints_alone_do_not_raise_it_while_they_are_few_of_the_hits() -> None:
    state = next_state(State(0.7), told(State(0.7), [False] * 60), AIM, (0, 3000, 0, 0, 0), 1)
    assert live(state, (0, 3000, 0, 0, 0)).basis is Basis.COMPLAINTS
    assert state.moves == ()
    many = next_state(State(0.7), told(State(0.7), [False] * 60), AIM, (0, 300, 0, 0, 0), 1)
    assert many.moves


def test_reviews_outweigh_biased_feedback() -> None:
    state = State(0.7)
    mixed = [
        Verdict(at, 0.75, at % 3 != 0, Source.FEEDBACK if at % 3 == 0 else Source.REVIEW, 0.7, 1)
        for at in range(1, 400)
    ]
    state = next_state(state, mixed, AIM, (0, 100_000, 0, 0, 0), 1)
    assert state.moves == ()


def test_false_feedback_is_measured_on_exact_hits() -> None:
    state = State(0.8)
    exact = [Verdict(at, 1.0, at % 10 != 0, Source.FEEDBACK, 0.8, EXACT) for at in range(1, 501)]
    state = next_state(state, exact, AIM, HITS, 1)
    assert 0.06 < noise(state) < 0.1
    rights = [at % 10 != 0 for at in range(1, 401)]
    assert followed(state, rights).moves == ()
    assert followed(State(0.8), rights).moves != ()


def test_exact_hits_count_where_the_aim_says_so() -> None:
    exact = [
        Verdict(at, 1.0, right=True, source=Source.FEEDBACK, threshold=0.9, stratum=EXACT)
        for at in range(1, 241)
    ]
    assert next_state(State(0.9), exact, AIM, HITS, 1).moves == ()
    assert next_state(State(0.9), exact, AIM._replace(exact=True), HITS, 1).threshold < 0.9


def test_a_reversal_halves_the_steps() -> None:
    state = followed(State(0.9), [True] * 240)
    assert state.step == STEP
    state = followed(state, [False, True] * 10)
    assert [move.why for move in state.moves] == [Why.RIGHT, Why.WRONG]
    assert state.step == STEP / 2
    assert state.moves[1].after - state.moves[1].before <= UP * STEP / 2 + 1e-9


def test_an_undone_move_is_not_made_again_at_once() -> None:
    state = followed(State(0.8), [False, True] * 10)
    (move,) = state.moves
    back = undo(state, move.number, HITS, 7)
    assert (back.threshold, back.moves[-1].why, back.moves[-1].at) == (0.8, Why.UNDONE, 7)
    assert undo(back, move.number, HITS, 8) == back
    assert undo(state, move.number + 1, HITS, 8) == state
    held = followed(back, [False] * (HOLD - 1))
    assert held.threshold == 0.8
    assert followed(held, [False, True] * 100).threshold > 0.8


def test_numbers_are_applied_once() -> None:
    verdicts = told(State(0.7), [False, True] * 15)
    state = next_state(State(0.7), verdicts, AIM, HITS, 1)
    assert next_state(state, verdicts, AIM, HITS, 2) == state
    assert next_state(state, verdicts[:7], AIM, HITS, 2) == state


labels = st.lists(st.tuples(st.floats(0.6, 1.0), st.booleans(), st.sampled_from(Source)), max_size=200)


@given(labels, st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_how_verdicts_are_cut_into_calls_changes_nothing(
    found: list[tuple[float, bool, Source]], cut: int
) -> None:
    verdicts = [
        Verdict(at, s, right, source, 0.7, at % STRATA) for at, (s, right, source) in enumerate(found, 1)
    ]
    once = next_state(State(0.7), verdicts, AIM, HITS, 1)
    twice = next_state(next_state(State(0.7), verdicts[:cut], AIM, HITS, 1), verdicts[cut:], AIM, HITS, 1)
    assert once == twice
    assert AIM.least <= once.threshold <= AIM.greatest
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(once), type=State) == once


def stream(right: Callable[[float], float], verdicts: int, start: float, seed: int) -> State:
    random = np.random.default_rng(seed)
    state = State(start)
    for number in range(1, verdicts + 1):
        similarity = float(random.uniform(state.threshold, 1))
        one = Verdict(
            number, similarity, bool(random.random() < right(similarity)), Source.FEEDBACK, state.threshold, 1
        )
        state = next_state(state, [one], AIM, (number * 10,) * STRATA, number)
    return state


@pytest.mark.parametrize("seed", range(3))
def test_at_a_cliff_it_settles(seed: int) -> None:
    """Right from 0.8 on, mostly wrong below: it comes to lie near, and turns ever less."""
    state = stream(lambda s: 0.998 if s >= 0.8 else 0.4, 6000, 0.92, seed)
    assert 0.74 < state.threshold < 0.9
    turns = [a.number for a, b in pairwise(state.moves) if a.why is not b.why]
    assert len(turns) <= 12
    assert all(b - a >= LOOKS[0] for a, b in pairwise([move.number for move in state.moves]))


def test_what_is_kept_is_bounded() -> None:
    state = stream(lambda _: 0.6, 200, 0.65, 1)
    for number in range(300):
        state = undo(state, state.moves[-1].number, ZERO, number)
        exact = Verdict(state.seen + 1, 1.0, bool(number % 2), Source.FEEDBACK, 0.9, EXACT)
        state = followed(next_state(state, [exact], AIM, HITS, 1), [False] * 10)
    assert len(state.observations) <= KEPT
    assert len(state.moves) <= KEPT_MOVES
    assert len(msgspec.msgpack.encode(state)) < 50_000


def observed(*labelled: tuple[float, bool]) -> list[Observation]:
    return [Observation(s, right, Source.FEEDBACK, 0.0, 0) for s, right in labelled]


def test_places() -> None:
    wrong_below = observed(*((0.70 + at / 500, at >= 20) for at in range(60)))
    assert above(wrong_below, 0.70, 0.8, 0.03) == 0.738
    assert above(wrong_below, 0.70, 0.73, 0.03) == 0.73
    assert above(wrong_below[:15], 0.70, 0.79, 0.03) == 0.79
    right_below = observed(*((0.70 + at / 1000, True) for at in range(100)))
    assert below(right_below, 0.8, 0.77, 0.71, 0.05) == 0.71
    assert below([], 0.8, 0.77, 0.71, 0.05) == 0.77
    assert below(observed(*[(0.79, False)] * 3), 0.8, 0.77, 0.71, 0.05) == 0.8
