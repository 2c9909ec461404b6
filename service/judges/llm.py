"""A judge on top of any LLM."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import JudgeAwayError
from service.judges import prompt
from service.providers.gate import ProviderError
from service.providers.llm import LLM, Wanted, llm
from service.settings import LLMSettings
from service.telemetry import JUDGE_FAILURES, JUDGE_SECONDS, JUDGED

_NAMES = {True: "same", False: "different", None: "unsure"}


class LLMJudge:
    """Fulfils `cache.ports.Judge`."""

    def __init__(self, version: str, asked: LLM) -> None:
        self.version = version
        self._llm = asked

    @property
    def away(self) -> bool:
        """See `cache.ports.Judge`."""
        return self._llm.away

    async def same(self, question: str, first: str, second: str) -> bool | None:
        """See `cache.ports.Judge`."""
        words = prompt.words()
        try:
            data = prompt.shown(question, first, second)
            verdict = prompt.heard(await self._llm.said(words.instruction, data), words)
        except ProviderError as error:
            JUDGE_FAILURES.labels(error.why).inc()
            if error.why == "paused":
                raise JudgeAwayError(str(error)) from None
            raise
        JUDGED.labels(_NAMES[verdict]).inc()
        return verdict


@asynccontextmanager
async def judge(settings: LLMSettings) -> AsyncIterator[LLMJudge]:
    """Its connections are closed at the end. Calls nobody yet."""
    wanted = Wanted("the judge", settings, prompt.MOST_TOKENS, JUDGE_SECONDS)
    async with llm(wanted) as one:
        yield LLMJudge(f"{settings.api} {settings.model} {prompt.VERSION}", one)
