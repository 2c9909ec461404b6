"""Errors in the shape of Anthropic's API, for the calls that its SDK makes."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response
from msgspec import Meta, Struct

from service.api.problems import Problem, handle

SERVER_ERROR = 500
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


class AnthropicError(Struct, frozen=True):
    """What went wrong."""

    type: Annotated[str, Meta(description="The kind of problem, for programs.")]
    message: Annotated[str, Meta(description="What is wrong, in words.")]


class AnthropicFailure(Struct, frozen=True):
    """An error as Anthropic's API answers it."""

    error: Annotated[AnthropicError, Meta(description="The error.")]
    type: Literal["error"] = "error"
    request_id: str | None = None


def anthropic_handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The same status and headers as everywhere, with another body."""
    answer = handle(request, error)
    problem = msgspec.json.decode(answer.content, type=Problem)
    other = "api_error" if problem.status >= SERVER_ERROR else "invalid_request_error"
    told = AnthropicError(_TYPES.get(problem.status, other), problem.detail)
    return Response(
        msgspec.json.encode(AnthropicFailure(told)),
        status_code=problem.status,
        media_type="application/json",
        headers=answer.headers,
    )
