"""An LLM behind the chat completions API: OpenAI's, vLLM's, Ollama's and others'."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI, BadRequestError, DefaultAsyncHttpxClient, Omit, omit

from service.providers.llm import Api, Wanted

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
    def __init__(self, client: AsyncOpenAI, wanted: Wanted) -> None:
        self._client = client
        self._model = wanted.settings.model
        self._most_tokens = wanted.most_tokens
        self._keyless = wanted.settings.api_key is None
        self._temperature: float | Omit = 0.0

    async def send(self, instruction: str, data: str) -> bytes:
        """One completion."""
        try:
            return await self._send(instruction, data)
        except BadRequestError as error:
            if error.param != "temperature" or isinstance(self._temperature, Omit):
                raise
        self._temperature = omit  # a model that takes none: reasoning models
        return await self._send(instruction, data)

    async def _send(self, instruction: str, data: str) -> bytes:
        answer = await self._client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=[{"role": "system", "content": instruction}, {"role": "user", "content": data}],
            max_completion_tokens=self._most_tokens,
            temperature=self._temperature,
            extra_headers={"Authorization": Omit()} if self._keyless else None,
        )
        return answer.content


@asynccontextmanager
async def api(wanted: Wanted) -> AsyncIterator[Api]:
    """Its connections are closed at the end. Calls nobody yet."""
    for name in ("openai", "httpx2"):  # one logs each request, the other, on demand, its text
        logging.getLogger(name).setLevel(logging.WARNING)
    client = AsyncOpenAI(
        base_url=wanted.settings.base_url or BASE_URL,
        api_key=wanted.settings.api_key or "none",  # then the header is left out
        max_retries=0,
        # No timeouts: the deadline of the call is the one that counts. A text follows no redirect.
        http_client=DefaultAsyncHttpxClient(timeout=None, follow_redirects=False),
    )
    # The SDK takes these from the environment, which is not ours.
    client.organization = client.project = client.admin_api_key = client.webhook_secret = None
    client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS; there is no other way
    async with client:
        yield Api(_Chat(client, wanted).send, _said)
