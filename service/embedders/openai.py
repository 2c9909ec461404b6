"""A model behind the OpenAI embeddings API: OpenAI itself, vLLM, TEI, Ollama and others.

The SDK sends and receives; deadlines, retries, pauses and the check of each answer are ours.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, Omit, omit
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from service.embedders.answers import vectors
from service.embedders.gate import Gate, ProviderError, RetryBudget, Why, retry_after_s
from service.settings import Settings
from service.telemetry import EMBED_FAILURES, EMBED_SECONDS, EMBEDDED

CHUNK = 256  # texts per request
CHUNK_BYTES = 256 * 1024  # OpenAI takes 300,000 tokens per request, and a token has a byte or more
TEXT_S = 0.05  # what each further text of a call adds to its time
ATTEMPTS = 2

_REFUSED_TEXT = {400, 413, 422}
_MAY_PASS = {408, 409}
_jittered = wait_exponential_jitter(multiplier=0.05, jitter=0.1)


class OpenAIEmbedder:
    """Fulfils `cache.ports.Embedder`. A caller that is cancelled ends its own requests and no others."""

    revision = "openai-api"

    def __init__(self, settings: Settings) -> None:
        self.model = settings.openai_model
        self.dim = settings.openai_dimensions
        self._settings = settings
        self._client = _client(settings)
        self._slots = asyncio.Semaphore(settings.openai_concurrency)
        self._gate = Gate()
        self._budget = RetryBudget()

    def unfit(self, text: str) -> str | None:
        """`too_long` for the model, where many servers cut silently and texts that begin alike are one."""
        longest = self._settings.openai_max_bytes
        if len(text) > longest or len(text.encode()) > longest:
            return "too_long"
        return None if text.strip() else "unknown_characters"

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `cache.ports.Embedder`."""
        if not texts:
            return np.empty((0, self.dim or 0), np.float32)
        allowed_s = self._settings.openai_timeout_s + TEXT_S * len(texts[1:])
        deadline = asyncio.get_running_loop().time() + allowed_s
        try:
            async with asyncio.TaskGroup() as group:
                chunks = [group.create_task(self._chunk(chunk, deadline)) for chunk in _chunks(texts)]
        except* ProviderError as failed:
            error = _first(failed)
        else:
            return np.concatenate([chunk.result() for chunk in chunks])
        EMBED_FAILURES.labels(error.why).inc()
        raise error

    async def _chunk(self, texts: Sequence[str], deadline: float) -> NDArray[np.float32]:
        self._gate.check()  # before waiting in vain
        async with self._slot(deadline):
            retrying = AsyncRetrying(
                retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.may_pass),
                wait=_wait_s,
                stop=self._stop(deadline),
                reraise=True,
            )
            rows: NDArray[np.float32] = await retrying(self._called, texts, deadline)
        self._budget.earn()
        return rows

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise ProviderError("busy", "too many calls of the embeddings API are under way") from None
        try:
            yield
        finally:
            self._slots.release()

    def _stop(self, deadline: float) -> Callable[[RetryCallState], bool]:
        def stop(state: RetryCallState) -> bool:
            after = asyncio.get_running_loop().time() + state.upcoming_sleep
            return state.attempt_number >= ATTEMPTS or after >= deadline or not self._budget.spend()

        return stop

    async def _called(self, texts: Sequence[str], deadline: float) -> NDArray[np.float32]:
        with self._gate.call(), EMBED_SECONDS.labels("openai").time():
            EMBEDDED.inc(len(texts))
            rows = vectors(await self._answer(texts, deadline), len(texts))
            self.dim = self.dim or rows.shape[1]
            if rows.shape[1] != self.dim:
                raise ProviderError(
                    "dimension", f"the embeddings API answered {rows.shape[1]} dimensions, not {self.dim}"
                )
        return rows

    async def _answer(self, texts: Sequence[str], deadline: float) -> bytes:
        """The body of one request's answer, not yet checked: the SDK believes everything."""
        settings = self._settings
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._client.embeddings.with_raw_response.create(
                    model=settings.openai_model,
                    input=list(texts),
                    dimensions=settings.openai_dimensions or omit,
                    encoding_format="base64",
                    extra_headers={"Authorization": Omit()} if settings.openai_api_key is None else None,
                )
                return answer.content
        except TimeoutError:
            raise ProviderError("slow", "the embeddings API did not answer in time") from None
        except APIStatusError as error:
            raise _of_status(error) from None
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the call failed
            raise ProviderError(
                "connection", f"the embeddings API can't be reached: {type(error).__name__}"
            ) from None

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


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """In order; bounded in number and size, but for a text that is larger by itself."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if chunk and (len(chunk) == CHUNK or size + length > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += length
    if chunk:
        yield chunk


def _first(group: BaseExceptionGroup[ProviderError]) -> ProviderError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _wait_s(state: RetryCallState) -> float:
    """What the provider asked for, and a little more, so that not all come back at once."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ProviderError) else None
    return (asked or 0.0) + _jittered(state)


def _of_status(error: APIStatusError) -> ProviderError:
    status = error.status_code
    why: Why = "refused"
    if status in _REFUSED_TEXT:
        why = "text"
    elif status == 429:  # noqa: PLR2004 - HTTP
        why = "rate_limited"
    elif status >= 500 or status in _MAY_PASS:  # noqa: PLR2004 - HTTP
        why = "server"
    after = retry_after_s(error.response.headers.get("retry-after"), time.time())
    return ProviderError(why, f"the embeddings API answered {status}", after)


@asynccontextmanager
async def provider(settings: Settings) -> AsyncIterator[OpenAIEmbedder]:
    """The embedder, its connections closed at the end. Calls nobody yet."""
    embedder = OpenAIEmbedder(settings)
    try:
        yield embedder
    finally:
        await embedder.close()
