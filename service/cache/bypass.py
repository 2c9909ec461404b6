"""What a policy keeps away from the cache: such a question is neither answered nor stored."""

from collections.abc import Sequence
from typing import get_args

from service.cache import canonical
from service.cache.cacheability import is_of
from service.cache.canonical import Query
from service.cache.patterns import compiled
from service.model import Kind, OwnPattern, Policy, QueryFields, Tier

RULES = frozenset({"max_temperature", "tiers", "pattern", *get_args(Kind)})
"""The words of a policy's rules that keep a question away."""


def allowed(wanted: Sequence[Tier] | None, policy: Policy) -> Sequence[Tier]:
    """The tiers that a request may use."""
    if not wanted:
        return policy.tiers
    return [tier for tier in wanted if tier in policy.tiers]


def passed_by(query: Query, request: QueryFields, policy: Policy) -> str | None:
    """The rule that keeps a question away; None: it may be looked up and stored.

    A request that names no temperature is above none.
    """
    most, temperature = policy.max_temperature, request.temperature
    if most is not None and temperature is not None and temperature > most:
        return "max_temperature"
    if not policy.bypass:
        return None
    text = canonical.text(canonical.asked(query))
    return next((rule for one in policy.bypass if (rule := _rule(one, text))), None)


def _rule(one: Kind | OwnPattern, text: str) -> str | None:
    if isinstance(one, OwnPattern):
        return "pattern" if compiled("bypass", one.pattern).matches(text) else None
    return one if is_of(one, text) else None
