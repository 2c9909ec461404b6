"""Every request's principal, before its body is read."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware

from service.api.auth import Keys, Principal, Role

PUBLIC = ["^/livez$", "^/readyz$", "^/health$", "^/metrics$", "^/docs"]

Connection = ASGIConnection[Any, Any, Any, Any]


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
        headers = connection.headers
        name, authorization = _presented(connection)
        principal = self._keys.authenticate(authorization, headers.get("origin"))
        needed = name == OWN or self._keys.enforced
        return AuthenticationResult(user=principal, auth=name if needed else None)


def _presented(connection: Connection) -> tuple[str, str | None]:
    """The header that has the tenant's key, and its value as `Authorization` would have it."""
    headers = connection.headers
    if OWN in headers:
        return OWN, f"Bearer {headers[OWN]}"
    calls_anthropic = connection.scope["path"].startswith(_ANTHROPIC)
    if "authorization" not in headers and "x-api-key" in headers and calls_anthropic:
        return "x-api-key", f"Bearer {headers['x-api-key']}"
    return "authorization", headers.get("authorization")


def authentication(keys: Keys) -> DefineMiddleware:
    """The middleware over `keys`."""
    return DefineMiddleware(Authentication, keys=keys, exclude=PUBLIC)


def needs(role: Role) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """A guard: 403 below `role`."""

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:  # else it is run in a thread
        principal: Principal = connection.user
        principal.require(role)

    return guard
