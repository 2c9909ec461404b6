"""What an agent installs: a client of semcached, cached tools and answers.

`import semcached` loads nothing else: a name is when it is used first, httpx when something is asked first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semcached.answers import cached_answer
    from semcached.client import AsyncClient, Client
    from semcached.errors import (
        BrokenError,
        ConfigurationError,
        DeadlineError,
        FieldError,
        ForbiddenError,
        FullError,
        InvalidRequestError,
        NotFoundError,
        SemcachedError,
        ServerError,
        ServiceError,
        TooManyRequestsError,
        TransportError,
        UnauthenticatedError,
        UnavailableError,
        UnreachableError,
        UnreadableError,
    )
    from semcached.model import (
        Admission,
        Entry,
        Failed,
        Hit,
        Miss,
        Policy,
        Refused,
        Stored,
        ToolHit,
        ToolMiss,
        ToolPolicy,
        TtlRule,
        Usage,
    )
    from semcached.testing import is_testing, set_testing
    from semcached.tools import cached_tool

__all__ = [
    "Admission",
    "AsyncClient",
    "BrokenError",
    "Client",
    "ConfigurationError",
    "DeadlineError",
    "Entry",
    "Failed",
    "FieldError",
    "ForbiddenError",
    "FullError",
    "Hit",
    "InvalidRequestError",
    "Miss",
    "NotFoundError",
    "Policy",
    "Refused",
    "SemcachedError",
    "ServerError",
    "ServiceError",
    "Stored",
    "TooManyRequestsError",
    "ToolHit",
    "ToolMiss",
    "ToolPolicy",
    "TransportError",
    "TtlRule",
    "UnauthenticatedError",
    "UnavailableError",
    "UnreachableError",
    "UnreadableError",
    "Usage",
    "cached_answer",
    "cached_tool",
    "is_testing",
    "set_testing",
]

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "cached_answer": "answers",
    "cached_tool": "tools",
    "is_testing": "testing",
    "set_testing": "testing",
    "FieldError": "errors",
}


def __getattr__(name: str) -> Any:
    """Load a name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "errors" if name.endswith("Error") else "model")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
