"""The one handler that turns errors into problem objects (RFC 9457)."""

import logging
import math
from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from msgspec import UNSET, Meta, Struct, UnsetType

from service.errors import (
    InvalidInputError,
    SemcachedError,
    StoreFullError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnauthenticatedError,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = "1"


class FieldError(Struct, frozen=True):
    """What is wrong with one field."""

    field: Annotated[str, Meta(description="Its path, as in `messages[0].role`.")]
    message: Annotated[str, Meta(description="What is wrong.")]


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457, with `errors` naming the fields."""

    type: Annotated[str, Meta(description="The kind of problem, a relative URI.")]
    title: Annotated[str, Meta(description="The kind of problem, in words.")]
    status: Annotated[int, Meta(description="The HTTP status.")]
    detail: Annotated[str, Meta(description="This problem, in words.")]
    errors: Annotated[list[FieldError] | UnsetType, Meta(description="The fields that are wrong.")] = UNSET


def problem_of(error: BaseException) -> Problem:
    """What a caller is told."""
    if isinstance(error, InvalidInputError):
        fields = [FieldError(error.field, error.message)]
        return _problem(error.status, error.title, str(error), fields)
    if isinstance(error, SemcachedError):
        return _problem(error.status, error.title, str(error))
    if isinstance(error, RequestEntityTooLarge):
        fields = [FieldError("body", "is too large")]
        return _problem(413, "Too large", "body: is too large", fields)
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
    if isinstance(error, StoreUnavailableError) and not isinstance(error, StoreFullError):
        headers["Retry-After"] = RETRY_AFTER_S
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type="application/problem+json",
        headers=headers,
    )
