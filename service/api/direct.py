"""The calls that are asked most, answered without the framework's own way, which costs more than a hit does.

Only what goes well is answered here. Whatever is out of the ordinary (no key, a long body, a wrong field, a
wait for a lease) goes the framework's way, and is told there what is wrong.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

from service.api.admission import Limits
from service.api.auth import Keys, Principal
from service.api.authentication import authenticated, told
from service.api.services import Services
from service.errors import SemcachedError
from service.telemetry import LATENCY, REQUESTS

log = logging.getLogger(__name__)

LONGEST = 64 * 1024
"""Bytes of a body that is answered here; longer ones have other costs."""


class Answered(NamedTuple):
    """A 200 in JSON."""

    body: bytes
    headers: bytes  # whole lines


Coming = Coroutine[Any, Any, Answered | None]
"""None: it goes the framework's way."""


class Call(NamedTuple):
    """What answers a path."""

    name: str  # of the handler that the framework knows
    answer: Callable[[Services, Principal, bytes], Answered | Coming | None]
    """Answers a body: at once where this process knows the answer, or a little later."""


class Taken:
    """A request that is in flight here, until its `end`."""

    __slots__ = ("_begun", "_call", "_direct", "_principal", "_size")

    def __init__(self, direct: "Direct", call: Call, principal: Principal, size: int) -> None:
        self._begun = perf_counter()
        self._direct, self._call, self._principal, self._size = direct, call, principal, size

    def answer(self, body: bytes) -> Answered | Coming | None:
        """What to answer, now or after some awaiting. None: it goes the framework's way."""
        if len(body) > self._size:
            return None
        try:
            answer = self._call.answer(self._direct.services, self._principal, body)
        except SemcachedError:
            return None
        except Exception:  # a defect must not leave the caller without an answer
            log.exception("unexpected error in %s", self._call.name)
            return None
        return self._awaited(answer) if isinstance(answer, Coroutine) else answer

    async def _awaited(self, answer: Coming) -> Answered | None:
        try:
            return await answer
        except SemcachedError:
            return None
        except Exception:  # see above
            log.exception("unexpected error in %s", self._call.name)
            return None

    def end(self, status: str | None) -> None:
        """It is in flight no more; with a status it was answered here, or its client left."""
        self._direct.limits.leave(self._principal.key, self._size)
        if status is not None:
            requests, latency = _metrics(self._call.name, status)
            requests.inc()
            latency.observe(perf_counter() - self._begun)


class Direct:
    """Takes the requests that can be answered here."""

    def __init__(self, services: Services, keys: Keys, limits: Limits, calls: Mapping[str, Call]) -> None:
        """Calls by path, for keys of every role."""
        self.services = services
        self.limits = limits
        self._keys = keys
        self._calls = calls

    def take(self, scope: Mapping[str, Any]) -> Taken | None:
        """A request whose body is still to come; None: it goes the framework's way."""
        call = self._calls.get(scope["path"])
        if call is None or scope["method"] != "POST":
            return None
        given = told(scope["headers"])
        size = _size(given)
        if not 0 < size <= LONGEST:
            return None
        principal = self._principal(given, scope["path"])
        if principal is None or self.limits.rate_of(principal) or not self.limits.takes(principal, size):
            return None
        self.limits.enter(principal.key, size)
        return Taken(self, call, principal, size)

    def _principal(self, given: dict[bytes, str], path: str) -> Principal | None:
        try:
            principal, _ = authenticated(given, path, self._keys)
        except (SemcachedError, OSError):  # the framework's way tells it
            return None
        return principal


@cache
def _metrics(name: str, status: str) -> tuple[Any, Any]:
    """Few; `labels` takes a lock to find one."""
    return REQUESTS.labels(name, status), LATENCY.labels(name)


def _size(given: dict[bytes, str]) -> int:
    """Of the body, as the client says; 0: it doesn't."""
    size = given.get(b"content-length", "")
    return int(size) if size.isdecimal() else 0
