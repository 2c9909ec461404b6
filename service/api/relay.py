"""A provider's answer on its way to one client: along with its call, or told again once it is whole."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from service.api.attending import attended
from service.api.measuring import WAITED
from service.cache.dialects.dialect import Body
from service.errors import ClientLeftError, SemcachedError, UpstreamError
from service.proxy.call import Call
from service.proxy.flight import Flight, Head, Piece

ABORT = "semcached.abort"
"""The server's extension that ends a connection, so that a broken answer doesn't look whole."""
OK = 200
SERVER_ERROR = 500
FORMLESS = frozenset({401, 403, 408, 429})
"""Errors that have nothing to do with whether an answer was to be streamed."""
STREAM, JSON = "text/event-stream", "application/json"

Headers = Mapping[str, str]


def replayed(call: Call, answer: bytes, kept: Body, headers: Headers) -> ASGIResponse:
    """A whole answer, as bytes and decoded, in the form that the client asked for."""
    dialect, reading = call.dialect, call.reading
    if dialect is None:
        raise TypeError("what is only passed on has no replay")
    request_id = "x-request-id" if dialect.provider == "openai" else "request-id"
    told = {request_id: f"req_{secrets.token_hex(12)}", **headers}
    body = dialect.addressed(kept, call.asked or {})
    if reading.streams:
        events = b"".join(dialect.replay(body, usage=reading.usage_wanted))
        return ASGIResponse(body=events, media_type=STREAM, headers=told | {"cache-control": "no-cache"})
    raw = answer if body is kept else msgspec.json.encode(body)
    return ASGIResponse(body=raw, media_type=JSON, headers=told)


def hit_headers(similarity: float, age_s: float) -> dict[str, str]:
    """What tells a client that no provider was asked."""
    return {"X-Cache": "HIT", "X-Cache-Similarity": f"{similarity:.4f}", "Age": str(int(age_s))}


@dataclass(frozen=True)
class Passenger:
    """A client with a flight of its own, or another's."""

    flight: Flight
    place: object  # among its readers
    call: Call
    headers: Headers  # ours
    alone: Callable[[], Flight]  # another call, for an answer that can't be told in this client's form
    joined: Callable[[bytes | None, bool], None] | None = None
    """The flight is another's; this is told the answer, and whether it came without a call of one's own."""


class Relay:
    """The answer, an ASGI application; a client that leaves is noticed at once."""

    def __init__(self, passenger: Passenger) -> None:
        self._one = passenger
        self._shared = False  # whether it was answered without a call of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun = perf_counter()
        try:
            await attended(receive, self._tell(scope, receive, send))
        except ClientLeftError:
            return
        finally:
            if self._one.joined is not None:
                self._one.joined(self._one.flight.answer, self._shared)
            self._one.flight.leave(self._one.place)
            scope["state"][WAITED] = perf_counter() - begun

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        one, flight = self._one, self._one.flight
        if flight.streams != one.call.reading.streams:
            await flight.landed(one.place)
        else:
            await flight.started()
        if flight.head is not None and self._fits(flight, flight.head):
            self._shared = await self._along(flight, one.place, scope, send) and flight.head.status == OK
        elif flight.answer is not None:
            hit = flight.hit
            told = hit_headers(1.0 if hit is None else hit.similarity, 0.0 if hit is None else hit.age_s)
            kept = msgspec.json.decode(flight.answer)
            response = replayed(one.call, flight.answer, kept, {**one.headers, **told})
            await response(scope, receive, send)
            self._shared = True
        else:
            await self._by_itself(scope, send)

    def _fits(self, flight: Flight, head: Head) -> bool:
        """Whether it can be told as it comes: in the form that was asked for, or an error of no form."""
        formless = head.status in FORMLESS or head.status >= SERVER_ERROR
        return flight.streams == self._one.call.reading.streams or (formless and flight.has_all)

    async def _by_itself(self, scope: Scope, send: Send) -> None:
        self._one.flight.leave(self._one.place)
        flight = self._one.alone()
        place = flight.enter()
        try:
            await flight.started()
            await self._along(flight, place, scope, send)
        finally:
            flight.leave(place)

    async def _along(self, flight: Flight, place: object, scope: Scope, send: Send) -> bool:
        """As it comes; whether it came to its end."""
        head = flight.head
        if head is None:
            raise UpstreamError("the provider answered nothing")
        pieces = flight.pieces(place)
        try:
            await send(self._start(head))
            async for piece in pieces:
                await self._send(piece, send)
        except SemcachedError:
            extensions: Any = scope.get("extensions") or {}
            if ABORT not in extensions:
                raise
            extensions[ABORT]["abort"]()
            await asyncio.sleep(0)  # the server notices that the connection is gone
            return False
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    def _start(self, head: Head) -> Any:
        one = self._one
        told = {name.lower(): value for name, value in one.headers.items()}
        if one.joined is not None and head.status == OK:
            told |= {name.lower(): value for name, value in hit_headers(1.0, 0.0).items()}
        kept = [(name, value) for name, value in head.headers if name not in told]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in [*kept, *told.items()]]
        return {"type": "http.response.start", "status": head.status, "headers": raw}

    async def _send(self, piece: Piece, send: Send) -> None:
        if not piece.unasked or self._one.call.reading.usage_wanted:
            await send({"type": "http.response.body", "body": piece.raw, "more_body": True})
