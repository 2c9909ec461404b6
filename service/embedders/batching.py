"""Joins texts of concurrent requests into runs of the model, off the event loop; equal texts run once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EmbedderError
from service.telemetry import EMBED_BATCH, EMBEDDED

Row = NDArray[np.float32]

BATCH = 16  # more gains nothing on few cores, and the first of a batch waits for the last
RUN_CHARS = 2048  # of all texts, padded to the longest: 16 long texts in one run are slower than one by one


class Model(Protocol):
    """A blocking model."""

    model: str
    revision: str
    dim: int

    def unfit(self, text: str) -> str | None: ...

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class BatchingEmbedder:
    """Fulfils `cache.ports.Embedder` on top of a blocking model.

    While a run is on, further texts gather; the next run takes those of like size. A caller that is
    cancelled harms nobody: the run goes on for the others.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._waiting: dict[str, asyncio.Future[Row]] = {}
        self._running: dict[str, asyncio.Future[Row]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._task: asyncio.Task[None] | None = None
        self.model, self.revision, self.dim = model.model, model.revision, model.dim

    def unfit(self, text: str) -> str | None:
        """See `cache.ports.Embedder`."""
        return self._model.unfit(text)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `cache.ports.Embedder`."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        futures = [self._future(text) for text in texts]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        rows = await asyncio.gather(*(asyncio.shield(future) for future in futures))
        return np.stack(rows)

    def _future(self, text: str) -> asyncio.Future[Row]:
        future = self._running.get(text) or self._waiting.get(text)
        if future is None:
            future = self._waiting[text] = asyncio.get_running_loop().create_future()
        return future

    async def _work(self) -> None:
        while self._waiting:
            chosen = _like_the_first(list(self._waiting))
            self._running = {text: self._waiting.pop(text) for text in chosen}
            await self._run(chosen)
            self._running = {}

    async def _run(self, texts: list[str]) -> None:
        EMBED_BATCH.observe(len(texts))
        EMBEDDED.inc(len(texts))
        loop = asyncio.get_running_loop()
        try:
            rows = _checked(
                await loop.run_in_executor(self._executor, self._model.run, texts), len(texts), self.dim
            )
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to those who wait
            failure = (
                error if isinstance(error, EmbedderError) else EmbedderError(f"the model failed: {error}")
            )
            for text in texts:
                future = self._running[text]
                future.set_exception(failure)
                future.exception()  # seen, in case every caller is gone
            return
        for text, row in zip(texts, rows, strict=True):
            self._running[text].set_result(row)

    async def close(self) -> None:
        """Let the run that is on end."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._executor.shutdown()


def _like_the_first(waiting: list[str]) -> list[str]:
    """The text that waits longest, and those near to it in size: padding is work."""
    first = waiting[0]
    chosen, longest = [first], len(first)
    for text in sorted(waiting[1:], key=lambda text: abs(len(text) - len(first))):
        longest = max(longest, len(text))
        if len(chosen) == BATCH or longest * (len(chosen) + 1) > RUN_CHARS:
            break
        chosen.append(text)
    return chosen


def _checked(rows: NDArray[np.float32], count: int, dim: int) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=-1)
    if rows.shape != (count, dim) or not (np.abs(norms - 1) < 1e-3).all():  # noqa: PLR2004 - false for NaN
        raise EmbedderError(f"the model answered shape {rows.shape}, or vectors that are not of norm 1")
    return rows


@asynccontextmanager
async def batching(model: Model) -> AsyncIterator[BatchingEmbedder]:
    """An embedder that is warm: the first run, the slow one, is done."""
    embedder = BatchingEmbedder(model)
    try:
        await embedder.embed(["warm up"])
        yield embedder
    finally:
        await embedder.close()
