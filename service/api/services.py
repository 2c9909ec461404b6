"""What the handlers are given."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from litestar.datastructures import State

from service.cache.accounting import Accounting
from service.cache.digests import Keyring
from service.cache.embeddings import Embeddings
from service.cache.faceted import FacetedLookup
from service.cache.leases import Leases
from service.cache.lookup import Lookup
from service.cache.store import Store
from service.cache.tools import Tools
from service.model import Tenant
from service.proxy.passage import Passage
from service.store.entries import Entries
from service.store.fresh import Comparer
from service.store.invalidator import Invalidator
from service.store.judging import Judging
from service.store.learning import RedisLearning
from service.store.ledger import Ledger
from service.store.policies import RedisPolicies
from service.store.rates import Rates
from service.store.rules import RedisRules


@dataclass(frozen=True)
class Services:
    """The parts of the service that HTTP reaches."""

    lookup: Lookup
    faceted: FacetedLookup
    store: Store
    tools: Tools
    leases: Leases
    keyring: Keyring
    policies: RedisPolicies
    embeddings: Embeddings
    rates: Rates
    accounting: Accounting
    ledger: Ledger
    invalidator: Invalidator
    judging: Judging
    learning: RedisLearning
    comparer: Comparer
    rules: RedisRules
    entries: Entries
    passage: Passage
    why_not_ready: Callable[[], Awaitable[str | None]]
    metric_tenants: frozenset[str]
    has_judge: bool  # an LLM that compares answers

    def label(self, tenant: Tenant) -> str:
        """What metrics may call a tenant."""
        return tenant if tenant in self.metric_tenants else "other"


def provide_services(state: State) -> Services:
    """Litestar dependency; the application's start put them there."""
    services: Services = state.services
    return services
