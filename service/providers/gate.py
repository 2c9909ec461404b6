"""When a provider may be called: how it failed, how long to leave it alone, how often to try again."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Literal

from service.errors import EmbedderError, JudgeError, RewriterError

log = logging.getLogger(__name__)

Why = Literal[
    "busy",  # of ours: no free slot in time
    "paused",  # of ours: not called, after failures or by its Retry-After
    "connection",
    "slow",
    "rate_limited",
    "server",  # 5xx and the like
    "refused",  # other statuses: a wrong key or address
    "text",  # it refuses this text, or has no use of it
    "rubbish",  # nothing that was asked for, or not as many
    "dimension",
    "values",  # not finite, or of a norm that no model has
]

LONGEST_RETRY_AFTER_S = 60.0
DOWN_AFTER = 5  # failures in a row
PAUSE_S = 1.0
CALLS_PER_RETRY = 10
MOST_RETRIES = 10  # saved up


class ProviderError(EmbedderError, RewriterError, JudgeError):
    """A call that failed, or wasn't made. The message is for callers: nothing of what the provider said."""

    def __init__(self, why: Why, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.why: Why = why
        self.retry_after_s = retry_after_s

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.why in {"connection", "rate_limited", "server"}

    @property
    def answered(self) -> bool:
        """Whether the provider works, and it was this call's text that failed."""
        return self.why in {"text", "values"}


class Gate:
    """Keeps calls away from a provider that asked for it, or that is down; then lets one through to see."""

    def __init__(self, provider: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider  # as in "the embeddings API"
        self._clock = clock
        self._closed_until = 0.0
        self._failures = 0
        self._last = ""  # what the last failure said
        self._probing = False

    def check(self) -> None:
        """Nothing while calls may be made.

        Raises:
            ProviderError: `paused`, with the words of the failure behind it: a log of changes stays calm.
        """
        if self.is_closed:
            raise ProviderError("paused", self._last)

    @property
    def is_closed(self) -> bool:
        """Whether no call may be made now."""
        return self._clock() < self._closed_until or (self._down and self._probing)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around each call; a cancelled one says nothing about the provider.

        Raises:
            ProviderError: as `check`.
        """
        self.check()
        probe = self._down
        self._probing |= probe
        try:
            yield
        except ProviderError as error:
            self._failed(error)
            raise
        else:
            self._worked()
        finally:
            if probe:
                self._probing = False

    @property
    def _down(self) -> bool:
        return self._failures >= DOWN_AFTER

    def _worked(self) -> None:
        if self._down:
            log.info("%s works again", self._provider)
        self._failures = 0

    def _failed(self, error: ProviderError) -> None:
        if error.answered:
            self._worked()
        else:
            self._failures += 1
        self._last = str(error)
        if self._failures == DOWN_AFTER:
            log.warning("%s; the exact tier goes on", self._last)
        pause_s = max(error.retry_after_s or 0.0, PAUSE_S if self._down else 0.0)
        self._closed_until = max(self._closed_until, self._clock() + pause_s)


class RetryBudget:
    """One retry for every ten calls that succeeded: none in a storm, which more calls would only feed."""

    def __init__(self) -> None:
        self._saved = 0

    def earn(self) -> None:
        """A call succeeded."""
        self._saved = min(self._saved + 1, MOST_RETRIES * CALLS_PER_RETRY)

    def spend(self) -> bool:
        """Whether one more retry may be made; then it is taken."""
        if self._saved < CALLS_PER_RETRY:
            return False
        self._saved -= CALLS_PER_RETRY
        return True


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds to wait, 0 to 60; None where the header is absent or no such thing. `now`: s since 1970."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(header).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    return min(seconds, LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else None
