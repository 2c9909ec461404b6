"""Embeddings and pointers on their way to Redis: off the requests' way, each once, many in one round trip.

What has not been written when the process is killed is made again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from service.cache.ports import Budget
from service.errors import StoreUnavailableError

log = logging.getLogger(__name__)

FLUSH_S = 0.1
PAGE_BYTES = 2**20
"""What is written per round trip."""
MOST_BYTES = 2**23
"""What may wait; what comes beyond isn't kept."""


class Item(Protocol):
    """What is to be written."""

    @property
    def name(self) -> str:
        """Of one tenant, or of all: made with a key."""

    @property
    def size(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Item)
New_contra = TypeVar("New_contra", bound=Item, contravariant=True)


class Keeps(Protocol[New_contra]):
    """Where it is written."""

    async def write(self, new: Sequence[New_contra], budget: Budget) -> None:
        """Keep them, in one round trip.

        Raises:
            StoreUnavailableError: some may not have been kept.
        """


def pages(new: list[T]) -> list[list[T]]:
    """What each round trip writes, in order."""
    made: list[list[T]] = []
    size = PAGE_BYTES
    for one in new:
        size += one.size
        if size > PAGE_BYTES:
            made.append([])
            size = one.size
        made[-1].append(one)
    return made


class Writing(Generic[T]):
    """What waits to be written, readable meanwhile under its name."""

    def __init__(self, kept: Keeps[T], redis_s: float) -> None:
        self._kept = kept
        self._redis_s = redis_s
        self._waiting: dict[str, T] = {}
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # who deletes waits for what is on its way

    def get(self, name: str) -> T | None:
        """What has that name, if it waits."""
        return self._waiting.get(name)

    def add(self, one: T) -> None:
        """Write it soon, unless it waits already or there is no room."""
        if one.name in self._waiting or self._size + one.size > MOST_BYTES:
            return
        self._waiting[one.name] = one
        self._size += one.size
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        async with self._turn:
            if self._waiting:
                await self._write()

    async def _write(self) -> None:
        page = pages(list(self._waiting.values()))[0]
        try:
            await self._kept.write(page, Budget(self._redis_s))
        except StoreUnavailableError:  # it is made again next time
            pass
        except Exception:  # a defect must not hold up the rest
            log.exception("unexpected error while writing behind requests")
        finally:
            for one in page:
                del self._waiting[one.name]
                self._size -= one.size

    async def close(self) -> None:
        """Write what still waits, for a moment."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self.at_once()

    async def at_once(self) -> None:
        """Write what waits now, or give up after a request's time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._redis_s):
                while self._waiting:
                    await self._flush()
