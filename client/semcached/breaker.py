"""Whether the service is worth asking: after a failure, once a second at most.

Without locks: a lock that another thread holds while the process forks is held for ever in the child. Two
threads may see the same moment and both ask; that does no harm.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("semcached")

RETRY_S = 1.0
LONGEST_S = 30.0
SHARE = 20
"""Asking a dead service takes a twentieth of the time at most: 1 s of waiting, then 20 s without."""
TRUSTED_S = 1.0


class Breaker:
    """Closed while the service answers. Times in seconds of `clock`."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._opened_at = 0.0
        self._opened_until: float | None = None
        self._worked_at: float | None = None
        self._next_word = {"away"}

    @property
    def rests(self) -> bool:
        """Whether there is no point in asking now."""
        until = self._opened_until  # read once: another thread may close it meanwhile
        return until is not None and self._clock() < until

    @property
    def trusted(self) -> bool:
        """Whether the service has answered within the last second."""
        worked_at = self._worked_at
        return worked_at is not None and self._clock() - worked_at < TRUSTED_S

    def allows(self) -> bool:
        """Whether to ask now. Who is allowed while it is open asks for all."""
        until, now = self._opened_until, self._clock()
        if until is None:
            return True
        if now < until:
            return False
        self._opened_until = now + RETRY_S
        return True

    def worked(self, took_s: float) -> None:
        """It answered, after so long. What was asked before the failure says nothing of now."""
        now = self._clock()
        if self._opened_until is not None:
            if now - took_s < self._opened_at:
                return
            self._opened_until = None
            self._say("back", "away", "semcached at %s is back", self._url)
        self._worked_at = now

    def failed(self, error: Exception, took_s: float) -> None:
        """It did not, after so long."""
        now, pause_s = self._clock(), RETRY_S
        if self._opened_until is not None:
            if now - took_s < self._opened_at:
                return  # of many who asked at once, the first says it
            pause_s = min(LONGEST_S, max(RETRY_S, SHARE * took_s))
        self._opened_at, self._opened_until, self._worked_at = now, now + pause_s, None
        told = "semcached at %s is away, functions run uncached: %s"
        self._say("away", "back", told, self._url, error)

    def _say(self, what: str, then: str, message: str, *values: object) -> None:
        """By the one thread that takes the word; `then` is the next."""
        try:
            self._next_word.remove(what)
        except KeyError:
            return
        self._next_word.add(then)
        log.warning(message, *values)
