"""/v1/chat/completions, /v1/responses, /v1/messages: the providers' APIs, from the cache or passed on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import HttpMethod, Request, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.types import ASGIApp
from msgspec import Struct

from service.api.anthropic_errors import AnthropicFailure, anthropic_handle
from service.api.auth import Principal, Role
from service.api.authentication import needs
from service.api.cache import count, x_cache
from service.api.openai_errors import OpenAIFailure, openai_handle
from service.api.relay import Passenger, Relay, hit_headers, replayed
from service.api.services import Services
from service.api.wire import documented, is_too_deep
from service.cache.bypass import RULES
from service.cache.dialects.chat import Chat
from service.cache.dialects.dialect import Body, Dialect, Reading
from service.cache.dialects.messages import Messages
from service.cache.dialects.responses import Responses
from service.cache.ports import Work
from service.cache.question import Question
from service.errors import ForbiddenError, InvalidInputError, NotFoundError
from service.model import Hit, Miss, Reason
from service.proxy.account import Provider, account
from service.proxy.call import LARGEST, Call, lookup_request
from service.proxy.flight import Flight
from service.proxy.options import AGENT_TYPE, options
from service.proxy.passage import Missed, told
from service.telemetry import SHARED

LARGEST_BODY = 64 * 2**20
"""What providers take: Anthropic 32 MB, OpenAI some 50 MB of images."""
CHAT, RESPONSES, MESSAGES = Chat(), Responses(), Messages()
MANAGED = frozenset({"/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/models"})
"""What else clients may call with the settings' key: nothing that tells one tenant of another's."""

QUESTION = {"role": "user", "content": "How do I reset my password?"}
HEADERS = [
    Parameter(name, "header", description=description, schema=Schema(type=OpenAPIType.STRING))
    for name, description in (
        ("X-Semcached-Key", "Your key, where `Authorization` has the provider's."),
        ("X-Semcached-Agent-Type", f"Which kind of agent asks; else `{AGENT_TYPE}`."),
        ("X-Semcached-Attributes", "As `user=ann&plan=pro`: must be equal for an answer to be shared."),
        ("X-Semcached-Threshold", "Replaces the policy's threshold, -1 to 1."),
        ("X-Semcached-Tiers", "`exact`, `semantic`, or both with a comma between."),
        ("X-Semcached-TTL", "Seconds, or `none`."),
        ("X-Semcached-Sources", "Documents the answer is built from, with commas between."),
        ("X-Semcached-Tags", "Names to find the entry by, with commas between."),
        ("Cache-Control", "`no-store` or `no-cache`: passed on, neither looked up nor kept."),
    )
]

HttpRequest = Request[Principal, str | None, Any]


class Asked(Struct):
    """A request as the provider's API has it; whatever is in it, it is passed on byte for byte."""


class Told(Struct):
    """The provider's answer, or a kept one; `X-Cache` says which. With `stream`, as server-sent events."""


@post(
    "/v1/chat/completions",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=LARGEST_BODY,
    exception_handlers={Exception: openai_handle},
    operation_class=documented(
        Asked,
        {200: Told},
        {"model": "gpt-5.1", "messages": [QUESTION]},
        HEADERS,
        failure=OpenAIFailure,
    ),
)
async def chat_completions(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """OpenAI's chat completions, answered from the cache or passed on."""
    return await _answered(request, services, CHAT)


@post(
    "/v1/responses",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=LARGEST_BODY,
    exception_handlers={Exception: openai_handle},
    operation_class=documented(
        Asked,
        {200: Told},
        {"model": "gpt-5.1", "input": QUESTION["content"]},
        HEADERS,
        failure=OpenAIFailure,
    ),
)
async def responses(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """OpenAI's responses, answered from the cache or passed on."""
    return await _answered(request, services, RESPONSES)


@post(
    "/v1/messages",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=LARGEST_BODY,
    exception_handlers={Exception: anthropic_handle},
    operation_class=documented(
        Asked,
        {200: Told},
        {"model": "claude-sonnet-5", "max_tokens": 500, "messages": [QUESTION]},
        HEADERS,
        failure=AnthropicFailure,
    ),
)
async def messages(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """Anthropic's messages, answered from the cache or passed on."""
    return await _answered(request, services, MESSAGES)


METHODS = [HttpMethod.GET, HttpMethod.POST, HttpMethod.DELETE]


@route(
    ["/v1/chat/completions/{rest:path}", "/v1/responses/{rest:path}"],
    http_method=METHODS,
    include_in_schema=False,
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=LARGEST_BODY,
    exception_handlers={Exception: openai_handle},
)
async def openai_rest(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """What else there is below OpenAI's calls, passed on."""
    return await _passed_by(request, services, "openai")


@route(
    ["/v1/messages/{rest:path}"],
    http_method=METHODS,
    include_in_schema=False,
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=LARGEST_BODY,
    exception_handlers={Exception: anthropic_handle},
)
async def anthropic_rest(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """What else there is below Anthropic's messages, as `count_tokens`, passed on."""
    return await _passed_by(request, services, "anthropic")


@route(
    ["/v1/models", "/v1/models/{rest:path}", "/v1/chat/completions"],
    http_method=[HttpMethod.GET],
    include_in_schema=False,
    status_code=200,
    guards=[needs(Role.reader)],
    exception_handlers={Exception: openai_handle},
)
async def models(request: HttpRequest, services: NamedDependency[Services]) -> ASGIApp:
    """The models of the provider whose SDK asks, passed on."""
    return await _passed_by(
        request, services, "anthropic" if "anthropic-version" in request.headers else "openai"
    )


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


async def _answered(request: HttpRequest, services: Services, dialect: Dialect) -> ASGIApp:
    body = await request.body()
    call = _call(request, services, dialect.provider, body)
    asked = _decoded(body)
    reading = _reading(dialect, asked, request.headers)
    asking = Asking(call._replace(dialect=dialect, asked=asked, reading=reading), services, request.user)
    missed = _missed(asking)
    if missed is None:
        return _relay(asking, _alone(asking), {"X-Cache": "BYPASS"})
    (answer,) = await services.lookup.answer([missed.question], missed.keys, missed.work)
    if isinstance(answer, Hit):
        asking.count(missed.question, answer, missed.work)
        return _told(asking, answer)
    return _made(asking, answer, missed)


async def _passed_by(request: HttpRequest, services: Services, provider: Provider) -> ASGIApp:
    """No business of the cache's."""
    call = _call(request, services, provider, await request.body())
    path = call.path.partition("?")[0]
    if ".." in path or "%2e" in path.lower():
        raise NotFoundError("there is no such path")
    if not call.account.own and path not in MANAGED and not path.startswith("/v1/models/"):
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
    services = asking.services
    keys = services.keyring.of(asking.principal.tenant)
    try:
        asked = lookup_request(asking.call)
        return None if asked is None else Missed(asked, services.lookup.question(asked, keys), keys, Work())
    except (msgspec.ValidationError, InvalidInputError):
        return None


def _told(asking: Asking, hit: Hit) -> ASGIApp:
    """A hit."""
    call, raw = asking.call, bytes(hit.response)
    kept = told(call, raw)
    if kept is None:
        return _relay(asking, _alone(asking), {"X-Cache": "BYPASS"})
    named = {"X-Semcached-Lookup-Id": hit.lookup_id, "X-Semcached-Entry-Id": hit.entry_id}
    return replayed(call, raw, kept, hit_headers(hit.similarity, hit.age_s) | named)


def _made(asking: Asking, miss: Miss, missed: Missed) -> ASGIApp:
    """A miss: with whoever asks the provider the same, or as the first who does."""
    kept_away = miss.reason is Reason.POLICY and miss.rule in RULES
    headers = {"X-Cache": x_cache([miss]), "X-Semcached-Lookup-Id": miss.lookup_id}
    passage, name = asking.services.passage, missed.question.query.identities[0].entry_id
    alone = kept_away or asking.principal.role < Role.writer
    flight = None if alone else passage.flights.join(name)
    if flight is not None:

        def ended(answer: bytes | None, shared: bool) -> None:  # noqa: FBT001 - what became of it
            if shared:
                SHARED.labels(asking.call.account.provider).inc()
                passage.saved(asking.call, missed, answer)
            else:
                asking.count(missed.question, miss, missed.work)

        return _relay(asking, flight, headers, ended)
    if alone:
        asking.count(missed.question, miss, missed.work)
        return _relay(asking, _alone(asking), headers)

    async def make(flight: Flight) -> None:
        await passage.make(
            asking.call, missed, flight, lambda question, answer: asking.count(question, answer, missed.work)
        )

    return _relay(
        asking, passage.flights.start(name, streams=asking.call.reading.streams, work=make), headers
    )


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
