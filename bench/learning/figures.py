"""Outcomes to figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.learning.simulate import Outcome, Outcomes

WINDOW = 1000


def rates(outcomes: Outcomes) -> dict[str, float]:
    """Shares of all requests; `wrong_of_semantic` of what the semantic tier served."""
    counts = np.bincount(outcomes, minlength=len(Outcome)) / len(outcomes)
    right, wrong = float(counts[Outcome.RIGHT]), float(counts[Outcome.WRONG])
    return {
        "hit": float(counts[Outcome.EXACT]) + right + wrong,
        "semantic": right + wrong,
        "wrong": wrong,
        "wrong_of_semantic": wrong / (right + wrong) if right + wrong else 0.0,
        "explored": float(counts[Outcome.EXPLORED]),
    }


def meant(found: Sequence[Outcomes]) -> dict[str, Any]:
    """Means over the seeds, and the error rate of each."""
    each = [rates(one) for one in found]
    means: dict[str, Any] = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    return means | {"wrong_by_seed": [one["wrong"] for one in each]}


def held(found: Sequence[Outcomes], bound: float) -> dict[str, Any]:
    """Whether the mean is within the bound; the least probability at the bound of a seed's wrong answers."""
    wrong = [int((one == Outcome.WRONG).sum()) for one in found]
    chances = [tail(count, len(one), bound) for count, one in zip(wrong, found, strict=True)]
    return {"bound": bound, "least_p": min(chances), "held": sum(wrong) <= bound * sum(map(len, found))}


def tail(count: int, trials: int, rate: float) -> float:
    """P(X ≥ count), X binomial."""
    if count <= 0:
        return 1.0
    logs = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(count, trials + 1)
    ]  # fmt: skip
    most = max(logs)
    return min(1.0, math.exp(most) * sum(math.exp(one - most) for one in logs))


def along(found: Sequence[Outcomes]) -> list[dict[str, float]]:
    """Hit and error rate of each thousand requests, means over the seeds."""
    length = min(map(len, found))
    parts = [[rates(one[at : at + WINDOW]) for one in found] for at in range(0, length, WINDOW)]
    names = ("hit", "wrong", "explored")
    return [{name: float(np.mean([one[name] for one in part])) for name in names} for part in parts]


Tried = Mapping[str, Mapping[str, Sequence[Outcomes]]]
"""By family and choice: outcomes per seed."""

SWEPT = ("cosine", "guards", "verifier")


def oracles(tried: Tried, most: Sequence[float]) -> dict[str, float]:
    """By family the mean of the most hits to be had on each very stream at an error rate of `most`."""
    plain = tried["exact only"].values()
    return {
        family: float(
            np.mean([best(at, [*tried[family].values(), *plain], limit) for at, limit in enumerate(most)])
        )
        for family in SWEPT
    }


def best(at: int, choices: Iterable[Sequence[Outcomes]], limit: float) -> float:
    """The hit rate of the best choice on a stream, or of the best two mixed so that they use up the limit."""
    every = [rates(outcomes[at]) for outcomes in choices]
    points = [(one["wrong"], one["hit"]) for one in every]
    within = [one for one in points if one[0] <= limit]
    mixed = [
        hit + (more_hit - hit) * (limit - wrong) / (more - wrong)
        for wrong, hit in within
        for more, more_hit in points
        if more > limit
    ]
    return max([hit for _, hit in within] + mixed)
