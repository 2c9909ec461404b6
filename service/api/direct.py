"""The calls that are asked most, answered without the framework's own way, which costs more than a hit does.

Only what goes well is answered here. Whatever is out of the ordinary (no key, a long body, a wrong field, a
wait for a lease) goes the framework's way, with the body that was read, and is told there what is wrong.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple

from litestar.types import HTTPScope, Receive, Send

from service.api.admission import Limits
from service.api.auth import Keys, Principal
from service.api.authentication import authenticated, told
from service.api.services import Services
from service.errors import SemcachedError
from service.telemetry import LATENCY, REQUESTS

LONGEST = 64 * 1024
"""Bytes of a body that is answered here; longer ones have other costs."""


class Answered(NamedTuple):
    """A 200."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


Answer = Callable[[Services, Principal, bytes], Awaitable[Answered | None]]
"""Answers a body; None, or an error of ours: it goes the framework's way."""


class Call(NamedTuple):
    """What answers a path."""

    name: str  # of the handler that the framework knows
    answer: Answer


class Direct:
    """Answers what it can, for keys of every role."""

    def __init__(self, keys: Keys, limits: Limits, calls: Mapping[str, Call]) -> None:
        """Calls by path."""
        self._keys = keys
        self._limits = limits
        self._calls = calls
        self._counted = {
            path: (REQUESTS.labels(call.name, "200"), LATENCY.labels(call.name))
            for path, call in calls.items()
        }

    def takes(self, scope: Any) -> bool:
        """Whether it is one of the calls."""
        return scope["type"] == "http" and scope["path"] in self._calls and scope["method"] == "POST"

    async def answered(
        self, services: Services, scope: HTTPScope, receive: Receive, send: Send
    ) -> Receive | None:
        """None: it was answered. Else what the framework's way is to receive."""
        begun = perf_counter()
        path, given = scope["path"], told(scope["headers"])
        length = given.get(b"content-length", "")
        size = int(length) if length.isdecimal() else 0
        principal = self._principal(given, path, size)
        if principal is None:
            return receive
        self._limits.enter(principal.key, size)
        again, answer = receive, None
        try:
            body, again = await _read(receive)
            if body is not None and len(body) <= size:
                answer = await self._calls[path].answer(services, principal, body)
        except SemcachedError:
            pass  # the framework's way tells it
        finally:
            self._limits.leave(principal.key, size)
        if answer is None:
            return again
        await _sent(answer, send)
        requests, latency = self._counted[path]
        requests.inc()
        latency.observe(perf_counter() - begun)
        return None

    def _principal(self, given: dict[bytes, str], path: str, size: int) -> Principal | None:
        """Who asks, if a body of so many bytes may be taken."""
        try:
            principal, _ = authenticated(given, path, self._keys)
        except SemcachedError:
            return None
        return principal if 0 < size <= LONGEST and self._limits.takes(principal, size) else None


async def _read(receive: Receive) -> tuple[bytes | None, Receive]:
    """The body, None if the client left before its end; and a receive that gives the same once more."""
    message: Any = await receive()
    seen = [message]
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        seen.append(message)
    whole = message["type"] == "http.request"
    body = (message["body"] if len(seen) == 1 else b"".join(one["body"] for one in seen)) if whole else None

    async def again() -> Any:
        return seen.pop(0) if seen else await receive()

    return body, again


async def _sent(answer: Answered, send: Send) -> None:
    length = b"%d" % len(answer.body)
    headers = [(b"content-type", b"application/json"), (b"content-length", length), *answer.headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
