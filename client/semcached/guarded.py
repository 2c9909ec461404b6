"""Fail-open: the service is asked where that may help, and whatever goes wrong is an answer of None."""

import atexit
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from semcached import calls
from semcached.calls import Call
from semcached.errors import (
    FOREIGN,
    SemcachedError,
    ServerError,
    ServiceError,
    TransportError,
    UnauthenticatedError,
    UnreadableError,
)

if TYPE_CHECKING:
    from semcached.client import AsyncClient, Client

T = TypeVar("T")

log = logging.getLogger("semcached")

MAX_BODY = 1024 * 1024
"""Bytes that the service takes."""
NOT_FOUND, NOT_ALLOWED, TOO_LARGE = 404, 405, 413

_said: set[tuple[str, ...]] = set()
_clients: dict[str, Any] = {}


def say_once(about: str, kind: str, what: str) -> None:
    """A warning, the first of its kind."""
    if (about, kind) not in _said:
        _said.add((about, kind))
        log.warning("%s: %s", about, what)


def default_client() -> "Client | None":
    """The one of the environment, made at its first use; None: the environment can't be used."""
    if "sync" not in _clients:
        from semcached.client import Client  # noqa: PLC0415 - httpx takes its time: not before it is needed

        made = _made(Client)
        if made is not None and _clients.setdefault("sync", made) is made:
            atexit.register(made.close)
    return _clients.get("sync")


def default_async_client() -> "AsyncClient | None":
    """As `default_client`."""
    if "async" not in _clients:
        from semcached.client import AsyncClient  # noqa: PLC0415 - see above

        made = _made(AsyncClient)
        if made is not None:
            _clients.setdefault("async", made)
    return _clients.get("async")


def _made(kind: Callable[[], T]) -> T | None:
    try:
        return kind()
    except SemcachedError as error:
        say_once("semcached", "settings", f"functions run uncached: {error}")
        return None


def built(about: str, make: Callable[[], Call[T] | None]) -> Call[T] | None:
    """A call, unless it can't be made: a function of the user's (`sources`) may fail."""
    try:
        call = make()
    except Exception as error:  # noqa: BLE001 - fail-open: the tool has run, its result must arrive
        say_once(about, "build", f"neither asked nor kept: {type(error).__name__}: {error}")
        return None
    if call is not None and call.body is not None and len(call.body) > MAX_BODY:
        say_once(about, "size", f"more than {MAX_BODY} bytes aren't kept")
        return None
    return call


def ask(client: "Client | None", about: str, call: Call[T] | None, timeout_s: float) -> T | None:
    """The service's answer. None: it is away, or won't."""
    if client is None or call is None or not client.breaker.allows():
        return None
    begun = time.monotonic()
    try:
        if call.wait_s and not client.breaker.trusted:  # one that hangs must not cost all of `wait_s`
            client.send(calls.live(), timeout_s, retries=0)
        answer = client.send(call, timeout_s, retries=0)
    except Exception as error:  # noqa: BLE001 - fail-open: whatever a broken network or service makes us raise
        _judge(client, about, call, error, time.monotonic() - begun)
        return None
    client.breaker.worked(time.monotonic() - begun)
    return answer


async def ask_async(
    client: "AsyncClient | None", about: str, call: Call[T] | None, timeout_s: float
) -> T | None:
    """As `ask`."""
    if client is None or call is None or not client.breaker.allows():
        return None
    begun = time.monotonic()
    try:
        if call.wait_s and not client.breaker.trusted:
            await client.send(calls.live(), timeout_s, retries=0)
        answer = await client.send(call, timeout_s, retries=0)
    except Exception as error:  # noqa: BLE001 - see `ask`
        _judge(client, about, call, error, time.monotonic() - begun)
        return None
    client.breaker.worked(time.monotonic() - begun)
    return answer


def _judge(
    client: "Client | AsyncClient", about: str, call: Call[Any], error: Exception, took_s: float
) -> None:
    """Whether the service is away, or only this call was wrong."""
    if isinstance(error, ServiceError) and not _is_away(call, error):
        client.breaker.worked(took_s)
        say_once(about, str(error.status), f"runs uncached: {error}")
    elif isinstance(error, ServiceError | TransportError | UnreadableError):
        client.breaker.failed(error, took_s)
    else:
        say_once(about, type(error).__name__, f"runs uncached: {type(error).__name__}: {error}")


def _is_away(call: Call[Any], error: ServiceError) -> bool:
    """A store may fail where lookups go on. A lookup that isn't found was asked at a wrong address."""
    if isinstance(error, UnauthenticatedError) or not call.reads:
        return isinstance(error, UnauthenticatedError)
    foreign = error.title == FOREIGN and error.status != TOO_LARGE  # a proxy's limit of bodies is no address
    return foreign or isinstance(error, ServerError) or error.status in {NOT_FOUND, NOT_ALLOWED}
