"""What the metrics are told of lookups and stores."""

from functools import cache
from typing import Any

from service.errors import SemcachedError
from service.model import Hit, Miss, Reason, Refused, Stored
from service.telemetry import GUARDED, LOOKUPS, STORES


def count(answer: Hit | Miss, tenant: str) -> None:
    """A lookup; `tenant` as metrics may call him."""
    detail = answer.tier if isinstance(answer, Hit) else answer.reason
    if isinstance(answer, Miss) and answer.reason is Reason.GUARD and isinstance(answer.rule, str):
        GUARDED.labels(answer.rule).inc()
    _lookups(tenant, "hit" if isinstance(answer, Hit) else "miss", detail.value).inc()


@cache
def _lookups(tenant: str, outcome: str, detail: str) -> Any:
    """Few: tenants that settings name, words of ours; `labels` takes a lock to find one."""
    return LOOKUPS.labels(tenant, outcome, detail)


def count_store(answer: Stored | Refused | SemcachedError, tenant: str) -> None:
    """A store; `tenant` as metrics may call him."""
    outcome = (
        "stored" if isinstance(answer, Stored) else "refused" if isinstance(answer, Refused) else "failed"
    )
    STORES.labels(tenant, outcome).inc()
