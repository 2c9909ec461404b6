"""A shop's support agent, on the OpenAI SDK. This is the file to copy: two things in it are semcached's.

The base URL: what the model answered once comes from the cache. `@cached_tool`: so does what a tool answered.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from openai import OpenAI
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from examples import shop
from semcached import cached_tool

MODEL = "gpt-6-sol"
MOST_STEPS = 8  # requests per question
SYSTEM = """\
You are the support agent of Fell & Fjord, a shop for walking and camping gear.
Answer in one or two sentences. Look orders and parcels up before you say anything of them.
Search the handbook for what isn't written here.
Open a return only when the customer asks for it. Never make up a date, a price or a rule.
What you know without looking it up:
Unsubscribe: each newsletter ends with a link that takes you off the list.
Subscribe: enter your address at the bottom of our start page and confirm it by the mail that we send you.
Phone: you can call us at 0800 555 0199.
Open: we are there Monday to Friday from 9 to 18 and Saturday from 10 to 14."""

Messages = list[ChatCompletionMessageParam]


@cached_tool(agent_type="support", ttl=60)
def get_order(customer: str, number: int) -> dict[str, Any]:
    """`customer` is an argument, so nobody is served another's order."""
    return shop.order(customer, number)


@cached_tool(agent_type="support", ttl=60)
def track_parcel(tracking: str) -> dict[str, Any]:
    return shop.parcel(tracking)


@cached_tool(agent_type="support", ttl=3600)
def search_docs(query: str) -> list[dict[str, Any]]:
    return shop.documents(query)


def create_return(customer: str, number: int) -> dict[str, Any]:
    """Never cached, for it changes something. The model's wish to call it may be: then it runs again."""
    return shop.open_return(customer, number)


def tools_of(customer: str) -> dict[str, Callable[..., Any]]:
    """The customer comes from the login, never from the model."""
    return {
        "get_order": partial(get_order, customer),
        "track_parcel": track_parcel,
        "search_docs": search_docs,
        "create_return": partial(create_return, customer),
    }


def described(name: str, about: str, **parameters: str) -> ChatCompletionToolParam:
    """A tool for the model; `parameters` are JSON types."""
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema: dict[str, object] = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": schema}}


TOOLS = [
    described("get_order", "One of the customer's orders.", number="integer"),
    described("track_parcel", "Where a parcel is.", tracking="string"),
    described("search_docs", "Search the handbook: shipping, returns, payment, warranty.", query="string"),
    described("create_return", "Open a return for one of the customer's orders.", number="integer"),
]


def connected(url: str, **options: Any) -> OpenAI:
    """The SDK as it is, with the service's URL; your OpenAI key goes to OpenAI."""
    return OpenAI(base_url=f"{url}/v1", default_headers={"X-Semcached-Agent-Type": "support"}, **options)


def begun() -> Messages:
    """A conversation. Nothing of the customer or the time is in it: who asks the same is served the same."""
    return [{"role": "system", "content": SYSTEM}]


def reply(llm: OpenAI, customer: str, messages: Messages) -> str:
    """The answer to the last message. All that is said on the way is appended.

    Raises:
        RuntimeError: the model goes on calling tools.
    """
    tools = tools_of(customer)
    for _ in range(MOST_STEPS):
        done = llm.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        said = done.choices[0].message
        messages.append(cast("ChatCompletionAssistantMessageParam", said.model_dump(exclude_none=True)))
        if not said.tool_calls:
            return said.content or ""
        for call in said.tool_calls:
            if isinstance(call, ChatCompletionMessageFunctionToolCall):
                result = called(tools, call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    raise RuntimeError(f"no answer after {MOST_STEPS} steps")


def called(tools: dict[str, Callable[..., Any]], name: str, arguments: str) -> Any:
    """A tool's result, or what was wrong, for the model to read. What a tool raises is never kept."""
    try:
        return tools[name](**json.loads(arguments))
    except (LookupError, TypeError, ValueError) as error:
        return {"error": f"{name}: {error}"}
