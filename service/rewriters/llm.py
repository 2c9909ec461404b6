"""A rewriter on top of any LLM: what it is shown, and the check of each answer."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from service.model import Message
from service.providers.gate import ProviderError
from service.providers.llm import LLM, Wanted, llm
from service.rewriters import prompt
from service.rewriters.belief import believed
from service.settings import LLMSettings
from service.telemetry import REWRITE_FAILURES, REWRITE_SECONDS


class LLMRewriter:
    """Fulfils `cache.ports.Rewriter`."""

    def __init__(self, version: str, asked: LLM) -> None:
        self.version = version
        self._llm = asked

    async def rewritten(self, messages: Sequence[Message], asked: str) -> str:
        """See `cache.ports.Rewriter`."""
        try:
            data = prompt.shown(messages, asked)
            said = await self._llm.said(prompt.INSTRUCTION, data)
            return believed(said, messages, asked)
        except ProviderError as error:
            REWRITE_FAILURES.labels(error.why).inc()
            raise


@asynccontextmanager
async def rewriter(settings: LLMSettings) -> AsyncIterator[LLMRewriter]:
    """Its connections are closed at the end. Calls nobody yet."""
    wanted = Wanted("the rewriter", settings, prompt.MOST_TOKENS, REWRITE_SECONDS)
    async with llm(wanted) as one:
        yield LLMRewriter(f"{settings.api} {settings.model} {prompt.VERSION}", one)
