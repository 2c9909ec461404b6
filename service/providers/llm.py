"""An LLM behind a provider's API, asked one thing at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from prometheus_client import Histogram

from service.providers.calls import Calls
from service.providers.gate import ProviderError
from service.settings import LLMSettings

Send = Callable[[str, str], Awaitable[bytes]]
"""(instruction, data) → the body of the API's answer; raises whatever its SDK does."""

Read = Callable[[bytes], str | None]
"""That body → what the LLM says, None unless it came to its end; raises what msgspec does."""


class Wanted(NamedTuple):
    """Which LLM, and what for."""

    name: str  # as in "the rewriter"
    settings: LLMSettings
    most_tokens: int  # that it may say
    seconds: Histogram  # of its requests


class Api(NamedTuple):
    """How one provider's API is spoken."""

    send: Send
    read: Read


class LLM:
    """Deadline, slots and retries around an API."""

    def __init__(self, wanted: Wanted, api: Api) -> None:
        self._name = wanted.name
        self._timeout_s = wanted.settings.timeout_s
        self._seconds = wanted.seconds
        self._calls = Calls(wanted.name, wanted.settings.concurrency)
        self._api = api

    @property
    def away(self) -> bool:
        """Whether it is left alone now."""
        return self._calls.away

    async def said(self, instruction: str, data: str) -> str | None:
        """What it answers; None: it didn't come to its end.

        Raises:
            ProviderError: it is away, slow, busy, or answered no message.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        return await self._calls.made(lambda: self._asked(instruction, data, deadline), deadline)

    async def _asked(self, instruction: str, data: str, deadline: float) -> str | None:
        with self._seconds.time():
            async with self._calls.asking(deadline):
                body = await self._api.send(instruction, data)
            return self._read(body)

    def _read(self, body: bytes) -> str | None:
        try:
            return self._api.read(body)
        except (msgspec.DecodeError, ValueError, IndexError, RecursionError):
            raise ProviderError("rubbish", f"{self._name} answered no message") from None


@asynccontextmanager
async def llm(wanted: Wanted) -> AsyncIterator[LLM]:
    """Its connections are closed at the end. Calls nobody yet; imports its SDK."""
    if wanted.settings.api == "openai":
        from service.providers.chat import api  # noqa: PLC0415 - when it is needed
    else:
        from service.providers.messages import api  # noqa: PLC0415 - when it is needed
    async with api(wanted) as one:
        yield LLM(wanted, one)
