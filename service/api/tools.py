"""/v1/tools: results of tool calls, and how each tool's are kept."""

from time import perf_counter

import msgspec
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from msgspec import Struct

from service.api.attending import attended
from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest
from service.api.measuring import WAITED
from service.api.services import Services
from service.api.wire import decoder, documented, encoded, parameters
from service.cache.accounting import Outcome
from service.cache.canonical import check_identifier
from service.cache.ports import Work
from service.cache.side_effects import by_name
from service.errors import StoreUnavailableError
from service.model import (
    Reason,
    Refused,
    ToolCall,
    ToolHit,
    ToolMiss,
    ToolPolicy,
    ToolStored,
    ToolStoreRequest,
)
from service.store.policies import TOOLS
from service.telemetry import TOOL_LOOKUPS, TOOL_STORES

CALL = {"agent_type": "support", "tool": "get_weather", "arguments": {"city": "Paris"}}
POLICY = {"tool": "get_weather", "ttl_s": 600, "ignore_arguments": ["request_id"]}


class ToolPolicies(Struct, frozen=True):
    """The policies that were set, by tool."""

    items: list[ToolPolicy]


_call = decoder(ToolCall)
_store = decoder(ToolStoreRequest)
_policy = decoder(ToolPolicy)


@post(
    "/v1/tools/lookup",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(ToolCall, {200: ToolHit | ToolMiss}, CALL),
)
async def look_up_tool(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Ask for a call's result. A miss says whether the caller leads (`lease`), and why it is one."""
    begun = perf_counter()
    keys = services.keyring.of(request.user.tenant)
    asked = _call(await request.body())
    call = services.tools.call(asked, keys)
    work, leads = Work(), request.user.role >= Role.writer
    looking = services.tools.look_up(call, asked.wait_s, work, leads=leads)
    answer = await (looking if asked.wait_s is None else attended(request.receive, looking))
    request.scope["state"][WAITED] = work.waited_ms / 1000
    _count(services, request, asked, answer, (perf_counter() - begun) * 1000 - work.waited_ms)
    if isinstance(answer, ToolHit):
        return encoded(answer, headers={"X-Cache": "HIT"})
    passed_by = answer.reason in {Reason.DEGRADED, Reason.POLICY}
    return encoded(answer, headers={"X-Cache": "BYPASS" if passed_by else "MISS"})


@post(
    "/v1/tools/store",
    status_code=201,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(
        ToolStoreRequest, {201: ToolStored, 200: Refused}, CALL | {"result": {"celsius": 21}}
    ),
)
async def store_tool(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep a call's result. Errors, and results of tools that change something, are refused by name."""
    keys, given = services.keyring.of(request.user.tenant), _store(await request.body())
    label = services.label(request.user.tenant)
    try:
        answer = await services.tools.store(given, keys)
    except StoreUnavailableError:
        services.accounting.count(keys, given.agent_type, "tools", "failed")
        TOOL_STORES.labels(label, "failed").inc()
        raise
    outcome: Outcome = "stored" if isinstance(answer, ToolStored) else "refused"
    reason = answer.reason if isinstance(answer, Refused) else ""
    services.accounting.count(keys, given.agent_type, "tools", outcome, reason)
    TOOL_STORES.labels(label, outcome).inc()
    return encoded(answer, status=201 if outcome == "stored" else 200)


@get(
    "/v1/tools/policies",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: ToolPolicies}),
)
async def get_tool_policies(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """The policies that were set; any other tool has the defaults."""
    parameters(request.scope["query_string"])
    await services.policies.refresh()
    keys = services.keyring.of(request.user.tenant)
    return encoded(ToolPolicies([_filled(one) for one in services.policies.tools(keys)]))


@put(
    "/v1/tools/policies",
    guards=[needs(Role.admin)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(ToolPolicy, {200: ToolPolicy}, POLICY),
)
async def put_tool_policy(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Set the whole policy of a tool; what is left out has its default. Answers what is in force then.

    It is in force at once in the process that answers, in all others within about a second.
    """
    body = await request.body()
    policy = _policy(body)
    check_identifier("tool", policy.tool)
    for name in policy.ignore_arguments:
        check_identifier("ignore_arguments", name)
    given = msgspec.json.encode(msgspec.json.decode(body))
    await services.policies.put(services.keyring.of(request.user.tenant), policy.tool, given, TOOLS)
    return encoded(_filled(policy))


def _count(
    services: Services,
    request: HttpRequest,
    asked: ToolCall,
    answer: ToolHit | ToolMiss,
    latency_ms: float,
) -> None:
    tenant, rule = request.user.tenant, None
    outcome: Outcome = "hit"
    if isinstance(answer, ToolHit):
        detail = "stale" if answer.stale else "fresh"
    else:
        outcome, detail = "miss", answer.reason.value
        rule = answer.rule if isinstance(answer.rule, str) else None
    TOOL_LOOKUPS.labels(services.label(tenant), outcome, detail).inc()
    keys = services.keyring.of(tenant)
    services.accounting.count(
        keys, asked.agent_type, "tools", outcome, detail, rule=rule, latency_ms=latency_ms
    )


def _filled(policy: ToolPolicy) -> ToolPolicy:
    cacheable = not by_name(policy.tool) if policy.cacheable is None else policy.cacheable
    return msgspec.structs.replace(policy, cacheable=cacheable)
