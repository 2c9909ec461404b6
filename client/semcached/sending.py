"""What both clients do alike: a response becomes a result or an error, and an error a pause or the end."""

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from semcached.calls import Call
from semcached.errors import (
    BrokenError,
    DeadlineError,
    SemcachedError,
    ServiceError,
    TooManyRequestsError,
    TransportError,
    UnavailableError,
    UnreachableError,
    UnreadableError,
    error_of,
)
from semcached.settings import Settings

T = TypeVar("T")

FIRST_PAUSE_S = 0.05
OK, REDIRECT, ERROR = 200, 300, 400
# Nobody queues for a connection: 100 who wait for one tool would keep its leader's store out. Idle ones go
# before the service ends them (after 60 s).
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)


def timeouts(settings: Settings, seconds: float) -> httpx.Timeout:
    """Of one request: for each step of it."""
    return httpx.Timeout(seconds, connect=min(settings.connect_timeout_s, seconds))


@contextmanager
def translated() -> Iterator[None]:
    """Httpx's errors as ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise DeadlineError(f"no answer in time: {type(error).__name__}") from error
    except httpx.ConnectError as error:
        raise UnreachableError(f"no connection: {error}") from error
    except httpx.RequestError as error:
        raise BrokenError(f"no whole answer: {type(error).__name__}: {error}") from error


def whole(pieces: Iterable[bytes], until: float) -> bytes:
    """A body. `until`: when it must be there, of `time.monotonic`.

    Raises:
        DeadlineError: it isn't: httpx bounds the wait for each piece.
    """
    read = []
    for piece in pieces:
        if time.monotonic() > until:
            raise DeadlineError("no whole answer in time")
        read.append(piece)
    return b"".join(read)


def result(call: Call[T], response: httpx.Response, body: bytes) -> T:
    """What a response says.

    Raises:
        ServiceError: it is an error's.
        UnreadableError: it is none of semcached's.
    """
    status = response.status_code
    if status >= ERROR and status not in call.also:
        raise error_of(status, body, response.headers.get("retry-after"))
    if not (OK <= status < REDIRECT or status in call.also):
        raise UnreadableError(f"status {status}: is this semcached's address?")
    try:
        return call.read(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableError(f"the answer is not the contract's: {error}") from error


def pause_s(
    call: Call[Any], error: SemcachedError, tried: int, retries: int, longest_s: float
) -> float | None:
    """How long to wait before the call is sent again; None: it isn't.

    What was never sent, or was turned away unread (429), always may be; what may have been done only
    where it is `repeatable`. After a deadline there is no time left.
    """
    if tried >= retries or isinstance(error, DeadlineError):
        return None
    unsent = isinstance(error, UnreachableError | TooManyRequestsError)
    passing = isinstance(error, TransportError | UnavailableError)
    if not (unsent or (passing and call.repeatable)):
        return None
    told = error.retry_after_s if isinstance(error, ServiceError) else None
    pause = FIRST_PAUSE_S * 2**tried * random.uniform(0.5, 1) if told is None else told  # noqa: S311 - no secret
    return pause if pause <= longest_s else None
