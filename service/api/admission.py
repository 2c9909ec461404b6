"""Who gets in: requests in flight per key, bytes of bodies per worker, the rate limit."""

from typing import Self

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
        self._requests: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._held = 0  # bytes of all

    def rate_of(self, principal: Principal) -> float:
        """Requests per second; 0: no limit."""
        return self._rate if principal.rate_limit is None else principal.rate_limit

    def takes(self, principal: Principal, size: int) -> bool:
        """Whether there is room for a request with a body of so many bytes."""
        key = principal.key
        return self._requests.get(key, 0) < self._most_requests and self._fits(key, size)

    def enter(self, key: str, size: int = 0) -> None:
        """A request of this key is in flight, until it leaves; its body has so many bytes so far.

        Raises:
            TooManyRequestsError: the key has as many as it may.
        """
        running = self._requests.get(key, 0)
        if running >= self._most_requests:
            raise _turned_away("in_flight", f"{self._most_requests} requests of this key are in flight")
        self._requests[key] = running + 1
        self._held += size
        self._bytes[key] = self._bytes.get(key, 0) + size
        IN_FLIGHT.inc()

    def leave(self, key: str, size: int) -> None:
        """It ended; its body had so many bytes."""
        self._held -= size
        IN_FLIGHT.dec()
        if self._requests[key] == 1:
            del self._requests[key], self._bytes[key]
        else:
            self._bytes[key] -= size
            self._requests[key] -= 1

    def add(self, key: str, size: int) -> None:
        """Count bytes of a body.

        Raises:
            TooManyRequestsError: there is no room for them, or the key has half of it.
        """
        if not self._fits(key, size):
            raise _turned_away("bodies", "the bodies of requests in flight take all the room there is")
        self._held += size
        self._bytes[key] += size

    def _fits(self, key: str, size: int) -> bool:
        return (
            self._held + size <= self._most_bytes and self._bytes.get(key, 0) + size <= self._most_bytes // 2
        )


class Body:
    """One request in flight, and the bytes of its body; a context manager.

    Raises:
        TooManyRequestsError: on entering; the key has as many as it may.
    """

    __slots__ = ("_key", "_limits", "size")

    def __init__(self, limits: Limits, key: str) -> None:
        self._limits, self._key = limits, key
        self.size = 0

    def __enter__(self) -> Self:
        self._limits.enter(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.leave(self._key, self.size)

    def add(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            TooManyRequestsError: there is no room for them.
        """
        self._limits.add(self._key, size)
        self.size += size

    def counted(self, receive: Receive) -> Receive:
        """The same, with each piece counted as it comes."""

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                self.add(len(message["body"]))
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
        with Body(self._limits, principal.key) as body:
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


def admission(limits: Limits) -> DefineMiddleware:
    """The middleware with the limits of one worker."""
    return DefineMiddleware(Admission, limits=limits)
