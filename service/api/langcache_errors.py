"""Errors as the LangCache API answers them: its SDK knows these types, of each status, and no others."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.problems import Problem, handle
from service.errors import StoreFullError

PREFIX = "/v1/caches/"

FAILED_DEPENDENCY = 424
_UPSTREAM = {502, 503, 507}

_TYPES = {
    400: "/errors/invalid-data",
    401: "/errors/authentication-failed",
    403: "/errors/insufficient-permissions",
    404: "/errors/resource-not-found",
    413: "/errors/payload-too-large",
    424: "/errors/resource-unavailable",
    429: "/errors/too-many-requests",
}
_OTHERS = "/errors/unexpected-error"
_FULL = "/errors/database-out-of-memory"
_OLD = {
    "/errors/resource-not-found": "/errors/resource/not-found",
    "/errors/resource-unavailable": "/errors/database/resource-database-unavailable",
    _FULL: "/errors/database/out-of-memory",
}
"""What the JavaScript SDK, and the Python one before 0.12, know instead."""

_OLD_AGENTS = ("speakeasy-sdk/typescript", "speakeasy-sdk/python 0.10.", "speakeasy-sdk/python 0.11.")


class LangCacheField(Struct, frozen=True):
    """What is wrong with one field."""

    field: Annotated[str, Meta(description="Its name.")]
    rule: Annotated[str, Meta(description="Always `invalid`.")]
    message: Annotated[str, Meta(description="What is wrong.")]


class LangCacheProblem(Struct, frozen=True, kw_only=True):
    """An error as the LangCache API answers it."""

    title: Annotated[str, Meta(description="The kind of problem, in words.")]
    type: Annotated[str, Meta(description="The kind of problem, a URI that the caller's SDK knows.")]
    status: Annotated[int, Meta(description="The HTTP status.")]
    detail: Annotated[str, Meta(description="This problem, in words.")]
    fields: Annotated[list[LangCacheField] | UnsetType, Meta(description="The fields that are wrong.")] = (
        UNSET
    )


def langcache_handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """As everywhere, but for the body; what fails below the service is 424."""
    answer = handle(request, error)
    problem = msgspec.json.decode(answer.content, type=Problem)
    status = FAILED_DEPENDENCY if problem.status in _UPSTREAM else problem.status
    kind = _FULL if isinstance(error, StoreFullError) else _TYPES.get(status, _OTHERS)
    told = LangCacheProblem(
        title=problem.title,
        type=_OLD.get(kind, kind) if _is_old(request) else kind,
        status=status,
        detail=problem.detail,
        fields=_fields(problem) if status == 400 else UNSET,  # noqa: PLR2004 - no other may have them
    )
    return Response(
        msgspec.json.encode(told),
        status_code=status,
        media_type="application/json",  # its SDK takes no other, also for an error
        headers=answer.headers,
    )


def handle_by_path(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """For what has no handler of its own: an unknown route, a method that isn't there."""
    mine = request.scope["path"].startswith(PREFIX)
    return langcache_handle(request, error) if mine else handle(request, error)


def _fields(problem: Problem) -> list[LangCacheField] | UnsetType:
    if isinstance(problem.errors, UnsetType):
        return UNSET
    return [LangCacheField(one.field, "invalid", one.message) for one in problem.errors]


def _is_old(request: Request[Any, Any, Any]) -> bool:
    return request.headers.get("user-agent", "").startswith(_OLD_AGENTS)
