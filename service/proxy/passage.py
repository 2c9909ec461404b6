"""The work of a flight: what another process makes of the same, else the provider's answer, which is kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.cache.accounting import Accounting
from service.cache.dialects.dialect import Body
from service.cache.leases import Leases
from service.cache.lookup import Lookup
from service.cache.question import Question
from service.cache.store import Store
from service.errors import UpstreamError
from service.model import Hit, Miss, Usage
from service.providers.upstream import Answer, Sent, Upstream
from service.proxy.call import Call
from service.proxy.flight import Flight, Flights
from service.proxy.making import Making, Missed, decoded, handed_on
from service.settings import Settings
from service.telemetry import UPSTREAM

WAIT_S = 60.0
"""How long a request waits for another process' answer to the same."""

LookedUp = Callable[[Question, Hit | Miss], None]


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

    async def pass_on(self, call: Call, flight: Flight) -> None:
        """Call the provider, and nothing else."""
        async with self._called(call, call.sent()) as answer:
            await handed_on(answer, flight)

    async def make(self, call: Call, missed: Missed, flight: Flight, looked_up: LookedUp) -> None:
        """The answer to what the cache has none for; `looked_up` is told what became of the lookup."""
        question, found = await self.lookup.lead(
            missed.question, missed.request, missed.keys, WAIT_S, missed.work
        )
        looked_up(question, found)
        if isinstance(found, Hit) and told(call, bytes(found.response)) is not None:
            flight.hit = found
            flight.close(bytes(found.response))
        else:
            await self.make_anew(call, missed, flight, found)

    async def make_anew(self, call: Call, missed: Missed, flight: Flight, found: Hit | Miss) -> None:
        """The answer, whatever is kept; a lease is given back where nothing was kept in its time."""
        making = Making(call, missed, found.lookup_id, store=self.store, accounting=self.accounting)
        left = False
        try:
            async with self._called(call, making.sent()) as answer:
                await making.relay(answer, flight)
        except asyncio.CancelledError:
            left = True
            raise
        finally:
            if isinstance(found, Miss) and found.lease and not making.kept:
                name = missed.question.query.identities[0].entry_id
                # What the provider said isn't kept, nor would be what it says next: nobody waits in a row.
                await self.leases.release(missed.keys, name, found.lookup_id, refused=not left)

    def saved(self, call: Call, missed: Missed, answer: bytes | None) -> None:
        """Count an answer that took no call of its own; None: it came along, and isn't known whole."""
        body = None if answer is None else decoded(answer)
        spent = None if body is None or call.dialect is None else call.dialect.spent(body)
        usage = None if spent is None else Usage(input_tokens=spent.input, output_tokens=spent.output)
        self.accounting.shared(missed.keys, call.options.agent_type, usage, missed.request.model)

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


def told(call: Call, answer: bytes) -> Body | None:
    """A kept answer, decoded; None: it can't be told again, since another version kept it."""
    body = decoded(answer)
    return body if body is not None and call.dialect is not None and call.dialect.is_whole(body) else None
