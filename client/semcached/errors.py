"""What can go wrong, in one tree.

SemcachedError
├── ConfigurationError           the address or the key is none; also a ValueError
├── TransportError               no answer came
│   ├── UnreachableError         no connection: nothing was sent
│   ├── DeadlineError            it took longer than `timeout_s`; also a TimeoutError
│   └── BrokenError              the connection ended before the answer did
├── UnreadableError              an answer came that semcached doesn't give: is it the right address?
└── ServiceError                 the service's own: status, title, detail, errors, retry_after_s
    ├── InvalidRequestError      400, 413 and any other 4xx; `errors` names the fields
    ├── UnauthenticatedError     401
    ├── ForbiddenError           403  the key's role doesn't reach
    ├── NotFoundError            404
    ├── TooManyRequestsError     429
    └── ServerError              5xx
        ├── UnavailableError     503  Redis is away, slow or loading
        └── FullError            507  Redis has no room; lookups go on

Decorated functions raise none of these: they run without the cache.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct


class FieldError(Struct, frozen=True):
    """What is wrong with one field; `field` is its path, as in `messages[0].role`."""

    field: str
    message: str


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457, with `errors` naming the fields."""

    title: str = ""
    status: int = 0
    detail: str = ""
    errors: Sequence[FieldError] = ()


class SemcachedError(Exception):
    """Root of what this package raises."""


class ConfigurationError(SemcachedError, ValueError):
    """SEMCACHED_URL or SEMCACHED_API_KEY, or what was given in their place, can't be used."""


class TransportError(SemcachedError):
    """No answer came."""


class UnreachableError(TransportError):
    """No connection: nothing was sent."""


class DeadlineError(TransportError, TimeoutError):
    """It took too long; the service may have done it nevertheless."""


class BrokenError(TransportError):
    """The connection ended before the answer did."""


class UnreadableError(SemcachedError):
    """An answer that semcached doesn't give."""


class ServiceError(SemcachedError):
    """The service's answer, where it is an error. `retry_after_s`: when to come again, if it says so."""

    def __init__(self, status: int, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {problem.title}: {problem.detail}")
        self.status = status
        self.title = problem.title
        self.detail = problem.detail
        self.errors = tuple(problem.errors)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["ServiceError"], tuple[int, Problem, float | None]]:
        """Exceptions go from process to process by pickle."""
        problem = Problem(title=self.title, status=self.status, detail=self.detail, errors=self.errors)
        return type(self), (self.status, problem, self.retry_after_s)


class InvalidRequestError(ServiceError):
    """A field is wrong, or too large."""


class UnauthenticatedError(ServiceError):
    """No key, or none that the service knows."""


class ForbiddenError(ServiceError):
    """The key's role doesn't reach."""


class NotFoundError(ServiceError):
    """Nothing of that name."""


class TooManyRequestsError(ServiceError):
    """Over a limit of the key's."""


class ServerError(ServiceError):
    """The service failed."""


class UnavailableError(ServerError):
    """Redis is away, slow or loading."""


class FullError(ServerError):
    """Redis has no room."""


_BY_STATUS: Mapping[int, type[ServiceError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    429: TooManyRequestsError,
    503: UnavailableError,
    507: FullError,
}
_SERVER = 500
FOREIGN = "Unknown"
"""Title of an error that another server may have answered."""
_problem = msgspec.json.Decoder(Problem).decode


class _OpenAI(Struct, frozen=True):
    """An error of /v1/embeddings, which answers as OpenAI's API does."""

    message: str
    type: str = ""
    param: str | None = None


class _Failure(Struct, frozen=True):
    error: _OpenAI


_failure = msgspec.json.Decoder(_Failure).decode


def error_of(status: int, body: bytes, retry_after: str | None) -> ServiceError:
    """The error that an answer of status 400 or more is."""
    fallback = ServerError if status >= _SERVER else InvalidRequestError
    return _BY_STATUS.get(status, fallback)(status, _told(body), _seconds(retry_after))


def _told(body: bytes) -> Problem:
    """What an answer says; of one that isn't the service's, its first words."""
    try:
        problem = _problem(body)
        if problem.title:
            return problem
        error = _failure(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Problem(title=FOREIGN, detail=body[:200].decode(errors="replace"))
    fields = () if error.param is None else (FieldError(error.param, error.message),)
    return Problem(title=error.type, detail=error.message, errors=fields)


def _seconds(retry_after: str | None) -> float | None:
    """The service sends whole seconds; a proxy's date isn't read."""
    digits = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
    return float(retry_after) if digits and retry_after else None
