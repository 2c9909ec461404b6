"""/v1/chat/completions, /v1/responses, /v1/messages: the providers' APIs, from the cache or passed on."""

from litestar import HttpMethod, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.types import ASGIApp
from msgspec import Struct

from service.api.answering import HttpRequest, answered, passed_by
from service.api.anthropic_errors import AnthropicFailure, anthropic_handle
from service.api.auth import Role
from service.api.authentication import needs
from service.api.openai_errors import OpenAIFailure, openai_handle
from service.api.services import Services
from service.api.wire import documented
from service.cache.dialects.chat import Chat
from service.cache.dialects.messages import Messages
from service.cache.dialects.responses import Responses
from service.proxy.options import AGENT_TYPE

LARGEST_BODY = 64 * 2**20
"""What providers take: Anthropic 32 MB, OpenAI some 50 MB of images."""
CHAT, RESPONSES, MESSAGES = Chat(), Responses(), Messages()

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
    return await answered(request, services, CHAT)


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
    return await answered(request, services, RESPONSES)


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
    return await answered(request, services, MESSAGES)


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
    return await passed_by(request, services, "openai")


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
    return await passed_by(request, services, "anthropic")


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
    return await passed_by(
        request, services, "anthropic" if "anthropic-version" in request.headers else "openai"
    )
