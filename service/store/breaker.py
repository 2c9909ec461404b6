"""The circuit breaker: after enough failures nobody waits for Redis until it is seen to work again.

The pattern is Nygard's (Release It!, 2007): closed, open, and a probe in place of the half-open state.
"""

from collections import deque

IN_A_ROW = 5
WINDOW = 20
OF_WINDOW = 10


class Breaker:
    """Closed while Redis works; opens after 5 failures in a row, or 10 of the last 20 calls."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self.why: str | None = None
        self.times = 0
        """How often it has opened."""

    @property
    def is_open(self) -> bool:
        """Whether calls are turned away."""
        return self.why is not None

    def worked(self) -> None:
        """A call was answered. Late answers don't close it; the probe does."""
        if not self.is_open:
            self._in_a_row = 0
            self._failed.append(False)

    def failed(self, why: str) -> bool:
        """A call was not answered; whether that opened it."""
        if self.is_open:
            return False
        self._in_a_row += 1
        self._failed.append(True)
        if self._in_a_row < IN_A_ROW and self._failed.count(True) < OF_WINDOW:
            return False
        self.why = why
        self.times += 1
        return True

    def close(self) -> None:
        """Redis works again; what was before doesn't count."""
        self._failed.clear()
        self._in_a_row, self.why = 0, None
