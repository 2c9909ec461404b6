"""What an operator sees of a migration, and how much of Redis it takes."""

import asyncio
import math
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Bar:
    """Entries that are done, with rate and remaining time; nothing where nobody watches."""

    def __init__(self, what: str, total: int) -> None:
        self._bar: tqdm[Any] = tqdm(total=total, desc=what, unit="entry", disable=None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """So many more."""
        self._bar.update(count)

    def reach(self, count: int) -> None:
        """So many in all."""
        self._bar.update(count - self._bar.n)


class Pace:
    """Works for a share of the time: what Redis does for us, it does for nobody else."""

    def __init__(self, share: float) -> None:
        self._rest = 1 / share - 1
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._owed = self._rest * (perf_counter() - self._begun)

    async def rest(self) -> None:
        """For as long as the last work took, by the share."""
        await asyncio.sleep(self._owed)


class Rate:
    """So many texts a second at most; None: as fast as the embedder goes."""

    def __init__(self, per_s: float | None) -> None:
        self._per_s = math.inf if per_s is None else per_s

    def at_once(self, most: int) -> int:
        """Of how many texts a call may be: not of more than a second's."""
        return max(1, int(min(most, self._per_s)))

    def owed_s(self, texts: int, took_s: float) -> float:
        """How long to rest after a call of so many."""
        return max(0.0, texts / self._per_s - took_s)


Say = Callable[[str], None]
