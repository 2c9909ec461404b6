"""/v1/caches/{cacheId}: the LangCache API. docs/langcache.md has what is ours about it."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter
from litestar.router import Router
from msgspec import Meta, Struct

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest, x_cache
from service.api.langcache_errors import PREFIX, LangCacheProblem, langcache_handle
from service.api.services import Services
from service.api.wire import decoder, documented, encoded
from service.cache import faceted
from service.cache.digests import TenantKeys
from service.cache.faceted import FacetedQuestion, Served
from service.cache.invalidation import Keyspace, Where
from service.cache.langchain import Read, read
from service.cache.metrics import count, count_store
from service.cache.policy import LANGCACHE
from service.cache.ports import Work
from service.cache.scale import cosine_of, similarity_of
from service.errors import InvalidInputError, NotFoundError, SemcachedError, StoreUnavailableError
from service.model import (
    IDENTIFIER_BYTES,
    MAX_TTL_S,
    Hit,
    LookupRequest,
    Miss,
    Reason,
    Record,
    Refused,
    StoreRequest,
    Tier,
)

PROMPT_BYTES = 128 * 1024
VALUE_BYTES = 32 * 1024
MOST_ATTRIBUTES = 32
MOST_RESULTS = 32
MOST_CONTEXT = 256

Prompt = Annotated[str, Meta(min_length=1, description="The question, or LangChain's serialised messages.")]
Attributes = Annotated[
    dict[str, str] | None,
    Meta(description="Names and values. A search finds entries that have these, and perhaps more."),
]
Strategy = Literal["exact", "semantic"]


class SetRequest(Struct, kw_only=True, rename="camel"):
    """A question with its answer."""

    prompt: Prompt
    response: Annotated[str, Meta(description="The answer.")]
    attributes: Attributes = None
    ttl_millis: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TTL_S * 1000)] | None,
        Meta(description="How long it lives; absent: as the policy says."),
    ] = None


class SetResponse(Struct, frozen=True, rename="camel"):
    """The entry is in the cache."""

    entry_id: Annotated[str, Meta(description="32 hex characters.")]


class SearchRequest(Struct, kw_only=True, rename="camel"):
    """A question."""

    prompt: Prompt
    similarity_threshold: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Least (1 + cosine) / 2 that may be served; absent: as the policy says."),
    ] = None
    search_strategies: Annotated[
        list[Strategy] | None, Meta(description="What comes first is preferred; absent: as the policy says.")
    ] = None
    attributes: Attributes = None
    max_results: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="1 if absent; 32 at most are answered.")
    ] = None


class ConversationalRequest(SearchRequest, kw_only=True, rename="camel"):
    """The last question of a conversation."""

    context: Annotated[
        Annotated[list[str], Meta(max_length=MOST_CONTEXT)] | None,
        Meta(description="The questions before it, the first one first."),
    ] = None


class DeleteRequest(Struct, kw_only=True, rename="camel"):
    """Which entries."""

    attributes: Annotated[dict[str, str], Meta(description="Names and values, all of which they have.")]


class CacheEntry(Struct, frozen=True, kw_only=True, rename="camel"):
    """An entry that was found."""

    id: Annotated[str, Meta(description="32 hex characters.")]
    prompt: Annotated[str, Meta(description="As it was stored.")]
    response: Annotated[str, Meta(description="As it was stored.")]
    attributes: Annotated[dict[str, str], Meta(description="As they were stored.")]
    similarity: Annotated[float, Meta(description="(1 + cosine) / 2; 1 where the question is the same.")]
    search_strategy: Annotated[Strategy, Meta(description="What found it.")]


class SearchResponse(Struct, frozen=True):
    """Entries, the most similar first."""

    data: Annotated[list[CacheEntry], Meta(description="Empty: there are none.")]


class ConversationalResponse(Struct, frozen=True, kw_only=True, rename="camel"):
    """Entries, the most similar first, and what was looked up."""

    actual_prompt: Annotated[str, Meta(description="The question in words that need no context.")]
    data: Annotated[list[CacheEntry], Meta(description="Empty: there are none.")]


class DeleteResponse(Struct, frozen=True, rename="camel"):
    """What was deleted."""

    deleted_entries_count: Annotated[int, Meta(description="How many entries.")]


CACHE_ID = Parameter("cache_id", "path", description="Any name without a slash.", required=True)
ENTRY_ID = Parameter("entry_id", "path", description="The entry's id.", required=True)

_ID = re.compile("[0-9a-f]{32}")

_json = msgspec.json.Encoder().encode
_set_request = decoder(SetRequest)
_search_request = decoder(SearchRequest)
_conversational_request = decoder(ConversationalRequest)
_delete_request = decoder(DeleteRequest)


def _documented(request: Any, answers: dict[int, Any], example: Any = None, *more: Parameter) -> Any:
    return documented(request, answers, example, [CACHE_ID, *more], LangCacheProblem)


@post(
    "/entries",
    status_code=201,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=_documented(
        SetRequest,
        {201: SetResponse},
        {"prompt": "How do I reset my password?", "response": "Settings, Security, Reset password."},
    ),
)
async def set_entry(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep an answer. What the policy refuses is a 400."""
    agent_type, keys = _agent_type(request), services.keyring.of(request.user.tenant)
    given, work = _set_request(await request.body()), Work()
    attributes = _checked(given.attributes, given.prompt)
    serialised = read(given.prompt)
    wanted = StoreRequest(
        agent_type=agent_type,
        **_asked(given.prompt, serialised),
        response=msgspec.Raw(_json(given.response)),
        ttl_s=msgspec.UNSET if given.ttl_millis is None else given.ttl_millis / 1000,
        metadata=None if serialised is None else {"prompt": given.prompt},
    )
    one = faceted.accepted(services.store, wanted, keys, attributes)
    if isinstance(one, Refused):
        answer: Any = one
    else:
        try:
            (answer,) = await services.store.answer([one], keys, work)
        except StoreUnavailableError as error:
            answer = error
    count_store(answer, services.label(request.user.tenant))
    services.accounting.stored(keys, agent_type, answer)
    services.accounting.spent(keys, agent_type, work)
    if isinstance(answer, SemcachedError):
        raise answer
    if isinstance(answer, Refused):
        raise InvalidInputError("response", f"the cache's policy refuses to keep it: {answer.reason}")
    return encoded(SetResponse(answer.entry_id), status=201)


@post(
    "/entries/search",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BODY,
    operation_class=_documented(
        SearchRequest, {200: SearchResponse}, {"prompt": "How do I reset my password?"}
    ),
)
async def search(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Ask the cache."""
    asked, keys = _search_request(await request.body()), services.keyring.of(request.user.tenant)
    question = _question(request, services, keys, asked, asked.prompt)
    answer = await _answered(request, services, keys, question)
    if isinstance(answer, Miss) and _is_down(answer):
        return _down(request)
    return encoded(SearchResponse(_data(question)), headers={"X-Cache": x_cache([answer])})


@post(
    "/conversations/search",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BODY,
    operation_class=_documented(
        ConversationalRequest,
        {200: ConversationalResponse},
        {"prompt": "And on a phone?", "context": ["How do I reset my password?"]},
    ),
)
async def search_conversation(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Ask the cache the last question of a conversation, in words that need no context, if there are such."""
    asked, keys = _conversational_request(await request.body()), services.keyring.of(request.user.tenant)
    actual: str | None = asked.prompt
    _checked(asked.attributes, asked.prompt, *(asked.context or []))
    if asked.context and read(asked.prompt) is None:
        agent_type = LookupRequest(agent_type=_agent_type(request), prompt=asked.prompt)
        actual = await services.faceted.alone(asked.prompt, asked.context, agent_type, keys)
    question = _question(request, services, keys, asked, actual or asked.prompt)
    if actual is None:  # it may be about anything
        question.tiers, question.reason, question.rule = [], Reason.GUARD, "history"
    answer = await _answered(request, services, keys, question)
    if isinstance(answer, Miss) and _is_down(answer):
        return _down(request)
    found = ConversationalResponse(actual_prompt=actual or asked.prompt, data=_data(question))
    return encoded(found, headers={"X-Cache": x_cache([answer])})


@delete(
    "/entries/{entry_id:str}",
    status_code=204,
    guards=[needs(Role.writer)],
    operation_class=_documented(None, {}, None, ENTRY_ID),
)
async def delete_by_id(request: HttpRequest, services: NamedDependency[Services]) -> None:
    """Delete one entry."""
    entry_id: str = request.path_params["entry_id"]
    where = Where(agent_type=_agent_type(request), entry_id=entry_id)
    if not _ID.fullmatch(entry_id) or not await _deleted(request, services, where):
        raise NotFoundError("there is no entry of that id in this cache")


@delete(
    "/entries",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=_documented(
        DeleteRequest, {200: DeleteResponse}, {"attributes": {"document": "handbook"}}
    ),
)
async def delete_by_attributes(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Delete the entries that have all of these attributes, and perhaps more."""
    attributes = _checked(_delete_request(await request.body()).attributes)
    if not attributes:
        raise InvalidInputError("attributes", "is empty: to delete all entries, POST to the cache's /flush")
    where = Where(agent_type=_agent_type(request), attributes=attributes)
    return encoded(DeleteResponse(await _deleted(request, services, where)))


@post(
    "/flush",
    status_code=204,
    guards=[needs(Role.writer)],
    operation_class=_documented(None, {}),
)
async def flush(request: HttpRequest, services: NamedDependency[Services]) -> None:
    """Delete all entries of the cache."""
    await _deleted(request, services, Where(agent_type=_agent_type(request)))


def router() -> Router:
    """The six calls, and what went wrong with them in the API's own words."""
    return Router(
        path=PREFIX + "{cache_id:str}",
        route_handlers=[
            *(set_entry, search, search_conversation),
            *(delete_by_id, delete_by_attributes, flush),
        ],
        exception_handlers={Exception: langcache_handle},
    )


def _agent_type(request: HttpRequest) -> str:
    """Of the cache that the path names, byte by byte."""
    before, _, rest = request.scope["raw_path"].partition(PREFIX.encode())
    raw = rest.partition(b"/")[0]
    if before or not raw:  # a path that a router may read in another way than we do
        raise NotFoundError("the path names no cache")
    try:
        cache_id = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidInputError("cacheId", "must be percent-encoded UTF-8") from None
    if cache_id == "{cacheId}":  # what the SDK sends where it was given none
        raise NotFoundError("the path names no cache: set the client's cache_id")
    most = IDENTIFIER_BYTES - len(LANGCACHE)
    if len(cache_id.encode()) > most:
        raise InvalidInputError("cacheId", f"must have {most} bytes of UTF-8 at most")
    return LANGCACHE + cache_id


def _checked(given: dict[str, str] | None, *prompts: str) -> dict[str, str]:
    """The attributes, if they and the prompts are no longer than they may be."""
    if any(len(one.encode()) > PROMPT_BYTES for one in prompts):
        raise InvalidInputError("prompt", f"must have {PROMPT_BYTES} bytes of UTF-8 at most")
    attributes = given or {}
    if len(attributes) > MOST_ATTRIBUTES:
        raise InvalidInputError("attributes", f"must be {MOST_ATTRIBUTES} at most")
    for name, value in attributes.items():
        if not 1 <= len(name.encode()) <= IDENTIFIER_BYTES:
            raise InvalidInputError("attributes", f"a name must have 1 to {IDENTIFIER_BYTES} bytes of UTF-8")
        if len(value.encode()) > VALUE_BYTES:
            raise InvalidInputError("attributes", f"a value must have {VALUE_BYTES} bytes of UTF-8 at most")
    return attributes


def _asked(prompt: str, serialised: Read | None) -> dict[str, Any]:
    """What is asked, in the fields of a query."""
    if serialised is None:
        return {"prompt": prompt}
    return {"messages": serialised.messages, "params": {"langchain": serialised.beside}}


def _question(
    request: HttpRequest, services: Services, keys: TenantKeys, asked: SearchRequest, prompt: str
) -> FacetedQuestion:
    attributes, limit = _checked(asked.attributes, prompt), asked.similarity_threshold
    wanted = LookupRequest(
        agent_type=_agent_type(request),
        **_asked(prompt, read(prompt)),
        tiers=[Tier(one) for one in dict.fromkeys(asked.search_strategies or [])] or None,
        threshold=None if limit is None else cosine_of(limit),
    )
    most = min(asked.max_results or 1, MOST_RESULTS)
    return services.faceted.faceted(wanted, keys, attributes, most)


async def _answered(
    request: HttpRequest, services: Services, keys: TenantKeys, question: FacetedQuestion
) -> Hit | Miss:
    """Counted as a lookup."""
    work = Work()
    (answer,) = await services.faceted.answer([question], keys, work)
    count(answer, services.label(request.user.tenant))
    services.accounting.looked_up(keys, [question], [answer], work)
    return answer


def _is_down(miss: Miss) -> bool:
    """Redis or the embedder; where it is the verifier or the rewriter, a miss is answer enough."""
    return miss.reason is Reason.DEGRADED and not isinstance(miss.rule, str)


def _down(request: HttpRequest) -> Response[bytes]:
    answer = langcache_handle(request, StoreUnavailableError("Redis or the embedder is away"))
    answer.headers["X-Cache"] = "BYPASS"
    return answer


def _data(question: FacetedQuestion) -> list[CacheEntry]:
    return [_entry(one) for one in question.results]


def _entry(found: Served) -> CacheEntry:
    tier, candidate, record = found
    return CacheEntry(
        id=record.entry_id,
        prompt=_prompt(record),
        response=msgspec.json.decode(record.response, type=str),
        attributes=record.attributes,
        similarity=1.0 if tier is Tier.EXACT else similarity_of(candidate.similarity),
        search_strategy=tier.value,
    )


def _prompt(record: Record) -> str:
    """As it was given: serialised messages lie beside what was made of them."""
    beside: dict[str, str] | None = msgspec.json.decode(record.metadata)
    return beside["prompt"] if beside else record.text or ""


async def _deleted(request: HttpRequest, services: Services, where: Where) -> int:
    """How many entries went. The log has no room for long attributes: it keeps that the cache changed."""
    keys, wider = services.keyring.of(request.user.tenant), Where(agent_type=where.agent_type)
    predicates = await services.invalidator.predicates([where, wider], [Keyspace.RESPONSES])
    done = await services.invalidator.run(keys, predicates[:1], noted=predicates[1:])
    return done.deleted[Keyspace.RESPONSES]
