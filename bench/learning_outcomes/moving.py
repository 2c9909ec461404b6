"""A stream through a cache whose threshold learns: where does it go, and what is served wrong on the way?"""

from typing import Any, NamedTuple

import numpy as np

from bench.learning_outcomes.streams import UNREAD, Cache, Pairs, Served, Stream
from service.cache.learning.adaptive import Aim, Move, State, next_state
from service.cache.learning.places import Source, Verdict
from service.cache.learning.strata import EXACT, STRATA, stratum

WINDOWS = 20


class Told(NamedTuple):
    """What the cache is told of what it does; shares of the hits, or of the misses with a candidate."""

    name: str
    right: float = 0.1
    wrong: float = 0.1
    false: float = 0.0
    reviewed: float = 0.0
    shadow: float = 0.0


TOLD = (
    Told("10 % random"),
    Told("10 %, 5 % of it false", false=0.05),
    Told("wrong only, half of them", right=0.0, wrong=0.5),
    Told("wrong 25 times as often", right=0.02, wrong=0.5),
    Told("the same, 5 % reviewed", right=0.02, wrong=0.5, reviewed=0.05),
    Told("10 % random, shadow 5 %", shadow=0.05),
)
NOTHING = Told("static", 0.0, 0.0)
VERIFIED = "guards and verifier"
GRID = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97)


class Arm(NamedTuple):
    """How hits are decided and judged."""

    name: str
    aim: Aim
    starts: tuple[float, float]
    told: tuple[Told, ...] = TOLD

    @property
    def verified(self) -> bool:
        return self.name == VERIFIED


ARMS = (
    Arm(VERIFIED, Aim(0.65, 0.97), (0.65, 0.95)),
    Arm("guards alone", Aim(0.7, 0.97), (0.7, 0.95)),
    Arm(VERIFIED, Aim(0.65, 0.97, exact=True), (0.65, 0.95), (TOLD[0], TOLD[-1])),
    Arm("guards alone", Aim(0.7, 0.97, exact=True), (0.7, 0.95), (TOLD[0], TOLD[-1])),
)


class Window(NamedTuple):
    """A part of the stream; `threshold` at its end."""

    threshold: float
    queries: int
    exact: int
    right: int
    wrong: int


class Run(NamedTuple):
    """What happened."""

    windows: list[Window]
    state: State


class _Going:
    """One run."""

    def __init__(self, one: Stream, pairs: Pairs, how: Arm, *, start: float, told: Told, seed: int) -> None:
        self._stream, self._cut = one, pairs.cut if how.verified else None
        self._cache = Cache(one, pairs, verified=how.verified)
        self.state, self._aim, self._told = State(start), how.aim, told
        self._random = np.random.default_rng(seed)
        self._hits = [0] * STRATA
        self._said: list[Verdict] = []
        self.counts = [0, 0, 0]  # exact, right, wrong

    def ask(self, at: int) -> None:
        text, answer = self._stream.asked[at], self._stream.answers[at]
        if text in self._cache.stored:
            right = self._cache.stored[text] == answer
            self.counts[0] += 1
            self._hits[EXACT] += 1
            self._hear(1.0, right=right, place=EXACT)
            return
        threshold = self.state.threshold
        # Without shadow lookups nothing below the threshold is looked at.
        near = self._cache.candidate(text, self._aim.least if self._told.shadow else threshold)
        if near is None or near.similarity < threshold:
            if near is not None and self._random.random() < self._told.shadow:
                right = self._cache.stored[near.text] == answer
                self._learn(near.similarity, Source.SHADOW, right=right, place=0)
            self._cache.stored[text] = answer
            return
        right = self._cache.stored[near.text] == answer
        self.counts[1 if right else 2] += 1
        place = self._place(near)
        self._hits[place] += 1
        self._hear(near.similarity, right=right, place=place)

    def _place(self, near: Served) -> int:
        score = None if near.score == UNREAD else near.score
        return stratum(near.similarity, self.state.threshold, score, self._cut)

    def _hear(self, similarity: float, *, right: bool, place: int) -> None:
        """Each hit has one verdict at most; a review goes before feedback."""
        chance = self._random.random(3)
        if chance[0] < self._told.reviewed:
            self._learn(similarity, Source.REVIEW, right=right, place=place)
        elif chance[1] < (self._told.right if right else self._told.wrong):
            said = right ^ bool(chance[2] < self._told.false)
            self._learn(similarity, Source.FEEDBACK, right=said, place=place)

    def _learn(self, similarity: float, source: Source, *, right: bool, place: int) -> None:
        said, now = self._said, self._said[-1].at + 1 if self._said else 1
        said.append(Verdict(now, similarity, right, source, self.state.threshold, place))
        self.state = next_state(self.state, said, self._aim, self._hits, now)


def run(one: Stream, pairs: Pairs, how: Arm, *, start: float, told: Told, seed: int = 1) -> Run:
    """The whole stream from a threshold."""
    going = _Going(one, pairs, how, start=start, told=told, seed=seed)
    size = -(-len(one.asked) // WINDOWS)
    windows = []
    for begin in range(0, len(one.asked), size):
        going.counts = [0, 0, 0]
        part = range(begin, min(begin + size, len(one.asked)))
        for at in part:
            going.ask(at)
        windows.append(Window(going.state.threshold, len(part), *going.counts))
    return Run(windows, going.state)


def arm(one: Stream, pairs: Pairs, how: Arm, seeds: int) -> dict[str, Any]:
    """Static thresholds, and what adapts from each start, by what it is told."""
    still = how._replace(aim=Aim(-1.0, 1.0))
    return {
        "name": how.name,
        "exact": how.aim.exact,
        "least": how.aim.least,
        "greatest": how.aim.greatest,
        "static": [
            {"start": at, "all": shares(run(one, pairs, still, start=at, told=NOTHING).windows)}
            for at in (() if how.aim.exact else GRID)
        ],
        "runs": [_told(one, pairs, how, (start, told), seeds) for start in how.starts for told in how.told],
    }


def _told(one: Stream, pairs: Pairs, how: Arm, which: tuple[float, Told], seeds: int) -> dict[str, Any]:
    """Means over who happened to give feedback; moves and thresholds of the first."""
    start, told = which
    found = [run(one, pairs, how, start=start, told=told, seed=seed) for seed in range(1, seeds + 1)]
    whole, last = ([shares(f.windows[-part:]) for f in found] for part in (WINDOWS, WINDOWS // 4))
    return {
        "start": start,
        "told": told.name,
        "ends": [f.state.threshold for f in found],
        "moved": sum(len(f.state.moves) for f in found) / seeds,
        "all": mean(whole),
        "last": mean(last),
        "thresholds": [window.threshold for window in found[0].windows],
        "moves": [told_move(move) for move in found[0].state.moves],
    }


def told_move(move: Move) -> dict[str, Any]:
    return {
        "from": move.before, "to": move.after, "why": move.why, "basis": move.basis,
        "verdicts": move.verdicts, "wrong": move.wrong, "low": move.low, "high": move.high,
        "noise": move.noise,
    }  # fmt: skip


def mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def shares(windows: list[Window]) -> dict[str, float]:
    """Of a part of the stream."""
    queries, exact, right, wrong = (sum(column) for column in list(zip(*windows, strict=True))[1:])
    semantic = right + wrong
    return {
        "queries": queries,
        "wrong": wrong,
        "semantic": semantic / queries,
        "hits": (semantic + exact) / queries,
        "wrong_of_semantic": wrong / semantic if semantic else 0.0,
        "wrong_of_hits": wrong / max(1, semantic + exact),
    }
