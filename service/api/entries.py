"""/v1/cache/entries: read, list, delete; and clearing a tenant."""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter, Schema
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import HttpRequest
from service.api.services import Services
from service.api.wire import documented, encoded, parameters
from service.cache.canonical import check_identifier
from service.cache.invalidation import Keyspace, Predicate, Where, predicate
from service.errors import InvalidInputError, NotFoundError
from service.model import EntryId, Record, Usage
from service.store.entries import Place

LIMIT, MOST = 20, 100
FILTERS = ("agent_type", "source", "tag")

_CURSOR = re.compile(r"([0-9]{1,16}):([0-9a-f]{32})")


class Entry(Struct, frozen=True, kw_only=True):
    """What is kept of an answer, without its vector."""

    entry_id: EntryId
    agent_type: Annotated[str, Meta(description="Which kind of agent asked.")]
    prompt: Annotated[str | None, Meta(description="The last user message; null: it isn't plain text.")]
    messages: Annotated[msgspec.Raw | UnsetType, Meta(description="The conversation, where there was one.")]
    standalone: Annotated[
        str | UnsetType, Meta(description="The question in words that need no history, where there are such.")
    ]
    response: Annotated[msgspec.Raw, Meta(description="The answer, byte for byte as it was stored.")]
    exact_only: Annotated[
        str | UnsetType, Meta(description="Why it answers its own words only, as when it was stored.")
    ]
    model: Annotated[str | None, Meta(description="The LLM that answered.")]
    prompt_version: Annotated[str | None, Meta(description="The prompt's version.")]
    temperature: Annotated[float | None, Meta(description="Sampling temperature.")]
    attributes: Annotated[dict[str, str], Meta(description="The scope's attributes.")]
    sources: Annotated[list[str], Meta(description="Documents the answer was built from.")]
    tags: Annotated[list[str], Meta(description="Names to find it by.")]
    metadata: Annotated[msgspec.Raw, Meta(description="What was stored beside the answer, or null.")]
    usage: Annotated[Usage | None, Meta(description="What making the answer cost.")]
    stored_at: Annotated[str, Meta(description="RFC 3339.")]
    expires_at: Annotated[str | None, Meta(description="RFC 3339; null: no end.")]


class Entries(Struct, frozen=True):
    """Entries, newest first."""

    items: Annotated[list[Entry], Meta(description="The entries; fewer than `limit` where some vanished.")]
    cursor: Annotated[str | None, Meta(description="For the next page; null: there is none.")]


class Cleared(Struct, frozen=True):
    """What a tenant had."""

    deleted: Annotated[dict[Keyspace, int], Meta(description="Entries removed, by keyspace.")]


def _query(name: str, words: str, kind: str = "string") -> Parameter:
    return Parameter(name, "query", description=words, schema=Schema(type=kind))  # type: ignore[arg-type] # its stubs


ENTRY_ID = Parameter("entry_id", "path", description="The entry's id.", required=True)


@get(
    "/v1/cache/entries/{entry_id:str}",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: Entry}, parameters=[ENTRY_ID]),
)
async def get_entry(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """One entry."""
    record = await services.entries.one(services.keyring.of(request.user.tenant), _entry_id(request))
    if record is None:
        raise NotFoundError("there is no entry of that id")
    return encoded(_shown(record))


@delete(
    "/v1/cache/entries/{entry_id:str}",
    status_code=204,
    guards=[needs(Role.writer)],
    operation_class=documented(None, {}, parameters=[ENTRY_ID]),
)
async def delete_entry(request: HttpRequest, services: NamedDependency[Services]) -> None:
    """Delete one entry. A store whose lookup was made before is refused."""
    keys, where = services.keyring.of(request.user.tenant), Where(entry_id=_entry_id(request))
    predicates = await services.invalidator.predicates([where], [Keyspace.RESPONSES])
    done = await services.invalidator.run(keys, predicates)
    if not done.deleted.total():
        raise NotFoundError("there is no entry of that id")


@get(
    "/v1/cache/entries",
    guards=[needs(Role.reader)],
    operation_class=documented(
        None,
        {200: Entries},
        parameters=[
            _query("agent_type", "Only of this kind of agent."),
            _query("source", "Only what was built from it."),
            _query("tag", "Only what has it."),
            _query("limit", f"1 to {MOST}, else {LIMIT}.", "integer"),
            _query("cursor", "Of the page before."),
        ],
    ),
)
async def list_entries(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Entries, newest first. What is stored meanwhile doesn't shift the pages that follow."""
    given = parameters(request.scope["query_string"], *FILTERS, "limit", "cursor")
    keys = services.keyring.of(request.user.tenant)
    after = _place(given["cursor"]) if "cursor" in given else None
    records, last = await services.entries.newest(keys, _wanted(given), _limit(given), after)
    return encoded(Entries([_shown(one) for one in records], None if last is None else _cursor(last)))


@delete(
    "/v1/cache",
    status_code=200,
    guards=[needs(Role.admin)],
    operation_class=documented(
        None, {200: Cleared}, parameters=[_query("confirm", "The tenant's name, so that nobody errs.")]
    ),
)
async def clear(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Delete everything the tenant has. A store whose lookup was made before is refused."""
    tenant = request.user.tenant
    if parameters(request.scope["query_string"], "confirm").get("confirm") != tenant:
        raise InvalidInputError("confirm", "must be the name of the key's tenant, as in ?confirm=acme")
    await services.embeddings.written()
    keys = services.keyring.of(tenant)
    done = await services.invalidator.run(keys, [services.invalidator.everything()])
    await services.ledger.flush()  # of what was sampled just now
    await services.judging.clear(keys)
    return encoded(Cleared({keyspace: done.deleted[keyspace] for keyspace in Keyspace}))


def _entry_id(request: HttpRequest) -> str:
    entry_id: str = request.path_params["entry_id"]
    check_identifier("entry_id", entry_id)
    return entry_id


def _wanted(given: dict[str, str]) -> Predicate:
    for name in FILTERS:
        if name in given:
            check_identifier(name, given[name])
    where = Where(agent_type=given.get("agent_type"), source=given.get("source"), tag=given.get("tag"))
    return predicate(where, [Keyspace.RESPONSES], 0)


def _limit(given: dict[str, str]) -> int:
    text = given.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST):  # noqa: PLR2004 - digits
        raise InvalidInputError("limit", f"must be a number from 1 to {MOST}")
    return int(text)


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.stored_at}:{place.entry_id}".encode()).decode()


def _place(cursor: str) -> Place:
    try:
        found = _CURSOR.fullmatch(base64.b64decode(cursor, b"-_", validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        found = None
    if found is None:
        raise InvalidInputError("cursor", "is none of ours: give that of the page before, or none")
    return Place(int(found[1]), found[2])


def _shown(record: Record) -> Entry:
    return Entry(
        entry_id=record.entry_id,
        agent_type=record.agent_type,
        prompt=record.text,
        messages=UNSET if record.messages is None else msgspec.Raw(record.messages),
        standalone=UNSET if record.standalone is None else record.standalone,
        response=msgspec.Raw(record.response),
        exact_only=UNSET if record.exact_only is None else record.exact_only,
        model=record.model,
        prompt_version=record.prompt_version,
        temperature=record.temperature,
        attributes=record.attributes,
        sources=record.sources,
        tags=record.tags,
        metadata=msgspec.Raw(record.metadata),
        usage=record.usage,
        stored_at=_time(record.stored_at),
        expires_at=None if record.expires_at is None else _time(record.expires_at),
    )


def _time(at_ms: int) -> str:
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03}Z"
