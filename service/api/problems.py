"""The one handler that turns errors into problem objects (RFC 9457)."""

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import UNSET, Struct, UnsetType

from service.errors import InvalidInputError, SemcachedError, StoreUnavailableError, UnauthenticatedError

log = logging.getLogger(__name__)

RETRY_AFTER_S = "1"


class FieldError(Struct, frozen=True):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457, with `errors` naming the fields."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | UnsetType = UNSET


def problem_of(error: BaseException) -> Problem:
    """What a caller is told."""
    if isinstance(error, InvalidInputError):
        fields = [FieldError(error.field, error.message)]
        return _problem(error.status, error.title, str(error), fields)
    if isinstance(error, SemcachedError):
        return _problem(error.status, error.title, str(error))
    if isinstance(error, RecursionError):
        fields = [FieldError("body", "is nested too deeply")]
        return _problem(400, InvalidInputError.title, "body: is nested too deeply", fields)
    if isinstance(error, HTTPException):
        return _problem(error.status_code, _words(error), error.detail)
    log.error("unexpected error", exc_info=error)
    return _problem(500, SemcachedError.title, "the service's log says more")


def _problem(status: int, title: str, detail: str, errors: list[FieldError] | UnsetType = UNSET) -> Problem:
    kind = "/errors/" + title.lower().replace(" ", "-")
    return Problem(type=kind, title=title, status=status, detail=detail, errors=errors)


def _words(error: HTTPException) -> str:
    name = type(error).__name__.removesuffix("Exception")
    return "".join(" " + one.lower() if one.isupper() else one for one in name).strip().capitalize()


def handle(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's hook for every exception."""
    problem = problem_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, StoreUnavailableError):
        headers["Retry-After"] = RETRY_AFTER_S
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=headers,
    )
