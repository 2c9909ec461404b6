"""Calls of one provider: bounded in number and time, repeated where that may help, or not made at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from service.providers.gate import Gate, ProviderError, RetryBudget, Why, retry_after_s

T = TypeVar("T")

ATTEMPTS = 2

_REFUSED_TEXT = {400, 413, 422}
_MAY_PASS = {408, 409}
_jittered = wait_exponential_jitter(multiplier=0.05, jitter=0.1)


class Calls:
    """The calls of one provider, by all who make them. Deadlines are times of the event loop."""

    def __init__(self, provider: str, concurrency: int) -> None:
        self._provider = provider
        self._slots = asyncio.Semaphore(concurrency)
        self._gate = Gate(provider)
        self._budget = RetryBudget()

    @property
    def away(self) -> bool:
        """Whether none would be made now."""
        return self._gate.is_closed

    async def made(self, call: Callable[[], Awaitable[T]], deadline: float) -> T:
        """What the call answers, perhaps at the second attempt.

        Raises:
            ProviderError: it failed, or wasn't made.
        """
        self._gate.check()  # before waiting in vain
        async with self._slot(deadline):
            retrying = AsyncRetrying(
                retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.may_pass),
                wait=_wait_s,
                stop=self._stop(deadline),
                reraise=True,
            )
            answer: T = await retrying(self._gated, call)
        self._budget.earn()
        return answer

    async def _gated(self, call: Callable[[], Awaitable[T]]) -> T:
        with self._gate.call():
            return await call()

    @asynccontextmanager
    async def asking(self, deadline: float) -> AsyncIterator[None]:
        """Around what an SDK does: its exceptions become ours.

        Raises:
            ProviderError: whatever it raised, the call failed.
        """
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError:
            raise ProviderError("slow", f"{self._provider} did not answer in time") from None
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the call failed
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> ProviderError:
        """Both SDKs' status errors have `status_code` and `response`; what has none never reached it."""
        status = getattr(error, "status_code", None)
        if status is None:
            return ProviderError("connection", f"{self._provider} can't be reached: {type(error).__name__}")
        response = getattr(error, "response", None)
        after = None if response is None else response.headers.get("retry-after")
        message = f"{self._provider} answered {status}"
        return ProviderError(_why(status), message, retry_after_s(after, time.time()))

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise ProviderError("busy", f"too many calls of {self._provider} are under way") from None
        try:
            yield
        finally:
            self._slots.release()

    def _stop(self, deadline: float) -> Callable[[RetryCallState], bool]:
        def stop(state: RetryCallState) -> bool:
            after = asyncio.get_running_loop().time() + state.upcoming_sleep
            return state.attempt_number >= ATTEMPTS or after >= deadline or not self._budget.spend()

        return stop


def _why(status: int) -> Why:
    if status in _REFUSED_TEXT:
        return "text"
    if status == 429:  # noqa: PLR2004 - HTTP
        return "rate_limited"
    return "server" if status >= 500 or status in _MAY_PASS else "refused"  # noqa: PLR2004 - HTTP


def _wait_s(state: RetryCallState) -> float:
    """What the provider asked for, and a little more, so that not all come back at once."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ProviderError) else None
    return (asked or 0.0) + _jittered(state)
