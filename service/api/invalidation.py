"""/v1/invalidate, the rules for events, and the events."""

from typing import Annotated, Any

from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter, Schema
from msgspec import Meta, Struct

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest
from service.api.services import Services
from service.api.wire import decoder, documented, encoded
from service.cache.canonical import check_identifier
from service.cache.invalidation import Keyspace, Where, check
from service.cache.rules import Rule, RuleBody, check_rule, filled
from service.errors import NotFoundError
from service.model import IDENTIFIER_BYTES, Identifier


class Invalidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to delete."""

    where: Annotated[Where, Meta(description="Which entries; never empty.")]
    keyspaces: Annotated[
        Annotated[list[Keyspace], Meta(min_length=1)] | None,
        Meta(
            description="Where to look; if absent everywhere, but for embeddings by their age alone: they "
            "don't go out of date."
        ),
    ] = None
    dry_run: Annotated[bool, Meta(description="Find and count, delete nothing.")] = False


class Invalidated(Struct, frozen=True):
    """What was deleted."""

    matched: Annotated[int, Meta(description="Entries found.")]
    deleted: Annotated[int, Meta(description="Entries of those that this call removed.")]
    sample: Annotated[list[str], Meta(description="Ids of ten of them at most.")]


class Event(Struct, frozen=True, forbid_unknown_fields=True):
    """Something happened."""

    type: Annotated[Identifier, Meta(description="Rules for this type fire.")]
    data: Annotated[
        dict[str, Any], Meta(description="Strings and integers for the rules' templates; whatever else.")
    ] = {}


class Fired(Struct, frozen=True):
    """What an event did."""

    rules: Annotated[list[str], Meta(description="Names of the rules that fired.")]
    matched: Annotated[int, Meta(description="Entries found.")]
    deleted: Annotated[int, Meta(description="Entries removed.")]


class Rules(Struct, frozen=True):
    """The tenant's rules, by name."""

    items: Annotated[list[Rule], Meta(description="The rules.")]


NAME = Parameter(
    "name",
    "path",
    description="The rule's name.",
    required=True,
    schema=Schema(type="string", min_length=1, max_length=IDENTIFIER_BYTES),  # type: ignore[arg-type] # its stubs
)
WHERE = {"source": "product:{product_id}"}

_invalidate = decoder(Invalidate)
_rule = decoder(RuleBody)
_event = decoder(Event)


@post(
    "/v1/invalidate",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Invalidate, {200: Invalidated}, {"where": {"source": "product:7"}}),
)
async def invalidate(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Delete what matches, in all keyspaces. A store whose lookup was made before is refused."""
    keys, asked = services.keyring.of(request.user.tenant), _invalidate(await request.body())
    check(asked.where)
    predicates = await services.invalidator.predicates([asked.where], asked.keyspaces)
    await services.embeddings.written()
    done = await services.invalidator.run(keys, predicates, dry_run=asked.dry_run)
    return encoded(Invalidated(done.matched.total(), done.deleted.total(), done.sample))


@post(
    "/v1/events",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Event, {200: Fired}, {"type": "product_updated", "data": {"product_id": 7}}),
)
async def event(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Invalidate what the rules for this type of event say. All are checked before the first deletes."""
    keys, came = services.keyring.of(request.user.tenant), _event(await request.body())
    rules = [rule for rule in await services.rules.all(keys, complete=True) if rule.event == came.type]
    if not rules:
        return encoded(Fired([], 0, 0))
    predicates = await services.invalidator.predicates([filled(rule, came.data) for rule in rules])
    await services.embeddings.written()
    done = await services.invalidator.run(keys, predicates)
    return encoded(Fired([rule.name for rule in rules], done.matched.total(), done.deleted.total()))


@get(
    "/v1/invalidation-rules",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: Rules}),
)
async def get_rules(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """The tenant's rules."""
    return encoded(Rules(await services.rules.all(services.keyring.of(request.user.tenant))))


@put(
    "/v1/invalidation-rules/{name:str}",
    guards=[needs(Role.admin)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(
        RuleBody, {200: Rule}, {"event": "product_updated", "where": WHERE}, parameters=[NAME]
    ),
)
async def put_rule(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Set a rule. It holds from the next event on, in every process."""
    name: str = request.path_params["name"]
    check_identifier("name", name)
    body = _rule(await request.body())
    check_rule(body.where)
    rule = Rule(name, body.event, body.where)
    await services.rules.put(services.keyring.of(request.user.tenant), rule)
    return encoded(rule)


@delete(
    "/v1/invalidation-rules/{name:str}",
    status_code=204,
    guards=[needs(Role.admin)],
    operation_class=documented(None, {}, parameters=[NAME]),
)
async def delete_rule(request: HttpRequest, services: NamedDependency[Services]) -> None:
    """Delete a rule."""
    name: str = request.path_params["name"]
    if not await services.rules.delete(services.keyring.of(request.user.tenant), name):
        raise NotFoundError("there is no rule of that name")
