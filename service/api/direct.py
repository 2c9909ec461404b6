"""The calls that are asked most, answered without the framework's own way, which costs more than a hit does.

Only what goes well is answered here. Whatever is out of the ordinary (no key, a long body, a wrong field, a
wait for a lease) goes the framework's way, and is told there what is wrong.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
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
"""None, or an error of ours: it goes the framework's way."""


class Call(NamedTuple):
    """What answers a path."""

    name: str  # of the handler that the framework knows
    answer: Callable[[Services, Principal, bytes], Answered | Coming | None]
    """Answers a body: at once where this process knows the answer, or a little later."""


class Direct:
    """Answers what it can."""

    def __init__(self, services: Services, keys: Keys, limits: Limits, calls: Mapping[str, Call]) -> None:
        """Calls by path, for keys of every role."""
        self._services = services
        self._keys = keys
        self._limits = limits
        self._calls = calls
        self._counted = {
            path: (REQUESTS.labels(call.name, "200"), LATENCY.labels(call.name))
            for path, call in calls.items()
        }

    def takes(self, scope: Mapping[str, Any]) -> bool:
        """Whether it is one of the calls, with a body of a fitting length."""
        return scope["path"] in self._calls and scope["method"] == "POST" and 0 < _size(scope) <= LONGEST

    def answer(self, scope: Mapping[str, Any], body: bytes) -> Answered | Coming | None:
        """What to answer, now or after some awaiting. None: it goes the framework's way."""
        begun, path = perf_counter(), scope["path"]
        try:
            principal, _ = authenticated(told(scope["headers"]), path, self._keys)
            if self._limits.rate_of(principal):
                return None
            answer = self._calls[path].answer(self._services, principal, body)
        except SemcachedError:
            return None
        if isinstance(answer, Coroutine):
            return self._awaited(answer, path, principal, len(body), begun)
        self._count(path, answer, begun)
        return answer

    async def _awaited(
        self, answer: Coming, path: str, principal: Principal, size: int, begun: float
    ) -> Answered | None:
        """With the request in flight meanwhile."""
        if not self._limits.takes(principal, size):
            answer.close()
            return None
        self._limits.enter(principal.key, size)
        try:
            answered = await answer
        except SemcachedError:
            return None
        except Exception:  # a defect must not leave the caller without an answer
            log.exception("unexpected error in %s", path)
            return None
        finally:
            self._limits.leave(principal.key, size)
        self._count(path, answered, begun)
        return answered

    def left(self, scope: Mapping[str, Any]) -> None:
        """The client went away within the body: counted as nginx does."""
        REQUESTS.labels(self._calls[scope["path"]].name, "499").inc()

    def _count(self, path: str, answer: Answered | None, begun: float) -> None:
        if answer is not None:
            requests, latency = self._counted[path]
            requests.inc()
            latency.observe(perf_counter() - begun)


def _size(scope: Mapping[str, Any]) -> int:
    """Of the body, as the client says; 0: it doesn't."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
