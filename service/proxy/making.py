"""One call of a provider whose answer may be kept: handed on as it comes, kept before its end is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import NamedTuple

import msgspec

from service.cache.accounting import Accounting
from service.cache.dialects.dialect import Body, Dialect, Gathering
from service.cache.dialects.events import Event, Events
from service.cache.digests import TenantKeys
from service.cache.metrics import count_store
from service.cache.ports import Work
from service.cache.question import Question
from service.cache.store import Store
from service.errors import InvalidInputError, SemcachedError, StoreUnavailableError, UpstreamError
from service.model import LookupRequest, Refused, Stored, Usage
from service.providers.upstream import Answer, Sent
from service.proxy.account import returned
from service.proxy.call import LARGEST, Call, store_request, with_usage
from service.proxy.flight import Flight, Head, Piece
from service.proxy.prompt_cache import saved_nano_usd, with_marks

HOLD_S = 0.5
"""How long the end of an answer waits for its store, so that who has read it finds it kept."""
DRAIN_S = 1.0
"""How long a provider may take to end a stream whose last event came: else its connection is closed."""
OK = 200
STREAM = "text/event-stream"

Tell = Callable[[], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


class Missed(NamedTuple):
    """A lookup that brought nothing."""

    request: LookupRequest
    question: Question
    keys: TenantKeys
    work: Work  # what looking it up took
    label: str  # the tenant, as metrics may call him


class Making:
    """The call, and what becomes of its answer."""

    def __init__(
        self, call: Call, missed: Missed, lookup_id: str, *, store: Store, accounting: Accounting
    ) -> None:
        if call.dialect is None:
            raise TypeError("what is only passed on isn't kept")
        self._call, self._missed, self._lookup_id = call, missed, lookup_id
        self._store, self._accounting = store, accounting
        self._dialect: Dialect = call.dialect
        self._begun = perf_counter()
        self.kept = False

    def sent(self) -> Sent:
        """The request as it came, but for the usage that we want to know, and marks that the policy wants."""
        policy = self._missed.question.asked.policy
        body = with_marks(self._call) if policy.prompt_cache else self._call.body
        return self._call.sent(with_usage(body) if self._call.asks_usage else body)

    async def relay(self, answer: Answer, flight: Flight) -> None:
        """Hand the answer on, and keep it before its end is told."""
        if answer.status != OK or answer.is_coded:
            await handed_on(answer, flight)
        elif answer.media_type == STREAM:
            flight.begin(head_of(answer))
            await self._stream(answer, flight)
        else:
            await self._document(answer, flight)

    async def _document(self, answer: Answer, flight: Flight) -> None:
        pieces, body = answer.pieces(), bytearray()
        async for piece in pieces:
            body += piece
            if len(body) > LARGEST:
                flight.begin(head_of(answer))
                await _pour(bytes(body), pieces, flight)
                return

        async def tell() -> None:
            flight.begin(head_of(answer))
            await flight.write(Piece(bytes(body)))

        await self._finish(decoded(bytes(body)), bytes(body), flight, tell)

    async def _stream(self, answer: Answer, flight: Flight) -> None:
        gathering, events, pieces = self._dialect.gathering(), Events(), answer.pieces()
        async for piece in pieces:
            last = await self._events(list(events.add(piece)), gathering, flight)
            if last is not None:
                await self._last(last, gathering, flight)
                await _drained(pieces)
                return
            if len(events) > LARGEST:  # an event that would not be kept is not waited for either
                await _pour(events.rest, pieces, flight)
                return
        await _pieces([Piece(events.rest)], flight)
        if not answer.is_framed:
            raise UpstreamError("the provider broke its stream off")

    async def _events(self, events: list[Event], gathering: Gathering, flight: Flight) -> Event | None:
        """Hand them on, but for the terminal one."""
        for at, event in enumerate(events):
            gathering.add(event.name, event.data)
            if gathering.ended:
                await self._write(events[:at], flight)
                return event
        await self._write(events, flight)
        return None

    async def _last(self, event: Event, gathering: Gathering, flight: Flight) -> None:
        answer = gathering.answer()

        async def tell() -> None:
            await self._write([event], flight)

        await self._finish(answer, b"" if answer is None else _encode(answer), flight, tell)

    async def _finish(self, answer: Body | None, raw: bytes, flight: Flight, tell: Tell) -> None:
        """The end goes out when the answer is kept; nobody waits long for that."""
        if answer is not None:
            self._count(answer)
        if answer is None or not self._dialect.is_whole(answer) or len(raw) > LARGEST:
            await tell()
            flight.close()
            return
        flight.complete()
        storing = asyncio.create_task(self._stored(raw, answer))
        try:
            await asyncio.wait({storing}, timeout=HOLD_S)
            await tell()
            flight.close(raw)
            self.kept = await storing
        finally:
            storing.cancel()

    async def _stored(self, raw: bytes, answer: Body) -> bool:
        """Whether it is kept now; a cache that can't take it is no reason to fail."""
        keys, agent_type, work = self._missed.keys, self._call.options.agent_type, Work()
        outcome: Stored | Refused | SemcachedError
        try:
            request = store_request(self._call, raw, self._usage(answer), self._lookup_id)
            accepted = self._store.accept(request, keys)
            if isinstance(accepted, Refused):
                outcome = accepted
            else:
                (outcome,) = await self._store.answer([accepted], keys, work)
        except (StoreUnavailableError, InvalidInputError) as error:
            outcome = error
        count_store(outcome, self._missed.label)
        self._accounting.stored(keys, agent_type, outcome)
        self._accounting.spent(keys, agent_type, work)
        return isinstance(outcome, Stored)

    def _count(self, answer: Body) -> None:
        """What the provider's own prompt cache saved."""
        spent = self._dialect.spent(answer)
        if spent is not None and (spent.cached or spent.written):
            nano_usd = saved_nano_usd(answer, self._missed.request.model)
            agent_type = self._call.options.agent_type
            self._accounting.cached_upstream(self._missed.keys, agent_type, spent.cached, nano_usd)

    def _usage(self, answer: Body) -> Usage:
        spent, ms = self._dialect.spent(answer), (perf_counter() - self._begun) * 1000
        if spent is None:
            return Usage(latency_ms=ms)
        return Usage(input_tokens=spent.input, output_tokens=spent.output, latency_ms=ms)

    async def _write(self, events: list[Event], flight: Flight) -> None:
        """Those that come together go on together, but for a chunk that not all want."""
        raw = b""
        for event in events:
            if self._dialect.path.endswith("/completions") and _is_usage(event.data):
                await _pieces([Piece(raw), Piece(event.raw, unasked=True)], flight)
                raw = b""
            else:
                raw += event.raw
        await _pieces([Piece(raw)], flight)


async def handed_on(answer: Answer, flight: Flight) -> None:
    """As it comes, and that is all."""
    flight.begin(head_of(answer))
    await _pour(b"", answer.pieces(), flight)


def head_of(answer: Answer) -> Head:
    """What clients get of it."""
    return Head(answer.status, returned(answer.headers))


def decoded(raw: bytes) -> Body | None:
    """A JSON object; None: it is none."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


async def _pour(first: bytes, pieces: AsyncIterator[bytes], flight: Flight) -> None:
    flight.shared = flight.shared and not first  # else it is too long for others to wait for
    await _pieces([Piece(first)], flight)
    async for piece in pieces:
        await flight.write(Piece(piece))


async def _pieces(pieces: list[Piece], flight: Flight) -> None:
    for piece in pieces:
        if piece.raw:
            await flight.write(piece)


async def _drained(pieces: AsyncIterator[bytes]) -> None:
    """To the end of the body, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in pieces:
                pass


def _is_usage(data: bytes) -> bool:
    """Whether a chunk has the usage and nothing else."""
    if b'"usage"' not in data:
        return False
    chunk = decoded(data)
    return chunk is not None and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)
