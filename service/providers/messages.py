"""An LLM behind Anthropic's messages API."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from msgspec import Struct

from service.providers.llm import Api, Wanted

BASE_URL = "https://api.anthropic.com"


class _Block(Struct):
    type: str
    text: str = ""


class _Message(Struct):
    content: list[_Block]
    stop_reason: str | None = None


_decode = msgspec.json.Decoder(_Message).decode


def _said(body: bytes) -> str | None:
    message = _decode(body)
    said = "".join(block.text for block in message.content if block.type == "text")
    return said if message.stop_reason == "end_turn" else None


async def _send(client: AsyncAnthropic, wanted: Wanted, instruction: str, data: str) -> bytes:
    """One message. The API takes no temperature any more."""
    answer = await client.messages.with_raw_response.create(
        model=wanted.settings.model,
        system=instruction,
        messages=[{"role": "user", "content": data}],
        max_tokens=wanted.most_tokens,
    )
    return await answer.read()


@asynccontextmanager
async def api(wanted: Wanted) -> AsyncIterator[Api]:
    """Its connections are closed at the end. Calls nobody yet."""
    for name in ("anthropic", "httpx2"):  # as in `chat.py`
        logging.getLogger(name).setLevel(logging.WARNING)
    client = AsyncAnthropic(
        base_url=wanted.settings.base_url or BASE_URL,
        api_key=wanted.settings.api_key,  # given, so that none comes from the environment
        max_retries=0,
        open_telemetry=False,  # else an environment variable could put texts into spans
        http_client=DefaultAsyncHttpxClient(timeout=None, follow_redirects=False),
    )
    client.webhook_key = None
    client._custom_headers = {}  # noqa: SLF001 - ANTHROPIC_CUSTOM_HEADERS; there is no other way
    async with client:
        yield Api(partial(_send, client, wanted), _said)
