"""How often an agent_type's answers were wrong lately, from what was counted and what was said."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta, Struct

from service.cache.accounting import ALL_DAYS, DAY_MS, Field
from service.cache.decided import UNIT
from service.cache.learning.adaptive import Aim
from service.cache.learning.places import Source, Verdict
from service.cache.learning.rates import Basis, Checked, Stratum, estimate
from service.cache.learning.strata import STRATA
from service.cache.outcomes import Outcome, Said
from service.cache.prices import NANO
from service.cache.tickets import ticket
from service.model import Policy

DAYS = 7
"""Whole days, today's included."""
BOUNDS, BOUNDS_UNREAD = (0.65, 0.97), (0.85, 0.97)
"""Within which a threshold moves where a policy doesn't say, with a verifier and without."""
SOURCES = {
    "feedback": Source.FEEDBACK,
    "review": Source.REVIEW,
    "explore": Source.SHADOW,
    "shadow": Source.SHADOW,
}


class Quality(Struct, frozen=True, kw_only=True):
    """The live false-hit rate: wrong answers among those served."""

    false_hit_rate: Annotated[float | None, Meta(description="0 to 1; null: there are no verdicts.")]
    low: Annotated[float, Meta(description="The 95 % interval's lower end.")]
    high: Annotated[float, Meta(description="Its upper end.")]
    basis: Annotated[
        Basis,
        Meta(
            description="`reviews`, `feedback` (as if given at random), `complaints` (nobody said that an "
            "answer was right: a lower bound), `none`."
        ),
    ]
    hits: Annotated[int, Meta(description="Hits in that time.")]
    verdicts: Annotated[int, Meta(description="Hits with a verdict.")]
    wrong: Annotated[int, Meta(description="Of these.")]
    days: Annotated[int, Meta(description="How far back, in whole days.")]


class Shadowed(Struct, frozen=True, kw_only=True):
    """What would have been served where a policy's `shadow` is on."""

    hits: Annotated[int, Meta(description="Lookups that would have been hits.")]
    right: Annotated[int, Meta(description="Of those compared with the fresh answer: the same was said.")]
    wrong: Annotated[int, Meta(description="Of those compared: something else was said.")]
    saved_usd: Annotated[float, Meta(description="What these hits would have saved.")]


def shadowed(counts: Mapping[Field, int], said: Iterable[Said]) -> Shadowed | None:
    """None: there was none."""
    hits = counts.get(("shadow", "hits"), 0)
    told = [one.outcome.correct for one in said if one.outcome.source == "shadow"]
    if not hits and not told:
        return None
    saved = counts.get(("nano_usd", "shadow"), 0) / NANO
    return Shadowed(hits=hits, right=told.count(True), wrong=told.count(False), saved_usd=saved)


def aim_of(policy: Policy, *, reads: bool) -> Aim:
    """Within which thresholds a policy's moves; `reads`: there is a verifier."""
    bounds = BOUNDS if reads and policy.guarded("verifier") else BOUNDS_UNREAD
    return Aim(*(policy.threshold_bounds or bounds))


def quality(counts: Mapping[Field, int], said: Iterable[Said], now: int) -> Quality:
    """Of the last days; `now` in ms since 1970."""
    first = now // DAY_MS - DAYS + 1
    strata, checked = _counted(counts, said, first)
    found = estimate(strata, checked)
    return Quality(
        false_hit_rate=None if found.rate is None else round(found.rate, 6),
        low=round(found.low, 6),
        high=round(found.high, 6),
        basis=found.basis,
        hits=found.hits,
        verdicts=found.verdicts,
        wrong=found.wrong,
        days=DAYS,
    )


def hits_by_stratum(counts: Mapping[Field, int], first: int | None = None) -> list[int]:
    """Hits whose decision was kept, the least certain first; of the days from `first` on, or of all."""
    found = [0] * STRATA
    for one, number in counts.items():
        if one[0] == "strata" and _counts(one[1], first) and int(one[2]) < STRATA:
            found[int(one[2])] += number
    return found


def _counts(day: str, first: int | None) -> bool:
    return day == ALL_DAYS if first is None else day != ALL_DAYS and int(day) >= first


def verdicts(said: Iterable[Said]) -> list[Verdict]:
    """For mode `adaptive`: one per lookup, the one that holds, in the order in which they were said."""
    last = {one.outcome.lookup_id: one for one in sorted(said, key=lambda one: one.weight)}
    return [
        Verdict(at, one.cosine, one.correct, SOURCES[one.source], one.threshold / UNIT, one.stratum)
        for at, one in sorted(last.values(), key=lambda one: one.order)
    ]


def _counted(counts: Mapping[Field, int], said: Iterable[Said], first: int) -> tuple[list[Stratum], Checked]:
    told: dict[bytes, dict[str, Outcome]] = defaultdict(dict)
    for _, one in said:
        if one.was_served and ticket(one.lookup_id.hex()).at // DAY_MS >= first:
            told[one.lookup_id][one.source] = one
    tallies = [[0, 0, 0, 0] for _ in range(STRATA)]
    both = [0, 0, 0, 0]
    for each in told.values():
        user, reviewer = each.get("feedback"), each.get("review")
        if user is not None and reviewer is not None:
            both[2 * (not user.correct) + (user.correct != reviewer.correct)] += 1
        elif reviewer is not None:
            tallies[reviewer.stratum][not reviewer.correct] += 1
        elif user is not None:
            tallies[user.stratum][2 + (not user.correct)] += 1
    hits = hits_by_stratum(counts, first)
    return [Stratum(count, *one) for count, one in zip(hits, tallies, strict=True)], Checked(*both)
