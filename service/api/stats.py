"""/v1/stats: what was asked, answered, saved and spent."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter, Schema
from msgspec.structs import replace

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import HttpRequest
from service.api.services import Services
from service.api.wire import documented, encoded, parameters
from service.cache.canonical import check_identifier
from service.cache.figures import Stats
from service.model import IDENTIFIER_BYTES

AGENT_TYPE = Parameter(
    "agent_type",
    "query",
    description="Which kind of agent; absent: the whole tenant.",
    required=False,
    schema=Schema(type="string", min_length=1, max_length=IDENTIFIER_BYTES),  # type: ignore[arg-type] # its stubs
)


@get(
    "/v1/stats",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: Stats}, parameters=[AGENT_TYPE]),
)
async def get_stats(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """What was counted of the tenant, or of one agent_type. An unknown agent_type has zeros.

    What other processes answered in the last second may be missing.
    """
    agent_type = parameters(request.scope["query_string"], "agent_type").get("agent_type")
    if agent_type is not None:
        check_identifier("agent_type", agent_type)
    await services.ledger.flush()
    keys = services.keyring.of(request.user.tenant)
    stats = await services.ledger.stats(keys, agent_type)
    if agent_type is None:
        return encoded(stats)
    quality, shadow, _ = await services.learning.told(keys, agent_type)
    return encoded(replace(stats, quality=quality, shadow=shadow))
