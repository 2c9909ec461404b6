"""Every request's principal, before its body is read."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware

from service.api.auth import Keys, Principal, Role

PUBLIC = ["^/livez$", "^/readyz$", "^/health$", "^/metrics$", "^/docs", "^/reviews"]

Connection = ASGIConnection[Any, Any, Any, Any]


_TOLD = frozenset({b"x-semcached-key", b"authorization", b"x-api-key", b"origin", b"content-length"})

OWN = "x-semcached-key"
"""Has the tenant's key where `Authorization` has a provider's."""

_ANTHROPIC = ("/v1/messages", "/v1/models")
"""Calls whose SDKs may put the one key that they know into `X-Api-Key`."""


class Authentication(AbstractAuthenticationMiddleware):
    """Bearer keys; which header had the key is the request's `auth`, None where nobody needs one."""

    def __init__(self, app: Any, keys: Keys, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._keys = keys

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """See Litestar."""
        principal, name = authenticated(
            told(connection.scope["headers"]), connection.scope["path"], self._keys
        )
        needed = name == OWN or self._keys.enforced
        return AuthenticationResult(user=principal, auth=name if needed else None)


def told(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """Those of a request's headers that say who asks, and how much; the first of each name."""
    given: dict[bytes, str] = {}
    for name, value in headers:
        if name in _TOLD:
            given.setdefault(name, value.decode("latin-1"))
    return given


def authenticated(given: dict[bytes, str], path: str, keys: Keys) -> tuple[Principal, str]:
    """Who asks, and the header that says so.

    Raises:
        UnauthenticatedError: nobody we know.
        ForbiddenError: a page from elsewhere calls a service that has no keys.
    """
    header, authorization = _presented(given, path)
    return keys.authenticate(authorization, given.get(b"origin")), header


def _presented(given: dict[bytes, str], path: str) -> tuple[str, str | None]:
    """The header that has the tenant's key, and its value as `Authorization` would have it."""
    if (own := given.get(b"x-semcached-key")) is not None:
        return OWN, f"Bearer {own}"
    authorization, key = given.get(b"authorization"), given.get(b"x-api-key")
    if authorization is None and key is not None and path.startswith(_ANTHROPIC):
        return "x-api-key", f"Bearer {key}"
    return "authorization", authorization


def authentication(keys: Keys) -> DefineMiddleware:
    """The middleware over `keys`."""
    return DefineMiddleware(Authentication, keys=keys, exclude=PUBLIC)


def needs(role: Role) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """A guard: 403 below `role`."""

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:  # else it is run in a thread
        principal: Principal = connection.user
        principal.require(role)

    return guard
