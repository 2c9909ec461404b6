"""What another policy would have made of lookups that were decided already.

A decision has its candidate's similarity and score, and which guard spoke against it; that is enough unless
the other policy would look further than the one in force did. Where it isn't, it says so.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from service.cache.decided import UNIT, Decided
from service.cache.guards import WORDING
from service.model import Origin, Policy, Reason, Tier

ALIKE = 1.5 / UNIT
"""Thresholds are kept rounded."""


class Now(StrEnum):
    """What would become of a lookup."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"


class Replayed(NamedTuple):
    """How often, then and now; of hits whose verdict is known, right and wrong ones."""

    decisions: int
    hits_then: int
    hits_now: int
    unknown: int
    right_then: int
    wrong_then: int
    right_now: int
    wrong_now: int


def replayed(
    decided: Iterable[Decided],
    correct: Mapping[bytes, bool],
    policy: Policy,
    threshold: float,
    cut: float | None,
) -> Replayed:
    """Count them.

    Args:
        decided: what was decided.
        correct: verdicts by lookup id.
        policy: the other one.
        threshold: its threshold in force.
        cut: the verifier's; None: nobody reads.
    """
    counts = dict.fromkeys(Replayed._fields, 0)
    for one in decided:
        then, now = one.is_hit, fate(one, policy, threshold, cut)
        counts["decisions"] += 1
        counts["hits_then"] += then
        counts["hits_now"] += now is Now.HIT
        counts["unknown"] += now is Now.UNKNOWN
        right = correct.get(one.lookup_id)
        if right is not None:
            word = "right" if right else "wrong"
            counts[f"{word}_then"] += then
            counts[f"{word}_now"] += now is Now.HIT
    return Replayed(**counts)


def fate(one: Decided, policy: Policy, threshold: float, cut: float | None) -> Now:
    """Of one lookup."""
    if one.outcome in {Origin.EXACT, Origin.MEMORY}:
        return _hit(Tier.EXACT in policy.tiers and not policy.shadow)
    nothing = one.entry_id is None or one.outcome in {Reason.EMPTY, Reason.DEGRADED}
    closed = policy.shadow or Tier.SEMANTIC not in policy.tiers
    if nothing or closed or one.similarity / UNIT < threshold - ALIKE:
        return Now.MISS
    if one.outcome is Reason.BELOW_THRESHOLD or (one.outcome is Reason.POLICY and one.rule != "shadow"):
        return Now.UNKNOWN  # no guard has looked at it
    if one.outcome is Reason.GUARD and one.rule != "verifier":
        name = next((name for name in WORDING if name == one.rule), None)
        return Now.MISS if name is None or policy.guarded(name) else Now.UNKNOWN
    return _read(one, cut)


def _read(one: Decided, cut: float | None) -> Now:
    """Of one that only the verifier may speak against."""
    if cut is None:
        return Now.HIT
    if one.score is None:  # the same words, or nobody read them then
        return Now.HIT if one.is_hit else Now.UNKNOWN
    return _hit(one.score / UNIT >= cut)


def _hit(served: bool) -> Now:  # noqa: FBT001 - says what it is
    return Now.HIT if served else Now.MISS
