"""A model behind the OpenAI embeddings API: OpenAI itself, vLLM, TEI, Ollama and others.

The SDK sends and receives; deadlines, retries, pauses and the check of each answer are ours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Omit, omit

from service.cache.ports import Embedded
from service.embedders.answers import embedded, normed
from service.providers.calls import Calls
from service.providers.gate import ProviderError
from service.settings import Settings
from service.telemetry import EMBED_FAILURES, EMBED_SECONDS, EMBEDDED

CHUNK = 256  # texts per request
CHUNK_BYTES = 256 * 1024  # OpenAI takes 300,000 tokens per request, and a token has a byte or more
BULK = 2048  # OpenAI's own bound
BULK_BYTES = 300_000
TEXT_S = 0.05  # what each further text of a call adds to its time


class OpenAIEmbedder:
    """Fulfils `cache.ports.Embedder`. A caller that is cancelled ends its own requests and no others."""

    revision = "openai-api"

    def __init__(self, settings: Settings) -> None:
        self.model = settings.openai_model
        self.dim = settings.openai_dimensions
        self._settings = settings
        self._client = _client(settings)
        self._calls = Calls("the embeddings API", settings.openai_concurrency)

    def unfit(self, text: str) -> str | None:
        """`too_long` for the model, where many servers cut silently and texts that begin alike are one."""
        longest = self._settings.openai_max_bytes
        if len(text) > longest or len(text.encode()) > longest:
            return "too_long"
        return None if text.strip() else "unknown_characters"

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `cache.ports.Embedder`."""
        return normed((await self.raw(texts)).rows)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        """See `cache.ports.Embedder`."""
        if not texts:
            return Embedded(np.empty((0, self.dim or 0), np.float32), 0)
        allowed_s = self._settings.openai_timeout_s + TEXT_S * len(texts[1:])
        deadline = asyncio.get_running_loop().time() + allowed_s
        try:
            async with asyncio.TaskGroup() as group:
                chunks = [group.create_task(self._chunk(chunk, deadline)) for chunk in _chunks(texts, bulk)]
        except* ProviderError as failed:
            error = _first(failed)
        else:
            parts = [chunk.result() for chunk in chunks]
            return Embedded(np.concatenate([one.rows for one in parts]), sum(one.tokens for one in parts))
        EMBED_FAILURES.labels(error.why).inc()
        raise error

    async def _chunk(self, texts: Sequence[str], deadline: float) -> Embedded:
        return await self._calls.made(lambda: self._called(texts, deadline), deadline)

    async def _called(self, texts: Sequence[str], deadline: float) -> Embedded:
        with EMBED_SECONDS.labels("openai").time():
            EMBEDDED.inc(len(texts))
            body, count = await self._answer(texts, deadline), len(texts)
            large = count > CHUNK  # others have their turn meanwhile
            answer = await asyncio.to_thread(embedded, body, count) if large else embedded(body, count)
            dim = answer.rows.shape[1]
            self.dim = self.dim or dim
            if dim != self.dim:
                raise ProviderError(
                    "dimension", f"the embeddings API answered {dim} dimensions, not {self.dim}"
                )
        return answer

    async def _answer(self, texts: Sequence[str], deadline: float) -> bytes:
        """The body of one request's answer, not yet checked: the SDK believes everything."""
        settings = self._settings
        async with self._calls.asking(deadline):
            answer = await self._client.embeddings.with_raw_response.create(
                model=settings.openai_model,
                input=list(texts),
                dimensions=settings.openai_dimensions or omit,
                encoding_format="base64",
                extra_headers={"Authorization": Omit()} if settings.openai_api_key is None else None,
            )
            return answer.content

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


def _client(settings: Settings) -> AsyncOpenAI:
    for name in ("openai", "httpx2"):  # one logs each request, the other, on demand, its text
        logging.getLogger(name).setLevel(logging.WARNING)
    client = AsyncOpenAI(
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key or "none",  # then the header is left out
        max_retries=0,
        # No timeouts: the deadline of the call is the one that counts. A text follows no redirect.
        http_client=DefaultAsyncHttpxClient(timeout=None, follow_redirects=False),
    )
    # The SDK takes these from the environment, which is not ours.
    client.organization = client.project = client.admin_api_key = client.webhook_secret = None
    client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS; there is no other way
    return client


def _chunks(texts: Sequence[str], bulk: bool) -> Iterator[list[str]]:  # noqa: FBT001 - passed on
    """In order; bounded in number and size, but for a text that is larger by itself."""
    most, most_bytes = (BULK, BULK_BYTES) if bulk else (CHUNK, CHUNK_BYTES)
    chunk: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if chunk and (len(chunk) == most or size + length > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += length
    if chunk:
        yield chunk


def _first(group: BaseExceptionGroup[ProviderError]) -> ProviderError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@asynccontextmanager
async def provider(settings: Settings) -> AsyncIterator[OpenAIEmbedder]:
    """The embedder, its connections closed at the end. Calls nobody yet."""
    embedder = OpenAIEmbedder(settings)
    try:
        yield embedder
    finally:
        await embedder.close()
