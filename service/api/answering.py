"""A request to a provider's API: from the cache, along with somebody else's call, or by its own."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from service.api.auth import Principal, Role
from service.api.cache import x_cache
from service.api.relay import Passenger, Relay, hit_headers, replayed
from service.api.services import Services
from service.api.wire import is_too_deep
from service.cache.bypass import RULES
from service.cache.dialects.dialect import Body, Dialect, Reading
from service.cache.metrics import count
from service.cache.ports import Work
from service.cache.question import Question
from service.errors import ForbiddenError, InvalidInputError, NotFoundError
from service.model import Hit, Miss, Reason
from service.proxy.account import Provider, account, joined
from service.proxy.call import LARGEST, Call, lookup_request
from service.proxy.flight import Flight
from service.proxy.making import Missed
from service.proxy.options import options
from service.proxy.passage import told
from service.telemetry import SHARED

MANAGED = frozenset(
    {("POST", "/v1/messages/count_tokens"), ("POST", "/v1/responses/input_tokens"), ("GET", "/v1/models")}
)
"""What else clients may call with the settings' key: nothing that tells one tenant of another's."""

HttpRequest = Request[Principal, str | None, Any]

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True)
class Asking:
    """A request, and whom it is answered for."""

    call: Call
    services: Services
    principal: Principal

    def count(self, question: Question, answer: Hit | Miss, work: Work) -> None:
        """A lookup."""
        keys = self.services.keyring.of(self.principal.tenant)
        self.services.accounting.looked_up(keys, [question], [answer], work)
        count(answer, self.services.label(self.principal.tenant))


async def answered(request: HttpRequest, services: Services, dialect: Dialect) -> ASGIApp:
    """From the cache, else by the provider."""
    body = await request.body()
    call, asked = _call(request, services, dialect.provider, body), _decoded(body)
    reading = _reading(dialect, asked, joined(call.account.headers))
    asking = Asking(call._replace(dialect=dialect, asked=asked, reading=reading), services, request.user)
    missed = _missed(asking)
    if missed is None:
        return _relay(asking, _alone(asking), {"X-Cache": "BYPASS"})
    (answer,) = await services.lookup.answer([missed.question], missed.keys, missed.work)
    if isinstance(answer, Hit):
        return _told(asking, answer, missed)
    return _made(asking, answer, missed)


async def passed_by(request: HttpRequest, services: Services, provider: Provider) -> ASGIApp:
    """No business of the cache's.

    Raises:
        NotFoundError: the path is none.
        ForbiddenError: the settings' key doesn't open it.
    """
    call = _call(request, services, provider, await request.body())
    path = call.path.partition("?")[0]
    if ".." in path or "%2e" in path.lower():
        raise NotFoundError("there is no such path")
    if not (call.account.own or (call.method, path) in MANAGED or path.startswith("/v1/models/")):
        raise ForbiddenError("this call needs a provider's key of your own beside X-Semcached-Key")
    asking = Asking(call, services, request.user)
    return _relay(asking, _alone(asking), {"X-Cache": "BYPASS"})


def _call(request: HttpRequest, services: Services, provider: Provider, body: bytes) -> Call:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
    query = request.scope["query_string"].decode("latin-1")
    return Call(
        method=request.method,
        path=request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        body=body,
        account=account(headers, request.auth, provider, services.passage.settings),
        options=options(headers),
        reading=Reading(),
    )


def _decoded(body: bytes) -> Body:
    """Nothing of a body that can't be read, or is too large to be kept."""
    try:
        asked = {} if len(body) > LARGEST or is_too_deep(body) else msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _reading(dialect: Dialect, asked: Body, headers: Mapping[str, str]) -> Reading:
    """What can't be read, or may not be kept, is passed on."""
    said = headers.get("cache-control", "").lower()
    if not asked or "no-store" in said or "no-cache" in said:
        return Reading(bypass="cache_control" if asked else "unreadable")
    return dialect.read(asked, headers)


def _missed(asking: Asking) -> Missed | None:
    """The question to the cache; None: there is none. What is wrong with it, the provider says better."""
    if asking.call.reading.bypass is not None:
        return None
    services, tenant = asking.services, asking.principal.tenant
    keys = services.keyring.of(tenant)
    try:
        asked = lookup_request(asking.call)
        if asked is None:
            return None
        return Missed(asked, services.lookup.question(asked, keys), keys, Work(), services.label(tenant))
    except (msgspec.ValidationError, InvalidInputError):
        return None


def _told(asking: Asking, hit: Hit, missed: Missed) -> ASGIApp:
    """A hit."""
    call, raw = asking.call, bytes(hit.response)
    kept = told(call, raw)
    if kept is None:  # another version kept it, and it can't be told: another answer takes its place
        flight = Flight(streams=call.reading.streams)
        flight.start(asking.services.passage.make_anew(call, missed, flight, hit))
        return _relay(asking, flight, {"X-Cache": "MISS"})
    asking.count(missed.question, hit, missed.work)
    named = {"X-Semcached-Lookup-Id": hit.lookup_id, "X-Semcached-Entry-Id": hit.entry_id}
    return replayed(call, raw, kept, hit_headers(hit.similarity, hit.age_s) | named)


def _made(asking: Asking, miss: Miss, missed: Missed) -> ASGIApp:
    """A miss: with whoever asks the provider the same, or as the first who does."""
    headers = {"X-Cache": x_cache([miss]), "X-Semcached-Lookup-Id": miss.lookup_id, **_reason(miss)}
    passage = asking.services.passage
    if asking.principal.role < Role.writer or (miss.reason is Reason.POLICY and miss.rule in RULES):
        asking.count(missed.question, miss, missed.work)
        return _relay(asking, _alone(asking), headers)
    name = _name(asking, missed)
    flight = passage.flights.join(name)
    if flight is not None:
        return _relay(asking, flight, headers, _ended(asking, miss, missed))

    async def make(flight: Flight) -> None:
        await passage.make(
            asking.call, missed, flight, lambda question, answer: asking.count(question, answer, missed.work)
        )

    flight = passage.flights.start(name, streams=asking.call.reading.streams, work=make)
    return _relay(asking, flight, headers)


def _reason(miss: Miss) -> dict[str, str]:
    rule = f"; {miss.rule}" if isinstance(miss.rule, str) and miss.rule.isascii() else ""
    return {"X-Semcached-Reason": miss.reason.value + rule}


def _name(asking: Asking, missed: Missed) -> str:
    """Of a flight: equal for requests of one entry that are equal in everything but whether they stream.

    What doesn't change an answer can change an error; and some APIs repeat it, as the user's name.
    """
    asked = asking.call.asked or {}
    form = {"stream"}
    if asked.get("stream") is True and isinstance(asked.get("stream_options"), dict | None):
        form.add("stream_options")  # else it may be what the provider complains of
    same = {name: one for name, one in asked.items() if name not in form}
    return missed.question.query.identities[0].entry_id + hashlib.sha256(_encode(same)).hexdigest()


def _ended(asking: Asking, miss: Miss, missed: Missed) -> Callable[[bytes | None, bool], None]:
    """Counts what became of somebody who joined."""

    def ended(answer: bytes | None, shared: bool) -> None:  # noqa: FBT001 - what became of it
        if shared:
            SHARED.labels(asking.call.account.provider).inc()
            asking.services.passage.saved(asking.call, missed, answer)
        else:
            asking.count(missed.question, miss, missed.work)

    return ended


def _alone(asking: Asking) -> Flight:
    """A call that nobody shares, and of which nothing is kept."""
    flight = Flight(streams=asking.call.reading.streams)
    flight.start(asking.services.passage.pass_on(asking.call, flight))
    return flight


def _relay(
    asking: Asking,
    flight: Flight,
    headers: Mapping[str, str],
    joined: Callable[[bytes | None, bool], None] | None = None,
) -> Relay:
    """`joined`: the flight is another's; told whether it brought an answer."""
    passenger = Passenger(
        flight=flight,
        place=flight.enter(),
        call=asking.call,
        headers=headers,
        joined=joined,
        alone=lambda: _alone(asking),
    )
    return Relay(passenger)
