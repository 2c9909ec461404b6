"""`mode: adaptive`: the threshold goes up where too many answers were wrong, down where nearly none was.

Pure: all verdicts in, next state out. Nothing is counted in the state: who looks again, or reads a verdict
that was changed, finds what the verdicts say then. docs/learning.md has the rules and what they do to real
questions.
"""

from bisect import bisect_right
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from service.cache.learning import places
from service.cache.learning.certainty import interval
from service.cache.learning.places import Source, Verdict
from service.cache.learning.rates import Basis, Estimate, Stratum, estimate
from service.cache.learning.strata import EXACT, STRATA

LOOKS = (20, 40, 80, 160, 240, 320, 400, 560, 800)
"""Verdicts since the last move at which it is judged; after the last of them they are counted anew.

The interval would err more often if it was looked at after each verdict.
"""

READ, READ_SHADOWS, READ_EXACT = LOOKS[-1], 300, 1000
"""Verdicts that are gone by, the newest: on hits, on what was below the threshold, on exact hits."""

KEPT_MOVES = 50
HOLD = 200
"""Verdicts for which nothing moves after a move was undone."""

SURE_UP, SURE_DOWN = 0.95, 0.8
"""Confidence of the two-sided interval whose end decides; a step down is small, and soon taken back."""

STEP, LEAST_STEP = 0.03, 0.005
"""Of a move down into the unknown; halved when the direction changes, doubled when it doesn't."""

UP = 3.0
"""Steps that a move up may take."""


class Aim(NamedTuple):
    """Within which thresholds, and which share of right answers leaves it alone."""

    least: float
    greatest: float
    enough: float = 0.95  # below: up
    ample: float = 0.99  # above: down
    exact: bool = False  # whether exact hits count too: what a user meets, not what the threshold decides


class Why(StrEnum):
    """Why the threshold moved."""

    WRONG = "wrong"  # more wrong answers than `enough` allows
    RIGHT = "right"  # fewer than `ample` asks for
    UNDONE = "undone"  # somebody said so
    BOUNDS = "bounds"  # it was outside of them
    POLICY = "policy"  # somebody set another one there


class Move(Struct, frozen=True):
    """One move and what it rests on; numbers rise by one."""

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
    """What isn't in the verdicts; begins anew with another model, whose similarities are others."""

    threshold: float
    number: int = 0  # rises by one with each state
    since: int = 0  # ms since 1970, by the clock of verdicts: those said later are fresh
    looked: int = 0  # how many of them there were when it was judged last
    hold: int = 0  # so many of them must there be before it may move
    step: float = STEP
    hits_before: tuple[int, ...] = ()  # hits by stratum, at `since`
    asked: float | None = None  # the policy's own threshold, which it began with
    moves: tuple[Move, ...] = ()


class Told(NamedTuple):
    """Where things stand when somebody moves it."""

    hits: Sequence[int]  # so far, by stratum
    latest: int  # when the last verdict was said, by the clock of verdicts, ms since 1970
    now: int  # ms since 1970


class Evidence(NamedTuple):
    """Verdicts, the oldest first."""

    fresh: Sequence[Verdict]
    hits: Sequence[Verdict]  # that the threshold let through, under this one or another
    shadows: Sequence[Verdict]
    exact: Sequence[Verdict]


def next_state(state: State, said: Sequence[Verdict], aim: Aim, hits: Sequence[int], now: int) -> State:
    """What follows from all that was said; the same state where nothing does.

    Args:
        state: as it was.
        said: one for each lookup, in the order of their times. What isn't among the newest is passed over.
        aim: the policy's.
        hits: so far, by stratum (`strata.py`); they only rise.
        now: ms since 1970.
    """
    latest = said[-1].at if said else state.since
    bounded = min(max(state.threshold, aim.least), aim.greatest)
    if bounded != state.threshold:
        back = Move(_next(state), now, state.threshold, bounded, Why.BOUNDS)
        return _moved(state, back, hits, latest)
    fresh = fresh_of(state, said, aim)
    if not any(state.looked < look <= len(fresh) for look in LOOKS):
        return state
    move = None if len(fresh) < state.hold else _judged(state, evidence(fresh, said, aim), aim, hits, now)
    if move is not None:
        return _moved(_paced(state, move), move, hits, latest)
    if len(fresh) >= LOOKS[-1]:
        return replace(_anew(state, hits, latest), hold=0)
    return replace(state, number=state.number + 1, looked=len(fresh))


def set_to(state: State, asked: float | None, threshold: float, told: Told) -> State:
    """Begin anew from another threshold: the policy's own is another now, `asked`."""
    move = Move(_next(state), told.now, state.threshold, threshold, Why.POLICY)
    return replace(_moved(state, move, told.hits, told.latest), asked=asked, hold=0, step=STEP)


def fresh_of(state: State, said: Sequence[Verdict], aim: Aim) -> list[Verdict]:
    """Verdicts since the last move on hits that tell how this threshold does.

    What was served under a higher one knows nothing of what lies between.
    """
    begin = bisect_right(said, state.since, key=lambda one: one.at)
    return [one for one in said[begin:] if _tells(one, state.threshold, aim)]


def _tells(one: Verdict, threshold: float, aim: Aim) -> bool:
    if one.source is Source.SHADOW:
        return False
    if one.stratum == EXACT:
        return aim.exact
    return one.threshold <= threshold <= one.similarity


def evidence(fresh: Sequence[Verdict], said: Sequence[Verdict], aim: Aim) -> Evidence:
    """What is gone by."""
    shadows = [one for one in said if one.source is Source.SHADOW and one.stratum != EXACT]
    served = [one for one in said if one.source is not Source.SHADOW]
    exact = [one for one in served if one.stratum == EXACT]
    hits = [one for one in served if one.stratum != EXACT]
    if aim.exact:  # served whatever the threshold is
        through = [replace(one, similarity=1.0, threshold=-1.0) for one in exact]
        hits = sorted([*hits, *through], key=lambda one: one.at)
    return Evidence(fresh, hits[-READ:], shadows[-READ_SHADOWS:], exact[-READ_EXACT:])


def undo(state: State, number: int, told: Told) -> State:
    """Take the last move back if it is the one of that number, and hold the threshold for a while."""
    if not state.moves or state.moves[-1].number != number or state.moves[-1].why is Why.UNDONE:
        return state
    back = Move(_next(state), told.now, state.threshold, state.moves[-1].before, Why.UNDONE)
    return replace(
        _moved(state, back, told.hits, told.latest), hold=HOLD, step=max(LEAST_STEP, state.step / 2)
    )


def noise(exact: Sequence[Verdict]) -> float:
    """The share of wrong verdicts on exact hits, at least: false feedback, and answers stored wrong.

    0 where nobody said "right" of one: then only complaints are sent.
    """
    right = sum(one.right for one in exact)
    return interval(right, len(exact) - right)[0] if right else 0.0


def live(
    state: State, fresh: Sequence[Verdict], hits: Sequence[int], aim: Aim, confidence: float = SURE_UP
) -> Estimate:
    """The wrong share among hits since the last move: of the semantic tier, unless the aim counts all."""
    before = state.hits_before or (0,) * STRATA
    strata = []
    for at, (one, other) in enumerate(zip(hits, before, strict=True)):
        if at == EXACT and not aim.exact:
            continue
        told = [seen for seen in fresh if seen.stratum == at]
        counts = [
            sum(seen.source is source and seen.right is right for seen in told)
            for source in (Source.REVIEW, Source.FEEDBACK)
            for right in (True, False)
        ]
        strata.append(Stratum(max(one - other, sum(counts)), *counts))
    return estimate(strata, confidence=confidence, to_come=True)


def _judged(state: State, seen: Evidence, aim: Aim, hits: Sequence[int], now: int) -> Move | None:
    found = live(state, seen.fresh, hits, aim)
    off = noise(seen.exact) if found.basis is Basis.FEEDBACK else 0.0
    wrong, after, why = 1 - aim.enough, state.threshold, Why.WRONG
    if found.low - off > wrong:
        middle = (wrong + 1 - aim.ample) / 2
        most = min(aim.greatest, state.threshold + UP * state.step)
        after = places.above(seen.hits, state.threshold, most, middle + off)
    elif (found := live(state, seen.fresh, hits, aim, SURE_DOWN)).high - off < 1 - aim.ample:
        least = max(aim.least, state.threshold - UP * state.step)
        blind = max(least, state.threshold - state.step)
        labelled = (*seen.hits, *seen.shadows)
        after, why = places.below(labelled, state.threshold, blind, least, wrong), Why.RIGHT
    if after == state.threshold:
        return None
    return Move(
        _next(state), now, state.threshold, after, why,
        found.basis, found.verdicts, found.wrong, found.low, found.high, off,
    )  # fmt: skip


def _next(state: State) -> int:
    return state.moves[-1].number + 1 if state.moves else 1


def _paced(state: State, move: Move) -> State:
    """Smaller steps after a reversal, greater ones again where two moves go one way."""
    if not state.moves or state.moves[-1].why is Why.BOUNDS:
        return state
    last = state.moves[-1]
    same = (last.after > last.before) == (move.after > move.before) and last.why is not Why.UNDONE
    return replace(state, step=min(STEP, state.step * 2) if same else max(LEAST_STEP, state.step / 2))


def _moved(state: State, move: Move, hits: Sequence[int], since: int) -> State:
    moved = replace(state, threshold=move.after, moves=(*state.moves, move)[-KEPT_MOVES:])
    return _anew(moved, hits, since)


def _anew(state: State, hits: Sequence[int], since: int) -> State:
    return replace(state, number=state.number + 1, since=since, looked=0, hits_before=tuple(hits))
