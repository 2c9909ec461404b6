"""Who gets in: requests in flight per key, bytes of bodies per worker, the rate limit."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import Principal
from service.api.services import Services
from service.errors import TooManyRequestsError
from service.settings import Settings
from service.telemetry import IN_FLIGHT, TURNED_AWAY

RETRY_S = 1.0


class Limits:
    """What one worker has in hand."""

    def __init__(self, settings: Settings) -> None:
        self._most_requests = settings.max_in_flight
        self._most_bytes = settings.max_body_bytes_in_flight
        self._rate = settings.rate_limit
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def rate_of(self, principal: Principal) -> float:
        """Requests per second; 0: no limit."""
        return self._rate if principal.rate_limit is None else principal.rate_limit

    @contextmanager
    def one(self, key: str) -> Iterator["Body"]:
        """A request of this key is in flight.

        Raises:
            TooManyRequestsError: the key has as many as it may.
        """
        if self._requests[key] >= self._most_requests:
            raise _turned_away("in_flight", f"{self._most_requests} requests of this key are in flight")
        self._requests[key] += 1
        IN_FLIGHT.inc()
        body = Body(self, key)
        try:
            yield body
        finally:
            self._bytes[key] -= body.size
            self._requests[key] -= 1
            IN_FLIGHT.dec()
            if not self._requests[key]:
                del self._requests[key], self._bytes[key]

    def add(self, key: str, size: int) -> None:
        """Count bytes of a body.

        Raises:
            TooManyRequestsError: there is no room for them, or the key has half of it.
        """
        if self._bytes.total() + size > self._most_bytes or self._bytes[key] + size > self._most_bytes // 2:
            raise _turned_away("bodies", "the bodies of requests in flight take all the room there is")
        self._bytes[key] += size


class Body:
    """The bytes of one request's body."""

    def __init__(self, limits: Limits, key: str) -> None:
        self._limits, self._key = limits, key
        self.size = 0

    def counted(self, receive: Receive) -> Receive:
        """The same, with each piece counted as it comes."""

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                size = len(message["body"])
                self._limits.add(self._key, size)
                self.size += size
            return message  # type: ignore[return-value] # Litestar's own union, narrowed

        return receive_counted  # type: ignore[return-value] # see above


class Admission:
    """The middleware over the limits; behind the authentication."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        principal: Principal | None = scope.get("user")
        if principal is None:  # a public page
            await self._app(scope, receive, send)
            return
        with self._limits.one(principal.key) as body:
            rate = self._limits.rate_of(principal)
            if rate:
                services: Services = scope["litestar_app"].state.services
                wait_s = await services.rates.wait_s(principal.key, rate)
                if wait_s > 0:
                    raise _turned_away("rate", f"the key's limit is {rate:g} requests per second", wait_s)
            await self._app(scope, body.counted(receive), send)


def _turned_away(why: str, message: str, retry_after_s: float = RETRY_S) -> TooManyRequestsError:
    TURNED_AWAY.labels(why).inc()
    return TooManyRequestsError(message, retry_after_s)


def admission(settings: Settings) -> DefineMiddleware:
    """The middleware with the limits of one worker."""
    return DefineMiddleware(Admission, limits=Limits(settings))
