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
    KEPT_MOVES,
    LOOKS,
    READ,
    STEP,
    UP,
    Aim,
    State,
    Told,
    Why,
    evidence,
    fresh_of,
    live,
    next_state,
    noise,
    undo,
)
from service.cache.learning.places import Source, Verdict, above, below
from service.cache.learning.rates import Basis
from service.cache.learning.strata import EXACT, STRATA

AIM = Aim(0.65, 0.97)
HITS = (1000,) * STRATA
ZERO = (0,) * STRATA


class Story:
    """A threshold, and all that was said."""

    def __init__(self, threshold: float, aim: Aim = AIM, hits: Sequence[int] = HITS) -> None:
        self.state, self.aim, self.hits = State(threshold), aim, hits
        self.said: list[Verdict] = []

    @property
    def now(self) -> int:
        """One verdict each ms."""
        return len(self.said)

    def say(
        self,
        rights: Iterable[bool],
        similarity: float | None = None,
        source: Source = Source.FEEDBACK,
        threshold: float | None = None,
        stratum: int = 1,
    ) -> "Story":
        """One verdict after the other, each of a hit under the threshold of its time."""
        for right in rights:
            place = self.state.threshold + 0.01 if similarity is None else similarity
            under = self.state.threshold if threshold is None else threshold
            self.said.append(Verdict(self.now + 1, place, right, source, under, stratum))
            self.look()
        return self

    def look(self) -> None:
        self.state = next_state(self.state, self.said, self.aim, self.hits, self.now)

    @property
    def whys(self) -> list[Why]:
        return [move.why for move in self.state.moves]


def test_wrong_answers_raise_it() -> None:
    state = Story(0.7).say([False, True] * 10).state
    (move,) = state.moves
    assert (move.why, move.before, move.after) == (Why.WRONG, 0.7, state.threshold)
    assert (move.verdicts, move.wrong, move.basis) == (20, 10, Basis.FEEDBACK)
    assert 0.05 < move.low < 0.5 < move.high
    assert 0.7 < state.threshold <= 0.7 + UP * STEP + 1e-9


def test_it_is_raised_to_where_answers_get_right() -> None:
    told = Story(0.7)
    labels = [(0.7 + at / 1000, at >= 30) for at in range(80)]
    for at in np.random.default_rng(1).permutation(80).tolist():
        similarity, right = labels[at]
        if told.state.threshold == 0.7:
            told.say([right], similarity)
    assert 0.72 < told.state.threshold < 0.76


def test_few_wrong_answers_among_few_do_not() -> None:
    assert Story(0.7).say([False] + [True] * 19).whys == []
    assert Story(0.7).say([False] * 19).whys == []


def test_right_answers_lower_it_slowly() -> None:
    told = Story(0.9).say([True] * 239)
    assert told.whys == []
    told.say([True] * (LOOKS[-1] - 239))
    assert told.whys
    assert all(m.why is Why.RIGHT and m.before - m.after <= STEP + 1e-9 for m in told.state.moves)


def test_it_stays_where_enough_are_right() -> None:
    assert Story(0.8).say(at % 33 != 0 for at in range(2000)).whys == []  # 97 %


def test_it_stays_within_its_bounds() -> None:
    assert Story(0.95).say([False, True] * 100).state.threshold == AIM.greatest
    assert Story(0.66).say([True] * 2000).state.threshold == AIM.least
    moved = next_state(State(0.3), [], AIM, HITS, 5)
    assert (moved.threshold, moved.moves[0].why, moved.moves[0].at) == (0.65, Why.BOUNDS, 5)


def test_known_wrong_places_below_are_not_entered() -> None:
    assert Story(0.8).say([False] * 10, 0.79, Source.SHADOW).say([True] * 700).whys == []


def test_known_right_places_below_are_reached_in_one_move() -> None:
    told = Story(0.9)
    for at in range(60):
        told.say([True], 0.9 - 0.08 * (at + 1) / 60, Source.SHADOW)
    assert told.say([True] * 240).state.threshold == pytest.approx(0.82, abs=0.002)


def test_shadow_labels_alone_move_nothing() -> None:
    told = Story(0.8).say([True] * 2000, 0.79, Source.SHADOW)
    assert told.state == State(0.8)
    assert fresh_of(told.state, told.said, AIM) == []


def test_hits_under_a_higher_threshold_do_not_count_as_this_ones() -> None:
    """Verdicts come late: after a move down those of before it know nothing of what lies between."""
    told = Story(0.8).say([True] * 900, 0.95, threshold=0.9)
    assert told.state == State(0.8)
    assert len(evidence([], told.said, AIM).hits) == READ


def test_complaints_alone_do_not_raise_it_while_they_are_few_of_the_hits() -> None:
    told = Story(0.7, hits=(0, 3000, 0, 0, 0)).say([False] * 60)
    assert live(told.state, told.said, told.hits, AIM).basis is Basis.COMPLAINTS
    assert told.whys == []
    assert Story(0.7, hits=(0, 300, 0, 0, 0)).say([False] * 60).whys


def test_reviews_outweigh_biased_feedback() -> None:
    told = Story(0.7, hits=(0, 100_000, 0, 0, 0))
    for at in range(1, 400):
        told.say([at % 3 != 0], 0.75, Source.FEEDBACK if at % 3 == 0 else Source.REVIEW)
    assert told.whys == []


def test_false_feedback_is_measured_on_exact_hits() -> None:
    rights = [at % 10 != 0 for at in range(1, 401)]
    told = Story(0.8).say((at % 10 != 0 for at in range(1, 501)), 1.0, stratum=EXACT)
    assert 0.06 < noise(evidence([], told.said, AIM).exact) < 0.1
    assert told.say(rights).whys == []
    assert Story(0.8).say(rights).whys


def test_exact_hits_count_where_the_aim_says_so() -> None:
    assert Story(0.9).say([True] * 240, 1.0, stratum=EXACT).whys == []
    counted = Story(0.9, AIM._replace(exact=True)).say([True] * 240, 1.0, stratum=EXACT)
    assert counted.state.threshold < 0.9


def test_a_reversal_halves_the_steps() -> None:
    told = Story(0.9).say([True] * 240)
    assert told.state.step == STEP
    state = told.say([False, True] * 10).state
    assert told.whys == [Why.RIGHT, Why.WRONG]
    assert state.step == STEP / 2
    assert state.moves[1].after - state.moves[1].before <= UP * STEP / 2 + 1e-9


def test_an_undone_move_is_not_made_again_at_once() -> None:
    told = Story(0.8).say([False, True] * 10)
    (move,) = told.state.moves
    back = undo(told.state, move.number, Told(HITS, told.now, told.now))
    assert (back.threshold, back.moves[-1].why, back.moves[-1].at) == (0.8, Why.UNDONE, told.now)
    assert undo(back, move.number, Told(HITS, 80, 80)) == back
    assert undo(told.state, move.number + 1, Told(HITS, 80, 80)) == told.state
    told.state = back
    assert told.say([False] * (HOLD - 1)).state.threshold == 0.8
    assert told.say([False, True] * 100).state.threshold > 0.8


def test_what_was_said_counts_once_and_as_it_was_said_last() -> None:
    told = Story(0.7).say([True] * 19)
    told.state = next_state(told.state, told.said, AIM, HITS, 20)
    assert told.state == State(0.7)
    changed = [msgspec.structs.replace(one, right=at >= 10) for at, one in enumerate(told.said)]
    again = Story(0.7)
    again.said = changed
    again.say([True])
    (move,) = again.state.moves
    assert (move.verdicts, move.wrong) == (20, 10)
    after = again.state
    again.look()
    assert again.state == after


def test_many_verdicts_at_once_are_judged_once() -> None:
    said = Story(0.7).say([True] * 19).said * 5
    said = [msgspec.structs.replace(one, at=at, right=at % 2 > 0) for at, one in enumerate(said, 1)]
    state = next_state(State(0.7), said, AIM, HITS, 100)
    (move,) = state.moves
    assert move.verdicts == len(said)


labels = st.lists(st.tuples(st.floats(0.6, 1.0), st.booleans(), st.sampled_from(Source)), max_size=200)


@given(labels)
@settings(max_examples=40, deadline=None)
def test_to_look_again_changes_nothing(found: list[tuple[float, bool, Source]]) -> None:
    told = Story(0.7)
    for at, (similarity, right, source) in enumerate(found):
        told.say([right], similarity, source, 0.7, at % STRATA)
        state = told.state
        told.look()
        assert told.state == state
        assert AIM.least <= state.threshold <= AIM.greatest
    assert msgspec.json.decode(msgspec.json.encode(told.state), type=State) == told.state


def stream(right: Callable[[float], float], verdicts: int, start: float, seed: int) -> Story:
    random = np.random.default_rng(seed)
    told = Story(start)
    for number in range(1, verdicts + 1):
        similarity = float(random.uniform(told.state.threshold, 1))
        told.hits = (number * 10,) * STRATA
        told.say([bool(random.random() < right(similarity))], similarity)
    return told


@pytest.mark.parametrize("seed", range(3))
def test_at_a_cliff_it_settles(seed: int) -> None:
    """Right from 0.8 on, mostly wrong below: it comes to lie near, and turns ever less."""
    state = stream(lambda s: 0.998 if s >= 0.8 else 0.4, 6000, 0.92, seed).state
    assert 0.74 < state.threshold < 0.9
    turns = [a.number for a, b in pairwise(state.moves) if a.why is not b.why]
    assert len(turns) <= 12
    assert all(b.at - a.at >= LOOKS[0] for a, b in pairwise(state.moves))


def test_what_is_kept_is_bounded() -> None:
    told = stream(lambda _: 0.6, 200, 0.65, 1)
    for _ in range(300):
        told.state = undo(told.state, told.state.moves[-1].number, Told(ZERO, told.now, told.now))
        told.say([False] * (HOLD // 10))
    assert len(told.state.moves) <= KEPT_MOVES
    assert len(msgspec.json.encode(told.state)) < 20_000


def observed(*labelled: tuple[float, bool]) -> list[Verdict]:
    return [Verdict(1, s, right, Source.FEEDBACK, 0.0) for s, right in labelled]


def test_places() -> None:
    wrong_below = observed(*((0.70 + at / 500, at >= 20) for at in range(60)))
    assert above(wrong_below, 0.70, 0.8, 0.03) == 0.738
    assert above(wrong_below, 0.70, 0.73, 0.03) == 0.73
    assert above(wrong_below[:15], 0.70, 0.79, 0.03) == 0.79
    right_below = observed(*((0.70 + at / 1000, True) for at in range(100)))
    assert below(right_below, 0.8, 0.77, 0.71, 0.05) == 0.71
    assert below([], 0.8, 0.77, 0.71, 0.05) == 0.77
    assert below(observed(*[(0.79, False)] * 3), 0.8, 0.77, 0.71, 0.05) == 0.8


def test_verdicts_go_by_one_clock_and_moves_by_any() -> None:
    """The clock of who moves it may be off: what was said before the move isn't fresh, what follows is."""
    for off in (-10_000, 10_000):
        said = Story(0.7).say([True] * 19).said
        said = [msgspec.structs.replace(one, right=one.at % 2 > 0) for one in said]
        said.append(Verdict(20, 0.71, right=False, source=Source.FEEDBACK, threshold=0.7, stratum=1))
        state = next_state(State(0.7), said, AIM, HITS, 20 + off)
        assert (state.moves[-1].at, state.since) == (20 + off, 20)
        later = Verdict(21, 0.9, right=True, source=Source.FEEDBACK, threshold=state.threshold, stratum=1)
        assert fresh_of(state, [*said, later], AIM) == [later]
