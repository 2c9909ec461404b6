"""Whether the event loop was held up: then it is not Redis that was late."""

import asyncio
from time import perf_counter

TICK_S = 0.02
LAG_S = 0.05


class Lag:
    """Looks at the clock again and again; starts with the first question about it."""

    def __init__(self) -> None:
        self._looked = self._late = float("-inf")
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From inside of the loop."""
        if self._next is None:
            self._looked = perf_counter()
            self._tick()

    def _tick(self) -> None:
        self._look()
        self._next = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _look(self) -> None:
        now = perf_counter()
        if now - self._looked > TICK_S + LAG_S:
            self._late = now
        self._looked = now

    def since(self, begun: float) -> bool:
        """Whether it was held up for more than `LAG_S` since then, by `perf_counter`."""
        self._look()
        return self._late > begun

    def stop(self) -> None:
        """No more looks."""
        if self._next is not None:
            self._next.cancel()
