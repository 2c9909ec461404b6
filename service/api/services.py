"""What the handlers are given."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from litestar.datastructures import State

from service.cache.digests import Keyring
from service.cache.lookup import Lookup
from service.cache.store import Store


@dataclass(frozen=True)
class Services:
    """The parts of the service that HTTP reaches."""

    lookup: Lookup
    store: Store
    keyring: Keyring
    why_not_ready: Callable[[], Awaitable[str | None]]


def provide_services(state: State) -> Services:
    """Litestar dependency; the application's start put them there."""
    services: Services = state.services
    return services
