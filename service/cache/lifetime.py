"""How long an entry lives. Times of records in ms since 1970."""

from collections.abc import Callable

import msgspec
from msgspec import UnsetType

from service.cache import canonical
from service.cache.canonical import Query
from service.cache.patterns import compiled
from service.model import Policy, Record

JITTER = 0.05
"""What may be taken off a policy's TTL, so that what was stored together doesn't end together."""

Jitter = Callable[[], float]
"""0 to 1."""


def ttl_of(given: float | UnsetType | None, query: Query, policy: Policy, jitter: Jitter) -> float | None:
    """Seconds: the request's exactly, else the policy's for that text, or up to 5 % less; None: no end."""
    if not isinstance(given, UnsetType):
        return given
    ttl_s = _ruled(canonical.text(canonical.asked(query)), policy) if policy.ttl_rules else policy.ttl_s
    return None if ttl_s is None else ttl_s * (1 - JITTER * jitter())


def _ruled(text: str, policy: Policy) -> float | None:
    """By the first rule that matches."""
    matching = (one for one in policy.ttl_rules if compiled("ttl_rules", one.pattern).matches(text))
    rule = next(matching, None)
    return policy.ttl_s if rule is None else rule.ttl_s


def end_of(record: Record, policy: Policy) -> int | None:
    """When a record is served no more: its own end, or the policy's hard limit; None: never."""
    if policy.max_age_s is None:
        return record.expires_at
    limit = _born(record) + round(policy.max_age_s * 1000)
    return limit if record.expires_at is None else min(record.expires_at, limit)


def is_over(record: Record, policy: Policy, now: int) -> bool:
    """Whether a record has come to its end."""
    end = end_of(record, policy)
    return end is not None and end <= now


def lived(record: Record, before: Record | None, policy: Policy) -> Record:
    """A new record with its end, given the live one that it takes the place of.

    The same answer stored again extends its life, never shortens it, and is as old as it was. A clock that
    went back makes nothing younger.
    """
    born, end = record.stored_at, record.expires_at
    if before is not None and before.response == record.response:
        born = min(born, _born(before))
        end = None if end is None or before.expires_at is None else max(end, before.expires_at)
    record = msgspec.structs.replace(record, first_stored_at=born, expires_at=end)
    return msgspec.structs.replace(record, expires_at=end_of(record, policy))


def _born(record: Record) -> int:
    return record.stored_at if record.first_stored_at is None else record.first_stored_at
