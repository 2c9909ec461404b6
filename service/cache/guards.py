"""What speaks against serving a candidate. The checks that decide a hit; nothing else does."""

from collections.abc import Sequence

from service.cache.canonical import Identity
from service.model import Candidate, Record

GUARDS = frozenset({"history"})
"""The rejections that are a guard's verdict on a candidate near enough."""

NOT_THERE = frozenset({"gone", "scope", "expired"})
"""The rejections of what is no entry of this scope, or none any more."""


def rejection(
    candidate: Candidate, record: Record | None, asked: Sequence[Identity], threshold: float, now: int
) -> str | None:
    """Why a candidate may not be served; None: it may. `asked` is the query under each secret."""
    if not candidate.similarity >= threshold:  # so that NaN is rejected
        return "threshold"
    if record is None:
        return "gone"
    identity = next((one for one in asked if one.scope == record.scope), None)
    if identity is None:
        return "scope"
    if record.expires_at is not None and record.expires_at <= now:
        return "expired"
    if record.history != identity.history:
        return "history"
    return None
