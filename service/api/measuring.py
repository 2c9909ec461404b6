"""Requests by call and status, and their time."""

from time import perf_counter
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_of
from service.telemetry import LATENCY, REQUESTS


class Measuring:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun, status = perf_counter(), 0
        handler: Any = scope.get("route_handler")

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            status = problem_of(error).status
            raise
        finally:
            call = handler.handler_name
            REQUESTS.labels(call, str(status)).inc()
            LATENCY.labels(call).observe(perf_counter() - begun)
