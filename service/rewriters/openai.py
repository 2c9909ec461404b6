"""An LLM behind the chat completions API: OpenAI's, vLLM's, Ollama's and others'."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI, BadRequestError, DefaultAsyncHttpxClient, Omit, omit

from service.rewriters.llm import LLMRewriter
from service.rewriters.prompt import INSTRUCTION, MOST_TOKENS
from service.settings import Settings

BASE_URL = "https://api.openai.com/v1"


class _Said(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Said
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Completion).decode


def _said(body: bytes) -> str | None:
    first = _decode(body).choices[0]
    return first.message.content if first.finish_reason == "stop" else None


class _Chat:
    def __init__(self, client: AsyncOpenAI, settings: Settings) -> None:
        self._client = client
        self._model = settings.rewriter_model
        self._keyless = settings.rewriter_api_key is None
        self._temperature: float | Omit = 0.0

    async def send(self, data: str) -> bytes:
        """One completion."""
        try:
            return await self._send(data)
        except BadRequestError as error:
            if error.param != "temperature" or isinstance(self._temperature, Omit):
                raise
        self._temperature = omit  # a model that takes none: reasoning models
        return await self._send(data)

    async def _send(self, data: str) -> bytes:
        answer = await self._client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=[{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": data}],
            max_completion_tokens=MOST_TOKENS,
            temperature=self._temperature,
            extra_headers={"Authorization": Omit()} if self._keyless else None,
        )
        return answer.content


@asynccontextmanager
async def rewriter(settings: Settings) -> AsyncIterator[LLMRewriter]:
    """The rewriter, its connections closed at the end. Calls nobody yet."""
    for name in ("openai", "httpx2"):  # one logs each request, the other, on demand, its text
        logging.getLogger(name).setLevel(logging.WARNING)
    client = AsyncOpenAI(
        base_url=settings.rewriter_base_url or BASE_URL,
        api_key=settings.rewriter_api_key or "none",  # then the header is left out
        max_retries=0,
        # No timeouts: the deadline of the call is the one that counts. A text follows no redirect.
        http_client=DefaultAsyncHttpxClient(timeout=None, follow_redirects=False),
    )
    # The SDK takes these from the environment, which is not ours.
    client.organization = client.project = client.admin_api_key = client.webhook_secret = None
    client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS; there is no other way
    async with client:
        yield LLMRewriter(settings, _Chat(client, settings).send, _said)
