"""The work of a flight: what another process makes of the same, else the provider's answer, which is kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

import msgspec

from service.cache.accounting import Accounting
from service.cache.dialects.dialect import Body, Dialect
from service.cache.dialects.events import Event, Events
from service.cache.digests import TenantKeys
from service.cache.leases import Leases
from service.cache.lookup import Lookup
from service.cache.ports import Work
from service.cache.question import Question
from service.cache.store import Store
from service.errors import InvalidInputError, SemcachedError, StoreUnavailableError, UpstreamError
from service.model import Hit, LookupRequest, Miss, Refused, Stored, Usage
from service.providers.upstream import Answer, Sent, Upstream
from service.proxy.account import returned
from service.proxy.call import LARGEST, Call, store_request, with_usage
from service.proxy.flight import Flight, Flights, Head, Piece
from service.proxy.prompt_cache import saved_nano_usd, with_marks
from service.settings import Settings
from service.telemetry import UPSTREAM

WAIT_S = 60.0
"""How long a request waits for another process' answer to the same."""
HOLD_S = 0.5
"""How long the end of an answer waits for its store, so that who has read it finds it kept."""
OK = 200
STREAM = "text/event-stream"

_encode = msgspec.json.Encoder().encode


class Counts(NamedTuple):
    """How a store is counted."""

    accounting: Accounting
    tenant: str  # as metrics may call it


@dataclass(frozen=True)
class Passage:
    """What calls need."""

    settings: Settings
    upstream: Upstream
    lookup: Lookup
    store: Store
    leases: Leases
    accounting: Accounting
    flights: Flights = field(default_factory=Flights)

    def saved(self, call: Call, missed: "Missed", answer: bytes | None) -> None:
        """Count an answer that took no call of its own; None: it came along, and isn't known whole."""
        decoded = None if answer is None else _decoded(answer)
        spent = None if decoded is None or call.dialect is None else call.dialect.spent(decoded)
        usage = None if spent is None else Usage(input_tokens=spent.input, output_tokens=spent.output)
        self.accounting.shared(missed.keys, call.options.agent_type, usage, missed.request.model)

    async def pass_on(self, call: Call, flight: Flight) -> None:
        """Call the provider, and nothing else."""
        async with self._called(call, call.sent()) as answer:
            await _relay(answer, flight)

    @asynccontextmanager
    async def _called(self, call: Call, request: Sent) -> AsyncIterator[Answer]:
        status = "error"
        try:
            async with self.upstream.sent(request) as answer:
                status = str(answer.status)
                yield answer
        except UpstreamError:
            status = "error"
            raise
        finally:
            UPSTREAM.labels(call.account.provider, status).inc()

    async def make(
        self, call: Call, missed: "Missed", flight: Flight, looked_up: Callable[[Question, Hit | Miss], None]
    ) -> None:
        """The answer to what the cache has none for; `looked_up` is told what became of the lookup."""
        question, found = await self.lookup.lead(
            missed.question, missed.request, missed.keys, WAIT_S, missed.work
        )
        looked_up(question, found)
        if isinstance(found, Hit) and told(call, bytes(found.response)) is not None:
            flight.hit, flight.answer = found, bytes(found.response)
            return
        making = Making(self, call, missed, found.lookup_id)
        try:
            async with self._called(call, making.sent()) as answer:
                await making.relay(answer, flight)
        finally:
            if isinstance(found, Miss) and found.lease and not making.kept:
                name = missed.question.query.identities[0].entry_id
                await self.leases.release(missed.keys, name, found.lookup_id, refused=False)


class Missed(NamedTuple):
    """A lookup that brought nothing."""

    request: LookupRequest
    question: Question
    keys: TenantKeys
    work: Work  # what looking it up took


def told(call: Call, answer: bytes) -> Body | None:
    """A kept answer, decoded; None: it can't be told again, since another version kept it."""
    body = _decoded(answer)
    return body if body is not None and call.dialect is not None and call.dialect.is_whole(body) else None


class Making:
    """One call of a provider whose answer may be kept."""

    def __init__(self, passage: Passage, call: Call, missed: Missed, lookup_id: str) -> None:
        if call.dialect is None:
            raise TypeError("what is only passed on isn't kept")
        self._passage, self._call, self._missed = passage, call, missed
        self._dialect: Dialect = call.dialect
        self._lookup_id = lookup_id
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
            await _relay(answer, flight)
        elif answer.media_type == STREAM:
            await self._stream(answer, flight)
        else:
            await self._document(answer, flight)

    async def _document(self, answer: Answer, flight: Flight) -> None:
        pieces = answer.pieces()
        body = bytearray()
        async for piece in pieces:
            body += piece
            if len(body) > LARGEST:
                flight.shared = False
                flight.begin(Head(answer.status, returned(answer.headers)))
                await flight.write(Piece(bytes(body)))
                await _pour(pieces, flight)
                return
        whole = bytes(body)
        decoded = _decoded(whole)
        self._count(decoded)

        async def tell() -> None:
            flight.begin(Head(answer.status, returned(answer.headers)))
            await flight.write(Piece(whole))

        if decoded is None or not self._dialect.is_whole(decoded):
            await tell()
        else:
            await self._keep(whole, decoded, flight, tell)

    async def _stream(self, answer: Answer, flight: Flight) -> None:
        flight.begin(Head(answer.status, returned(answer.headers)))
        gathering, events, kept = self._dialect.gathering(), Events(), False
        async for piece in answer.pieces():
            passing: list[Event] = []
            for event in events.add(piece):
                gathering.add(event.name, event.data)
                if gathering.ended and not kept:
                    kept = True
                    await _write(passing, flight, self._dialect)
                    passing = []
                    await self._end(gathering.answer(), event, flight)
                else:
                    passing.append(event)
            await _write(passing, flight, self._dialect)
        if events.rest:
            await flight.write(Piece(events.rest))
        if not gathering.ended and not answer.is_framed:
            raise UpstreamError("the provider broke its stream off")

    async def _end(self, whole: Body | None, last: Event, flight: Flight) -> None:
        """The terminal event goes out when its answer is kept."""
        self._count(whole)

        async def tell() -> None:
            await _write([last], flight, self._dialect)

        if whole is None or not self._dialect.is_whole(whole):
            await tell()
            return
        await self._keep(_encode(whole), whole, flight, tell)

    async def _keep(
        self, raw: bytes, decoded: Body, flight: Flight, tell: Callable[[], Awaitable[None]]
    ) -> None:
        flight.answer = raw
        storing = asyncio.create_task(self._stored(raw, decoded))
        try:
            await asyncio.wait({storing}, timeout=HOLD_S)
            await tell()
            self.kept = await storing
        finally:
            storing.cancel()

    async def _stored(self, raw: bytes, decoded: Body) -> bool:
        """Whether it is kept now; a cache that can't take it is no reason to fail."""
        if len(raw) > LARGEST:
            return False
        passage, keys, agent_type = self._passage, self._missed.keys, self._call.options.agent_type
        outcome: Stored | Refused | SemcachedError
        try:
            request = store_request(self._call, raw, self._usage(decoded), self._lookup_id)
            accepted = passage.store.accept(request, keys)
            if isinstance(accepted, Refused):
                outcome = accepted
            else:
                (outcome,) = await passage.store.answer([accepted], keys)
        except (StoreUnavailableError, InvalidInputError) as error:
            outcome = error
        passage.accounting.stored(keys, agent_type, outcome)
        return isinstance(outcome, Stored)

    def _count(self, decoded: Body | None) -> None:
        spent = None if decoded is None else self._dialect.spent(decoded)
        if decoded is not None and spent is not None and (spent.cached or spent.written):
            nano_usd = saved_nano_usd(decoded, self._missed.request.model)
            agent_type = self._call.options.agent_type
            self._passage.accounting.cached_upstream(self._missed.keys, agent_type, spent.cached, nano_usd)

    def _usage(self, decoded: Body) -> Usage:
        spent, ms = self._dialect.spent(decoded), (perf_counter() - self._begun) * 1000
        if spent is None:
            return Usage(latency_ms=ms)
        return Usage(input_tokens=spent.input, output_tokens=spent.output, latency_ms=ms)


async def _relay(answer: Answer, flight: Flight) -> None:
    flight.begin(Head(answer.status, returned(answer.headers)))
    await _pour(answer.pieces(), flight)


async def _pour(pieces: AsyncIterator[bytes], flight: Flight) -> None:
    async for piece in pieces:
        await flight.write(Piece(piece))


async def _write(events: list[Event], flight: Flight, dialect: Dialect) -> None:
    """Those that come together go on together, but for a chunk that not all want."""
    raw = b""
    for event in events:
        if dialect.path.endswith("/completions") and _is_usage(event.data):
            if raw:
                await flight.write(Piece(raw))
                raw = b""
            await flight.write(Piece(event.raw, unasked=True))
        else:
            raw += event.raw
    if raw:
        await flight.write(Piece(raw))


def _is_usage(data: bytes) -> bool:
    """Whether a chunk has the usage and nothing else."""
    if b'"usage"' not in data:
        return False
    chunk = _decoded(data)
    return chunk is not None and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)


def _decoded(raw: bytes) -> Body | None:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
