"""Simulated traffic with a known false-hit rate: how often does the interval hold it, and how wide is it?"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.quality.rates import share
from service.cache.learning.rates import Checked, Stratum, estimate
from service.calibrate import Rate

DAYS = 7
SHARES = np.array([0.05, 0.10, 0.15, 0.35, 0.35])
"""Of the hits in each stratum, the least certain first; the last one is the exact tier's."""

TYPICAL = (8.0, 3.0, 1.0, 0.3, 0.1)
SAME = (1.0,) * 5
"""How wrong each stratum is beside the others: as uncertainty says, or as if it said nothing."""

RATES = (0.001, 0.005, 0.02, 0.1)


SIZE = 5000


class Kind(NamedTuple):
    """A kind of traffic, of feedback and of reviewers."""

    name: str
    rate: float  # of wrong answers among hits
    hits: int = SIZE
    risks: Sequence[float] = TYPICAL
    later: float = 1.0  # how many times as wrong the hits are from the middle on
    told_right: float = 0.0  # share of right hits that get feedback
    told_wrong: float = 0.0
    false: float = 0.0  # share of feedback that says the opposite
    sampled: float = 0.0  # share of hits put up for review
    capacity: float = 1.0  # share of those that are reviewed
    first: float = 1.0  # share of reviews that go to the least certain; the others to any
    late: int = 0  # days of which nothing is reviewed yet
    broken: bool = False  # an assumption: shown, not promised


def kinds() -> Iterator[Kind]:
    """All, by what they have in common."""
    yield from _plain()
    yield from _changing()
    yield from _biased()
    yield from _misled()


def _plain() -> Iterator[Kind]:
    every, fifth = "10 % sampled, all reviewed", "10 % sampled, a fifth of it reviewed"
    for rate in RATES:
        told = Kind("10 % of hits get feedback", rate, told_right=0.1, told_wrong=0.1)
        yield told
        yield Kind(every, rate, sampled=0.1)
        yield Kind(f"{fifth}, uncertain first", rate, sampled=0.1, capacity=0.2)
        yield Kind(f"{fifth}, half uncertain first", rate, sampled=0.1, capacity=0.2, first=0.5)
        yield told._replace(name="200 hits, 10 % get feedback", hits=200)
        yield Kind("200 hits, 10 % reviewed", rate, hits=200, sampled=0.1)


def _changing() -> Iterator[Kind]:
    name = "five times as wrong from the middle on"
    for rate in (0.005, 0.02):
        yield Kind(f"{name}, 10 % feedback", rate, later=5, told_right=0.1, told_wrong=0.1)
        reviewed = Kind(f"{name}, 5 % reviewed", rate, later=5, sampled=0.1, capacity=0.5, first=0.5)
        yield reviewed
        yield reviewed._replace(name=f"{name}, last day not yet reviewed", late=1, broken=True)


def _biased() -> Iterator[Kind]:
    often, only = "wrong reported 25 times as often", "only wrong reported, half of it"
    for rate in RATES:
        biased = Kind(often, rate, told_right=0.02, told_wrong=0.5)
        yield biased._replace(name=f"{often}, 5 % reviewed", sampled=0.05)
        yield Kind(f"{only}, 5 % reviewed", rate, told_wrong=0.5, sampled=0.05)
        yield Kind(f"{only}, no reviews", rate, told_wrong=0.5)
        yield biased._replace(name=f"{often}, no reviews", broken=True)


def _misled() -> Iterator[Kind]:
    backward = tuple(reversed(TYPICAL))
    for rate in (0.005, 0.02, 0.1):
        false = Kind("10 % feedback, 5 % of it false", rate, told_right=0.1, told_wrong=0.1, false=0.05)
        yield false._replace(broken=True)
        yield false._replace(name="10 % feedback, 5 % of it false; 5 % reviewed", sampled=0.05)
        first = Kind(
            "uncertain first, but uncertainty says nothing", rate, SIZE, SAME, sampled=0.1, capacity=0.2
        )
        yield first
        yield first._replace(
            name="uncertain first, but the certain ones are wrong", risks=backward, broken=True
        )
        half = first._replace(capacity=0.5, first=0.5, risks=backward)
        yield half._replace(name="half uncertain first, but the certain ones are wrong")


class Traffic(NamedTuple):
    """What was counted, and the truth."""

    strata: list[Stratum]
    checked: Checked
    truth: float


def simulated(kind: Kind, random: np.random.Generator) -> Traffic:
    """One window of seven days."""
    strata = random.choice(len(SHARES), kind.hits, p=SHARES)
    day = np.arange(kind.hits) * DAYS // kind.hits
    risks = np.array(kind.risks) / (np.array(kind.risks) @ SHARES) * kind.rate
    late = np.where(np.arange(kind.hits) >= kind.hits / 2, kind.later, 1.0) * 2 / (1 + kind.later)
    wrong = random.random(kind.hits) < np.minimum(1, risks[strata] * late)
    told = random.random(kind.hits) < np.where(wrong, kind.told_wrong, kind.told_right)
    said = wrong ^ (random.random(kind.hits) < kind.false)
    reviewed = reviews(kind, strata, day, random)
    strata_ = counted(strata, wrong, said, told, reviewed)
    return Traffic(strata_, checks(wrong, said, told & reviewed), float(wrong.mean()))


Flags = NDArray[np.bool_]


def reviews(
    kind: Kind, strata: NDArray[np.int64], day: NDArray[np.int64], random: np.random.Generator
) -> Flags:
    """Which hits are reviewed: each day so many of those sampled."""
    done = np.zeros(kind.hits, bool)
    for today in range(DAYS - kind.late):
        queue = random.permutation(np.flatnonzero((day == today) & (random.random(kind.hits) < kind.sampled)))
        room = round(kind.capacity * len(queue))
        uncertain = round(kind.first * room)
        ordered = queue[np.argsort(strata[queue], kind="stable")]
        done[ordered[:uncertain]] = True
        done[queue[~done[queue]][: room - uncertain]] = True
    return done


def counted(
    strata: NDArray[np.int64], wrong: Flags, said: Flags, told: Flags, reviewed: Flags
) -> list[Stratum]:
    """As the service counts."""
    found = []
    for at in range(len(SHARES)):
        own = strata == at
        alone, told_alone = own & reviewed & ~told, own & told & ~reviewed
        found.append(
            Stratum(
                int(own.sum()),
                int((alone & ~wrong).sum()),
                int((alone & wrong).sum()),
                int((told_alone & ~said).sum()),
                int((told_alone & said).sum()),
            )
        )
    return found


def checks(wrong: Flags, said: Flags, both: Flags) -> Checked:
    return Checked(
        int((both & ~said & ~wrong).sum()),
        int((both & ~said & wrong).sum()),
        int((both & said & wrong).sum()),
        int((both & said & ~wrong).sum()),
    )


Interval = tuple[float, float]


def ours(strata: Sequence[Stratum], checked: Checked) -> Interval:
    found = estimate(strata, checked)
    return found.low, found.high


def pooled(strata: Sequence[Stratum], checked: Checked) -> Interval:
    """Wilson's, of all verdicts together."""
    wrong = sum(one.reviewed_wrong + one.volunteered_wrong for one in strata)
    wrong += checked.wrong_confirmed + checked.right_overruled
    return Rate(wrong, sum(one.reviewed + one.volunteered for one in strata) + sum(checked)).interval


def normal(strata: Sequence[Stratum], _checked: Checked) -> Interval:
    """The textbook's stratified estimate, plus and minus 1.96 standard errors; all verdicts as if random."""
    hits = sum(one.hits for one in strata)
    rate = variance = 0.0
    for one in strata:
        seen, wrong = one.reviewed + one.volunteered, one.reviewed_wrong + one.volunteered_wrong
        if seen:
            p, weight = wrong / seen, one.hits / hits
            rate += weight * p
            variance += weight**2 * p * (1 - p) / seen * (1 - seen / one.hits)
    return rate - 1.96 * math.sqrt(variance), rate + 1.96 * math.sqrt(variance)


def jeffreys(strata: Sequence[Stratum], _checked: Checked) -> Interval:
    """Posteriors of the strata from Beta(1/2, 1/2), added up; as ours does with feedback."""
    random = np.random.default_rng(1)
    hits = sum(one.hits for one in strata)
    with_reviews = any(one.reviewed for one in strata)
    total = np.zeros(2000)
    for one in strata:
        right = one.reviewed_right if with_reviews else one.volunteered_right
        wrong = one.reviewed_wrong if with_reviews else one.volunteered_wrong
        known = one.reviewed + one.volunteered
        total += one.reviewed_wrong + one.volunteered_wrong
        total += random.binomial(max(0, one.hits - known), random.beta(wrong + 0.5, right + 0.5, 2000))
    return tuple((np.quantile(total, (0.025, 0.975)) / hits).tolist())


METHODS: dict[str, Callable[[Sequence[Stratum], Checked], Interval]] = {
    "ours": ours,
    "pooled": pooled,
    "normal": normal,
    "jeffreys": jeffreys,
}


def measured(kind: Kind, streams: int, seed: int) -> dict[str, Any]:
    """Coverage and mean width of each method, and how far off our rate is."""
    random = np.random.default_rng([seed, *kind.name.encode(), round(kind.rate * 1e6)])
    made = [simulated(kind, random) for _ in range(streams)]
    methods = {}
    for name, method in METHODS.items():
        intervals = [method(one.strata, one.checked) for one in made]
        held = sum(low <= one.truth <= high for one, (low, high) in zip(made, intervals, strict=True))
        methods[name] = {
            "coverage": share(held, streams),
            "width": sum(high - low for low, high in intervals) / streams,
        }
    estimates = [estimate(one.strata, one.checked) for one in made]
    return {
        "kind": kind.name,
        "rate": kind.rate,
        "promised": not kind.broken,
        "truth": float(np.mean([one.truth for one in made])),
        "estimate": float(np.mean([one.rate for one in estimates if one.rate is not None] or [0.0])),
        "verdicts": float(np.mean([one.verdicts for one in estimates])),
        "basis": estimates[0].basis,
        "assumed": float(np.mean([one.assumed / one.hits for one in estimates])),
        "methods": methods,
    }
