"""Every request's principal, before its body is read."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult, DefineMiddleware

from service.api.auth import Keys, Principal, Role

PUBLIC = ["^/livez$", "^/readyz$", "^/health$", "^/metrics$", "^/docs"]

Connection = ASGIConnection[Any, Any, Any, Any]


class Authentication(AbstractAuthenticationMiddleware):
    """Bearer keys."""

    def __init__(self, app: Any, keys: Keys, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._keys = keys

    async def authenticate_request(self, connection: Connection) -> AuthenticationResult:
        """See Litestar."""
        headers = connection.headers
        principal = self._keys.authenticate(headers.get("authorization"), headers.get("origin"))
        return AuthenticationResult(user=principal, auth=None)


def authentication(keys: Keys) -> DefineMiddleware:
    """The middleware over `keys`."""
    return DefineMiddleware(Authentication, keys=keys, exclude=PUBLIC)


def needs(role: Role) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """A guard: 403 below `role`."""

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:  # else it is run in a thread
        principal: Principal = connection.user
        principal.require(role)

    return guard
