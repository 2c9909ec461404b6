"""`mode: adaptive`: the threshold goes up where too many answers were wrong, down where nearly none was.

Pure: verdicts in, next state out; the store applies it under compare-and-set. docs/learning.md has the rules
and what they do to real questions.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from service.cache.learning import places
from service.cache.learning.certainty import interval
from service.cache.learning.places import Observation, Source
from service.cache.learning.rates import Basis, Estimate, Stratum, estimate
from service.cache.learning.strata import EXACT, STRATA

LOOKS = (20, 40, 80, 160, 240, 320, 400, 560, 800)
"""Verdicts since the last move at which it is judged; after the last of them they are counted anew.

The interval would err more often if it was looked at after each verdict.
"""

KEPT, KEPT_SHADOWS, KEPT_MOVES = LOOKS[-1], 300, 50
HOLD = 200
"""Verdicts for which nothing moves after a move was undone."""

SURE_UP, SURE_DOWN = 0.95, 0.8
"""Confidence of the two-sided interval whose end decides; a step down is small, and soon taken back."""

STEP, LEAST_STEP = 0.03, 0.005
"""Of a move down into the unknown; halved when the direction changes, doubled when it doesn't."""

UP = 3.0
"""Steps that a move up may take."""

EXACT_KEPT = 1000


class Aim(NamedTuple):
    """Within which thresholds, and which share of right answers leaves it alone."""

    least: float
    greatest: float
    enough: float = 0.95  # below: up
    ample: float = 0.99  # above: down
    exact: bool = False  # whether exact hits count too: what a user meets, not what the threshold decides


class Verdict(Struct, frozen=True):
    """On a hit, or on what would have been one. Numbers rise: who applies one twice changes nothing."""

    number: int
    similarity: float
    right: bool
    source: Source
    threshold: float  # in force when it was looked up
    stratum: int = 0  # of `strata.py`


class Why(StrEnum):
    """Why the threshold moved."""

    WRONG = "wrong"  # more wrong answers than `enough` allows
    RIGHT = "right"  # fewer than `ample` asks for
    UNDONE = "undone"  # somebody said so
    BOUNDS = "bounds"  # it was outside of them


class Move(Struct, frozen=True):
    """One move and what it rests on; `number` is the last verdict's before it."""

    number: int
    at: int  # ms since 1970
    before: float
    after: float
    why: Why
    basis: str = ""
    verdicts: int = 0
    wrong: int = 0
    low: float = 0.0  # of the wrong share
    high: float = 1.0
    noise: float = 0.0  # the exact tier's wrong share, which no threshold changes, taken off both


class State(Struct, frozen=True):
    """What is known of an agent_type; begins anew with another generation, whose similarities are others."""

    threshold: float
    seen: int = 0  # the last verdict's number
    fresh: int = 0  # verdicts on hits since the last move, or since they are counted anew
    hold: int = 0  # verdicts to go by before it may move
    step: float = STEP
    hits_before: tuple[int, ...] = ()  # hits by stratum, when `fresh` was 0
    observations: tuple[
        Observation, ...
    ] = ()  # of hits, the oldest first; the last `fresh` of them are fresh
    shadows: tuple[Observation, ...] = ()
    exact_right: int = 0
    exact_wrong: int = 0
    moves: tuple[Move, ...] = ()


def next_state(state: State, verdicts: Sequence[Verdict], aim: Aim, hits: Sequence[int], now: int) -> State:
    """Apply verdicts in the order of their numbers; those applied before are passed over.

    Args:
        state: as it was.
        verdicts: one for each hit at most.
        aim: the policy's.
        hits: so far, by stratum (`strata.py`); they only rise.
        now: ms since 1970.
    """
    bounded = min(max(state.threshold, aim.least), aim.greatest)
    if bounded != state.threshold:
        state = _moved(state, Move(state.seen, now, state.threshold, bounded, Why.BOUNDS), hits)
    for one in sorted(verdicts, key=lambda verdict: verdict.number):
        if one.number > state.seen:
            state = _applied(replace(state, seen=one.number), one, aim, hits, now)
    return state


def undo(state: State, number: int, hits: Sequence[int], now: int) -> State:
    """Take the last move back if it is the one of that number, and hold the threshold for a while."""
    if not state.moves or state.moves[-1].number != number or state.moves[-1].why is Why.UNDONE:
        return state
    last = state.moves[-1]
    back = Move(state.seen, now, state.threshold, last.before, Why.UNDONE)
    return replace(_moved(state, back, hits), hold=HOLD, step=max(LEAST_STEP, state.step / 2))


def noise(state: State) -> float:
    """The share of wrong verdicts on exact hits, at least: false feedback, and answers stored wrong.

    0 where nobody said "right" of one: then only complaints are sent.
    """
    return interval(state.exact_right, state.exact_wrong)[0] if state.exact_right else 0.0


def live(state: State, hits: Sequence[int], *, exact: bool = False, confidence: float = SURE_UP) -> Estimate:
    """The wrong share among hits since the last move; without `exact` of the semantic tier alone."""
    fresh = state.observations[len(state.observations) - state.fresh :]
    before = state.hits_before or (0,) * STRATA
    strata = []
    for at, (one, other) in enumerate(zip(hits, before, strict=True)):
        if at == EXACT and not exact:
            continue
        told = [seen for seen in fresh if seen.stratum == at]
        counts = [
            sum(seen.source is source and seen.right is right for seen in told)
            for source in (Source.REVIEW, Source.FEEDBACK)
            for right in (True, False)
        ]
        strata.append(Stratum(max(one - other, sum(counts)), *counts))
    return estimate(strata, confidence=confidence, to_come=True)


def _applied(state: State, one: Verdict, aim: Aim, hits: Sequence[int], now: int) -> State:
    seen = Observation(one.similarity, one.right, one.source, one.threshold, one.stratum)
    if one.stratum == EXACT:
        state = _with_exact(state, one)
        if not aim.exact:
            return state
        seen = Observation(1.0, one.right, one.source, -1.0, EXACT)  # whatever the threshold is
    if one.source is Source.SHADOW:
        return replace(state, shadows=(*state.shadows, seen)[-KEPT_SHADOWS:])
    if seen.similarity < state.threshold or seen.threshold > state.threshold:
        # Served under another threshold: tells of places, not of how this one does.
        aside = len(state.observations) - state.fresh
        kept = (*state.observations[:aside], seen, *state.observations[aside:])
        return replace(state, observations=kept[-KEPT:])
    kept = (*state.observations, seen)[-KEPT:]
    state = replace(state, observations=kept, fresh=state.fresh + 1, hold=max(0, state.hold - 1))
    if state.hold == 0 and state.fresh in LOOKS:
        state = _judged(state, aim, hits, now)
    return _anew(state, hits) if state.fresh >= LOOKS[-1] else state


def _with_exact(state: State, one: Verdict) -> State:
    right, wrong = state.exact_right + one.right, state.exact_wrong + (not one.right)
    if right + wrong > EXACT_KEPT:  # what was long ago counts half
        right, wrong = right // 2, wrong // 2
    return replace(state, exact_right=right, exact_wrong=wrong)


def _judged(state: State, aim: Aim, hits: Sequence[int], now: int) -> State:
    found = live(state, hits, exact=aim.exact)
    off = noise(state) if found.basis is Basis.FEEDBACK else 0.0
    wrong, after, why = 1 - aim.enough, state.threshold, Why.WRONG
    if found.low - off > wrong:
        middle = (wrong + 1 - aim.ample) / 2
        most = min(aim.greatest, state.threshold + UP * state.step)
        after = places.above(state.observations, state.threshold, most, middle + off)
    elif (found := live(state, hits, exact=aim.exact, confidence=SURE_DOWN)).high - off < 1 - aim.ample:
        least = max(aim.least, state.threshold - UP * state.step)
        labelled = (*state.observations, *state.shadows)
        blind = max(least, state.threshold - state.step)
        after, why = places.below(labelled, state.threshold, blind, least, wrong), Why.RIGHT
    if after == state.threshold:
        return state
    move = Move(
        state.seen, now, state.threshold, after, why,
        found.basis, found.verdicts, found.wrong, found.low, found.high, off,
    )  # fmt: skip
    return _moved(_paced(state, move), move, hits)


def _paced(state: State, move: Move) -> State:
    """Smaller steps after a reversal, greater ones again where two moves go one way."""
    if not state.moves or state.moves[-1].why is Why.BOUNDS:
        return state
    last = state.moves[-1]
    same = (last.after > last.before) == (move.after > move.before) and last.why is not Why.UNDONE
    return replace(state, step=min(STEP, state.step * 2) if same else max(LEAST_STEP, state.step / 2))


def _moved(state: State, move: Move, hits: Sequence[int]) -> State:
    moved = replace(state, threshold=move.after, moves=(*state.moves, move)[-KEPT_MOVES:])
    return _anew(moved, hits)


def _anew(state: State, hits: Sequence[int]) -> State:
    return replace(state, fresh=0, hits_before=tuple(hits))
