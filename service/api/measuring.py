"""Requests by call and status, and their time."""

from time import perf_counter
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_of
from service.telemetry import LATENCY, REQUESTS

SERVER_ERROR = 500
WAITED = "semcached_waited_s"
"""In a scope's state: how much of a request's time it waited for a lease."""


class Measuring:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun, status, left, told = perf_counter(), 0, False, False
        handler: Any = scope.get("route_handler")

        async def noted(message: Message) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
            told |= message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def watched() -> Any:
            nonlocal left
            message = await receive()
            left |= message["type"] == "http.disconnect" and not told  # behind the answer it says that, too
            return message

        try:
            await self._app(scope, watched, noted)
        except Exception as error:
            status = problem_of(error).status
            raise
        finally:
            call = handler.handler_name
            # As nginx counts it: the client went away before its request was whole.
            REQUESTS.labels(call, "499" if left and status in {0, SERVER_ERROR} else str(status)).inc()
            waited_s = scope.get("state", {}).get(WAITED, 0.0)  # for another caller's answer
            LATENCY.labels(call).observe(max(0.0, perf_counter() - begun - waited_s))
