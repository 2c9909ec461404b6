"""Errors, as each provider words them."""

from tests.provider.script import Body, Error

OPENAI: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    409: ("invalid_request_error", "conflict"),
    413: ("invalid_request_error", "request_too_large"),
    422: ("invalid_request_error", "unprocessable_entity"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("service_unavailable_error", "server_overloaded"),
}
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def openai_error(error: Error) -> Body:
    kind, code = OPENAI.get(error.status, ("server_error", None))
    return {"error": {"message": error.message, "type": kind, "param": None, "code": code}}


def anthropic_error(error: Error, request_id: str) -> Body:
    inner = {"type": ANTHROPIC.get(error.status, "api_error"), "message": error.message}
    return {"type": "error", "error": inner, "request_id": request_id}


def headers(error: Error) -> dict[str, str]:
    told = {
        "Retry-After": error.retry_after,
        "Retry-After-Ms": error.retry_after_ms,
        "X-Should-Retry": None if error.should_retry is None else str(error.should_retry).lower(),
    }
    return {name: value for name, value in told.items() if value is not None}
