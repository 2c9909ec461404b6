"""Errors in the shape of OpenAI's API, for the calls that its SDK makes."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from msgspec import Meta, Struct

from service.api.problems import Problem, handle
from service.errors import InvalidInputError

SERVER_ERROR = 500
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAIError(Struct, frozen=True):
    """What went wrong."""

    message: Annotated[str, Meta(description="What is wrong, in words.")]
    type: Annotated[str, Meta(description="`invalid_request_error`, or `server_error`.")]
    param: Annotated[str | None, Meta(description="The field that is wrong.")]
    code: Annotated[str | None, Meta(description="The kind of problem, for programs.")]


class OpenAIFailure(Struct, frozen=True):
    """An error as OpenAI's API answers it."""

    error: Annotated[OpenAIError, Meta(description="The error.")]


def openai_handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The same status and headers as everywhere, with another body."""
    answer = handle(request, error)
    problem = msgspec.json.decode(answer.content, type=Problem)
    kind = "server_error" if problem.status >= SERVER_ERROR else "invalid_request_error"
    field = error.field if isinstance(error, InvalidInputError) else None
    told = OpenAIError(problem.detail, kind, field, _CODES.get(problem.status))
    return Response(
        msgspec.json.encode(OpenAIFailure(told)),
        status_code=problem.status,
        media_type="application/json",
        headers=answer.headers,
    )
