"""What speaks against serving a candidate. The checks that decide a hit; nothing else does."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

from service.cache.canonical import Identity
from service.cache.lifetime import is_over
from service.cache.wording import asking, dates, entities, negation, numbers, opposites, scope, units
from service.cache.wording.words import Wording, wording
from service.model import Candidate, GuardName, Policy, Record

GUARDS = frozenset({"history", "tool_calls", *get_args(GuardName)})
"""The rejections that are a guard's verdict on a candidate near enough."""

NOT_THERE = frozenset({"gone", "scope", "expired"})
"""The rejections of what is no entry of this scope, or none any more."""

Guard = Callable[[Wording, Wording], bool]
"""(asked, cached) → whether the one may be served for the other; either way round the same."""

WORDING: Mapping[GuardName, Guard] = {
    "numbers": numbers.agree,
    "units": units.agree,
    "dates": dates.agree,
    "question": asking.agree,
    "negation": negation.agree,
    "scope_words": scope.agree,
    "antonyms": opposites.agree,
    "entities": entities.agree,
}
"""The guards that compare texts, cheapest first."""


class Asked(NamedTuple):
    """What a candidate is held against."""

    identities: tuple[Identity, ...]  # the query under each secret
    standalone: str | None  # the question in words that need no history, if there are any
    threshold: float
    policy: Policy


def rejection(candidate: Candidate, record: Record | None, asked: Asked, now: int) -> str | None:
    """Why a candidate may not be served, whatever it says; None: nothing speaks against it so far."""
    if not candidate.similarity >= asked.threshold:  # so that NaN is rejected
        return "threshold"
    if record is None or candidate.stored_at not in (None, record.stored_at):
        return "gone"  # another's document: an invalidation of the record doesn't find it
    identity = next((one for one in asked.identities if one.scope == record.scope), None)
    if identity is None:
        return "scope"
    if is_over(record, asked.policy, now):
        return "expired"
    if record.history != identity.history and (asked.standalone is None or standalone(record) is None):
        return "history"
    return None


def standalone(record: Record) -> str | None:
    """A record's question in words that need no history; None: there are none."""
    return record.text if record.messages is None else record.standalone


def compared(record: Record, asked: Asked) -> str:
    """A record's text to compare with what is asked: self-contained where the question's is."""
    return (asked.standalone and standalone(record)) or record.text or ""


def verdicts(asked: str, cached: str, policy: Policy, *, every: bool) -> dict[str, bool]:
    """What the guards that are on say; without `every` the first that rejects is the last asked."""
    said: dict[str, bool] = {}
    wanted = [name for name in WORDING if policy.guarded(name)]
    if not wanted:  # nobody wants to know the words
        return said
    one, other = wording(asked), wording(cached)
    for name in wanted:
        said[name] = WORDING[name](one, other)
        if not (said[name] or every):
            break
    return said
