"""/v1/policies: how the questions of an agent_type are answered."""

from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec
from litestar import Response, get, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter, Schema

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest
from service.api.services import Services
from service.api.wire import decoder, documented, encoded, parameters
from service.cache.canonical import check_identifier
from service.cache.policy import agree, check
from service.errors import InvalidInputError
from service.model import IDENTIFIER_BYTES, Comparison, GuardName, History, Kind, Mode, Policy, Tier

AGENT_TYPE = Parameter(
    "agent_type",
    "query",
    description="Which kind of agent asks.",
    required=True,
    schema=Schema(type="string", min_length=1, max_length=IDENTIFIER_BYTES),  # type: ignore[arg-type] # its stubs
)
EXAMPLE = {"threshold": 0.97, "guards": {"question": False}}

KNOWN: Mapping[str, Sequence[str]] = {
    "guards": get_args(GuardName),
    "history": list(History),
    "mode": get_args(Mode),
    "comparison": list(Comparison),
    "tiers": list(Tier),
    "bypass": (*get_args(Kind), '{"pattern": "…"}'),
}
"""The names that a field takes."""

_policy = decoder(Policy)


@get(
    "/v1/policies",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: Policy}, parameters=[AGENT_TYPE]),
)
async def get_policy(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """The policy in force for an agent_type, with its defaults filled in."""
    keys, agent_type = services.keyring.of(request.user.tenant), agent_type_of(request)
    await services.policies.refresh()
    return encoded(services.lookup.policy(keys, agent_type))


@put(
    "/v1/policies",
    guards=[needs(Role.admin)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Policy, {200: Policy}, EXAMPLE, parameters=[AGENT_TYPE]),
)
async def put_policy(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Set the whole policy of an agent_type; what is left out has its default. Answers what is in force then.

    It is in force at once in the process that answers, in all others within about a second.
    """
    keys, agent_type = services.keyring.of(request.user.tenant), agent_type_of(request)
    body = await request.body()
    _checked(body, agent_type, judge=services.has_judge)
    await services.policies.put(keys, agent_type, msgspec.json.encode(msgspec.json.decode(body)))
    await services.learning.settle(keys, agent_type)
    return encoded(services.lookup.policy(keys, agent_type))


def _checked(body: bytes, agent_type: str, *, judge: bool) -> None:
    try:
        agree(check(_policy(body)), agent_type, judge=judge)
    except InvalidInputError as error:
        known = KNOWN.get(error.field.split("[")[0])
        if known is None or error.field.endswith(".pattern"):
            raise
        told = f"{error.message}; known are {', '.join(known)}"
        raise InvalidInputError(error.field, told) from None


def agent_type_of(request: HttpRequest) -> str:
    """Of the query string.

    Raises:
        InvalidInputError: it isn't there, or is none.
    """
    found = parameters(request.scope["query_string"], "agent_type")
    if "agent_type" not in found:
        raise InvalidInputError("agent_type", "is required, as in ?agent_type=support")
    check_identifier("agent_type", found["agent_type"])
    return found["agent_type"]
