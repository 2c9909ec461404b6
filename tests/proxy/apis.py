"""The three calls as their SDKs make them, whole and streamed, now and awaited."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from pydantic import BaseModel

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}


def plain(answer: BaseModel) -> dict[str, Any]:
    """A typed answer's fields."""
    return answer.model_dump()


@dataclass(frozen=True)
class Api:
    """One call of an SDK."""

    name: str
    path: str
    client: Callable[..., Any]
    later: Callable[..., Any]  # the async one
    root: str  # what the base URL ends in
    call: str  # dotted path from the client
    final: str  # of the stream helper

    def asking(self, text: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "claude-sonnet-5" if self.name == "messages" else "gpt-5.1"}
        if self.name == "responses":
            return body | {"input": text} | more
        if self.name == "messages":
            body["max_tokens"] = 500
        return body | {"messages": [{"role": "user", "content": text}]} | more

    def tools(self) -> dict[str, Any]:
        """Fields that offer a tool."""
        if self.name == "messages":
            return {"tools": [{"name": "weather", "input_schema": TOOL}]}
        named = {"name": "weather", "parameters": TOOL}
        if self.name == "responses":
            return {"tools": [{"type": "function", "strict": False} | named]}
        return {"tools": [{"type": "function", "function": named}]}

    def connected(self, port: int, key: str = "sk-test", **more: Any) -> Any:
        return self.client(
            base_url=f"http://127.0.0.1:{port}{self.root}", api_key=key, **{"max_retries": 0} | more
        )

    def connected_later(self, port: int, key: str = "sk-test", **more: Any) -> Any:
        return self.later(
            base_url=f"http://127.0.0.1:{port}{self.root}", api_key=key, **{"max_retries": 0} | more
        )

    def of(self, client: Any) -> Any:
        """The resource of a client that has `create` and `stream`."""
        for name in self.call.split("."):
            client = getattr(client, name)
        return client


CHAT = Api(
    "chat",
    "/v1/chat/completions",
    openai.OpenAI,
    openai.AsyncOpenAI,
    "/v1",
    "chat.completions",
    "get_final_completion",
)
RESPONSES = Api(
    "responses", "/v1/responses", openai.OpenAI, openai.AsyncOpenAI, "/v1", "responses", "get_final_response"
)
MESSAGES = Api(
    "messages",
    "/v1/messages",
    anthropic.Anthropic,
    anthropic.AsyncAnthropic,
    "",
    "messages",
    "get_final_message",
)
APIS = [CHAT, RESPONSES, MESSAGES]
