"""The HTTP server: uvicorn, with limits on how long a request may take to come, and on its headers.

uvicorn by itself waits for ever for the rest of a request, and collects headers without end.
"""

from asyncio import TimerHandle, Transport
from typing import Any

import httptools
import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.settings import Settings
from service.telemetry import REQUESTS

HEAD_S = 10.0
"""From a request's first byte, or the connection, to the end of its headers."""
BODY_S = 10.0
"""From the end of the headers to the end of the body."""
HEAD_BYTES = 64 * 1024
HEADERS = 100
IDLE_S = 60

_REASONS = {400: "Bad request", 408: "Request timeout", 431: "Request header fields too large"}
_DETAILS = {
    400: "this is no HTTP request that can be read in one way only",
    408: "the request did not come in whole in time",
    431: f"more than {HEADERS} headers, or {HEAD_BYTES} bytes of them",
}


class LimitedProtocol(HttpToolsProtocol):
    """One timer per connection, for the part of the request that is being read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: TimerHandle | None = None
        self._in_head = True
        self._head_bytes = self._fields = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn's
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
            if self._timer is None:
                self._wait_for(HEAD_S)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the parser stops before the body, which would come as a request
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError:
            self._refuse(431 if self._fields > HEADERS else 400)
            return
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers of a chunked body come here, too."""
        self._fields += 1
        if self._fields > HEADERS:
            raise ValueError("too many headers")  # ends the parsing
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_head = False
        self._wait_for(BODY_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._in_head, self._head_bytes, self._fields = True, 0, 0
        self._wait_for(None)
        super().on_message_complete()

    def _wait_for(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        began = self._head_bytes > 0 if self._in_head else not self.cycle.response_started
        if began:
            self._refuse(408)
        else:  # nothing came, or it was answered before its end and never came to it
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """Answer in place of the app, and end the connection; a handler that waits for the body is told."""
        if self.transport.is_closing():
            return
        REQUESTS.labels("unread", str(status)).inc()
        title = _REASONS[status]
        problem = {
            "type": "/errors/" + title.lower().replace(" ", "-"),
            "title": title,
            "status": status,
            "detail": _DETAILS[status],
        }
        body = msgspec.json.encode(problem)
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def serve(settings: Settings) -> None:
    """Answer HTTP until a signal; the workers make the app from the environment."""
    uvicorn.run(
        "service.app:from_env",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=30,
    )
