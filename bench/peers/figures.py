"""From calls to figures: percentiles per round, their median and spread, ratios to ours, goals."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.peers.contenders import OURS, Running
from bench.peers.work import KINDS, Work

GOALS = {
    ("redisvl", 100_000): 12,
    ("redisvl", 1_000_000): 100,
    ("gptcache", 100_000): 70,
    ("scan", 10_000): 4_000,
}
"""How many times our p50 theirs must take: semantic lookups, ours over HTTP."""

ENOUGH = 100
"""Calls below which there is no p99."""


class Round(NamedTuple):
    """One contender's calls of one kind: ms of each; CPU ms of all, by process."""

    kind: str
    turn: int
    ms: list[float]
    cpu_ms: dict[str, float]


class Found:
    """What one contender did."""

    def __init__(self, running: Running, marks: int) -> None:
        self.running, self.marks = running, marks
        self.fill_s: float | None = None
        self.bytes_per_entry: float | None = None
        self.rounds: dict[str, list[Round]] = {kind: [] for kind in KINDS}
        self.outcomes: dict[str, dict[str, int]] = {
            kind: dict.fromkeys(("right", "wrong", "nothing"), 0) for kind in KINDS
        }
        self.stores: list[float] = []

    def bearable(self, kind: str, most: int, longest_s: float) -> int:
        """How many calls a round has: one in the first, to see what it takes."""
        rounds = self.rounds[kind]
        if not rounds:
            return 1 if self.running.contender.most else most
        return max(1, min(most, int(longest_s * 1000 / statistics.median(rounds[-1].ms))))

    def add(self, one: Round, served: Sequence[int | None], right: Sequence[set[int]]) -> None:
        """A round of lookups. Where nothing is right, nothing served is."""
        self.rounds[one.kind].append(one)
        for found, wanted in zip(served, right, strict=True):
            is_right = found in wanted if wanted else found is None
            outcome = "right" if is_right else "nothing" if found is None else "wrong"
            self.outcomes[one.kind][outcome] += 1

    def add_stores(self, ms: list[float]) -> None:
        self.stores.extend(ms)

    def p50s(self, kind: str) -> dict[int, float]:
        """Per round."""
        return {one.turn: statistics.median(one.ms) for one in self.rounds[kind]}

    def cpu_ms(self, kind: str) -> dict[str, float | None]:
        """Per call and process, and together: the medians of the rounds."""
        rounds = self.rounds[kind]
        parts = {
            name: rounded(statistics.median(one.cpu_ms[name] / len(one.ms) for one in rounds))
            for name in rounds[0].cpu_ms
        }
        return parts | {
            "all": rounded(statistics.median(sum(one.cpu_ms.values()) / len(one.ms) for one in rounds))
        }


def result(source: str, work: Work, found: Sequence[Found], absent: Mapping[str, str]) -> dict[str, Any]:
    """A size's figures, ms."""
    ours = next(one for one in found if one.running.contender.name == OURS)
    return {
        "entries": work.size,
        "tenants": work.tenants,
        "vectors": source,
        "contenders": {one.running.contender.name: figures(one, ours, work) for one in found},
        "absent": dict(absent),
    }


def figures(one: Found, ours: Found, work: Work) -> dict[str, Any]:
    contender = one.running.contender
    kinds = {
        kind: percentiles([ms for found in one.rounds[kind] for ms in found.ms])
        | {"p50_of_rounds": spread(list(one.p50s(kind).values()))}
        | {"cpu_ms": one.cpu_ms(kind)}
        | one.outcomes[kind]
        | ({} if one is ours else {"ratio_to_ours": spread(ratios(one.p50s(kind), ours.p50s(kind)))})
        for kind in KINDS
        if one.rounds[kind]
    }
    is_plain = work.tenants == 1 and contender.form in {"", "get"}
    goal = GOALS.get((contender.family, work.size)) if is_plain else None
    reached = {} if goal is None else goal_of(goal, kinds["semantic"]["ratio_to_ours"]["median"])
    return {
        "versions": one.running.versions,
        "fill_s": rounded(one.fill_s),
        "bytes_per_entry": None if one.bytes_per_entry is None else round(one.bytes_per_entry),
        **kinds,
        "store": percentiles(one.stores),
        **reached,
    }


def goal_of(goal: int, ratio: float) -> dict[str, Any]:
    return {"goal": goal, "reached": ratio >= goal}


def ratios(theirs: Mapping[int, float], ours: Mapping[int, float]) -> list[float]:
    """Round by round."""
    return [one / ours[turn] for turn, one in theirs.items() if turn in ours]


def percentiles(ms: Sequence[float]) -> dict[str, Any]:
    return {
        "calls": len(ms),
        "p50": rounded(float(np.percentile(ms, 50))),
        "p99": rounded(float(np.percentile(ms, 99))) if len(ms) >= ENOUGH else None,
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "median": rounded(statistics.median(values)),
        "least": rounded(min(values)),
        "most": rounded(max(values)),
    }


def rounded(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")
