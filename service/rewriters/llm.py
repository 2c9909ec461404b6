"""A rewriter on top of any LLM: deadline, retries and the check of each answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from service.model import Message
from service.providers.calls import Calls
from service.providers.gate import ProviderError
from service.rewriters import prompt
from service.rewriters.belief import believed
from service.settings import Settings
from service.telemetry import REWRITE_FAILURES, REWRITE_SECONDS

Send = Callable[[str], Awaitable[bytes]]
"""The conversation as data → the body of the API's answer; raises whatever its SDK does."""

Read = Callable[[bytes], str | None]
"""That body → what the LLM says, None unless it came to its end; raises what msgspec does."""


class LLMRewriter:
    """Fulfils `cache.ports.Rewriter`."""

    def __init__(self, settings: Settings, send: Send, read: Read) -> None:
        self.version = f"{settings.rewriter} {settings.rewriter_model} {prompt.VERSION}"
        self._timeout_s = settings.rewriter_timeout_s
        self._calls = Calls("the rewriter", settings.rewriter_concurrency)
        self._send = send
        self._read = read

    async def rewritten(self, messages: Sequence[Message], asked: str) -> str:
        """See `cache.ports.Rewriter`."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        try:
            data = prompt.shown(messages, asked)
            said = await self._calls.made(lambda: self._asked(data, deadline), deadline)
            return believed(said, messages, asked)
        except ProviderError as error:
            REWRITE_FAILURES.labels(error.why).inc()
            raise

    async def _asked(self, data: str, deadline: float) -> str | None:
        with REWRITE_SECONDS.time():
            async with self._calls.asking(deadline):
                body = await self._send(data)
            return self._said(body)

    def _said(self, body: bytes) -> str | None:
        try:
            return self._read(body)
        except (msgspec.DecodeError, ValueError, IndexError, RecursionError):
            raise ProviderError("rubbish", "the rewriter answered no message") from None
