"""The HTTP server: uvicorn, with limits on how long a request may take to come, and on its headers.

What `api/direct.py` takes is answered here, without a way through ASGI.

uvicorn by itself waits for ever for the rest of a request, and for a client to read; collects headers
without end; and takes as many pipelined requests as a client cares to send.
"""

from asyncio import TimerHandle, Transport
from collections.abc import Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httptools
import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.cache.leases import end_waits
from service.settings import Settings
from service.telemetry import REQUESTS

if TYPE_CHECKING:  # the process that only starts workers needs none of it
    from service.api.direct import Answered, Coming, Direct, Taken

HEAD_S = 10.0
"""From a request's first byte, or the connection, to the end of its headers."""
BODY_S = 10.0
"""From the end of the headers to the end of the body; of a long one, for each part of `PART`."""
PART = 2**20
WRITE_S = 20.0
"""How long a client may read nothing of an answer."""
FLUSH_S = 1.0
"""How long a connection that is refused may take to send the refusal."""
HEAD_BYTES = 64 * 1024
HEADERS = 100
PIPELINED = 8
IDLE_S = 60
LEFT = "499"
"""As nginx counts it: the client went away before its request was whole."""
_OK = b"HTTP/1.1 200 OK\r\n%b%b%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
ABORT = "semcached.abort"
"""In a scope's extensions: what ends the connection, so that a broken answer doesn't look whole."""

_REASONS = {400: "Bad request", 408: "Request timeout", 431: "Request header fields too large"}
_DETAILS = {
    400: "this is no HTTP request that can be read in one way only",
    408: "the request did not come in whole in time",
    431: f"more than {HEADERS} headers, or {HEAD_BYTES} bytes of them",
}


class LimitedProtocol(HttpToolsProtocol):
    """One timer for the part of a request that is being read, one for an answer that isn't."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self._running: RequestResponseCycle | None = None  # `cycle` is the newest, perhaps still in the queue
        self._in_head, self._begun, self._ended = True, False, False
        self._head_bytes = self._fields = 0
        self._fruitless = 0  # bytes since the last piece of a body: an endless trailer, or chunk extension
        self._progress = False
        self._part = 0  # bytes of a body since its timer was set
        self._parsing = False
        self._within: float | None = None  # s, what the timer is to be set to after parsing
        self._reset = False  # whether it is
        state = getattr(self.app, "state", None)  # an application of Litestar's has one
        self._direct: Direct | None = getattr(state, "direct", None)
        self._taken: Taken | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn's
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._read_within(HEAD_S)

    def shutdown(self) -> None:
        """See uvicorn: it is ending, and waits for the requests in flight."""
        end_waits()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._read_within(None)
        self.resume_writing()
        self.pipeline.clear()
        if self._taken is not None:
            self._taken.end(LEFT)
            self._taken = None
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells only the newest
            self._running.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._watch_writing()

    def _watch_writing(self, before: float = float("inf")) -> None:
        """Abort where nothing more was read in the meantime."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._write_timer = self.loop.call_later(WRITE_S, self._watch_writing, left)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._ended:
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            if not self._head_bytes:
                self._read_within(HEAD_S)
            self._head_bytes += len(data)
        self._progress = False
        self._parsing = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the parser stops before the body, which would come as a request
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError:
            self._refuse(431 if self._fields > HEADERS else 400)
            return
        finally:
            self._parsing = False
            if self._reset:
                self._reset = False
                self._read_within(self._within)
        self._fruitless = 0 if self._progress or self._in_head else self._fruitless + len(data)
        if self._fruitless > HEAD_BYTES or (self._in_head and self._head_bytes > HEAD_BYTES):
            self._refuse(431)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers of a chunked body come here, too, and are no headers (RFC 9110, 6.5.1)."""
        self._fields += 1
        if self._fields > HEADERS:
            raise ValueError("too many headers")  # ends the parsing
        if self._in_head:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        """See httptools. White space before a request doesn't come here."""
        self._begun = True
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        """See httptools."""
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")  # ends the parsing
        self._in_head, self._progress, self._part = False, True, 0
        self._read_within(BODY_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._progress = True
        self._part += len(body)
        if self._part >= PART:
            self._part = 0
            self._read_within(BODY_S)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._in_head, self._begun = True, False
        self._head_bytes = self._fields = 0
        # Where the answer came before the end of the body, uvicorn's own timer is off by now.
        self._read_within(IDLE_S if self.cycle.response_complete else None)
        super().on_message_complete()
        if self._taken is not None:
            taken, self._taken = self._taken, None
            self._answer_directly(self.cycle, taken)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.more_body and not cycle.waiting_for_100_continue and self._direct is not None:
            self._taken = self._direct.take(cycle.scope)  # until its body is whole
        if self._taken is None:
            super()._start_asgi_task(cycle, app)

    def _answer_directly(self, cycle: RequestResponseCycle, taken: "Taken") -> None:
        """The body is whole."""
        answer = taken.answer(bytes(cycle.body))
        if answer is None:
            self._hand_over(cycle, taken)
        elif isinstance(answer, Coroutine) or self.flow.write_paused:
            task = self.loop.create_task(self._answered(answer, cycle, taken))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
        else:  # when all that has come was read: who is woken by each answer alone costs us a turn each
            self.loop.call_soon(self._write, answer, cycle, taken)

    async def _answered(
        self, answer: "Answered | Coming", cycle: RequestResponseCycle, taken: "Taken"
    ) -> None:
        answered = await answer if isinstance(answer, Coroutine) else answer
        if answered is None:
            self._hand_over(cycle, taken)
            return
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        self._write(answered, cycle, taken)

    def _hand_over(self, cycle: RequestResponseCycle, taken: "Taken") -> None:
        """To the framework, which reads the body once more."""
        taken.end(None)
        super()._start_asgi_task(cycle, self.app)

    def _write(self, answer: "Answered", cycle: RequestResponseCycle, taken: "Taken") -> None:
        """As `RequestResponseCycle.send` does, in one piece."""
        taken.end("200")
        if cycle.disconnected:
            return
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        head = _OK % (_lines(*cycle.default_headers), answer.headers, close, len(answer.body))
        self.transport.write(head + answer.body)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _read_within(self, seconds: float | None) -> None:
        """How long until `_too_slow`. What comes in one piece is parsed without a timer in between."""
        if self._parsing:
            self._within, self._reset = seconds, True
            return
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._read_timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._read_timer = None
        if self.flow.read_paused:  # it is we who don't read on
            self._read_within(BODY_S)
        elif self._begun if self._in_head else not self.cycle.response_started:
            self._refuse(408)
        else:  # nothing came, or it was answered before its end and never came to it
            self._close()

    def _refuse(self, status: int) -> None:
        """Answer in place of the app, and end the connection; a handler that waits for the body is told.

        Where earlier requests are being answered, the answer to the last of them is the connection's last.
        """
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        REQUESTS.labels("unread", str(status)).inc()
        self._read_within(None)
        running = self._running
        waits_for_it = running is self.cycle and not self._in_head
        if running is None or running.response_complete or (waits_for_it and not running.response_started):
            self._answer(status)
            self._close()
        else:
            if self.pipeline and self.pipeline[0][0].more_body:  # the newest, which is the one refused
                self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else running
            last.keep_alive = False

    def _answer(self, status: int) -> None:
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

    def _close(self) -> None:
        """After what was written has gone out; a refusal alone gets a while for that, an answer its timer."""
        if self._write_timer is None:
            self.loop.call_later(FLUSH_S, self.transport.abort)
        self.transport.close()


@lru_cache(maxsize=1)
def _lines(*headers: tuple[bytes, bytes]) -> bytes:
    """The server's own headers; they change each second."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


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
        proxy_headers=False,  # nobody asks who the client is
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=30,
    )
