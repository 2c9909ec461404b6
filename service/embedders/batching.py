"""Joins texts of concurrent requests into runs of the model, off the event loop; equal texts run once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.cache.ports import Embedded
from service.errors import EmbedderError
from service.telemetry import EMBED_BATCH, EMBED_FAILURES, EMBED_SECONDS, EMBEDDED

Row = NDArray[np.float32]

BATCH = 16  # more gains nothing on few cores, and the first of a batch waits for the last
PATIENCE_S = 5.0
TEXT_PATIENCE_S = 0.2  # for each text of a call; the longest takes 0.05 s on a slow core
CLOSE_S = 5.0
MAX_WAITING = 4096  # texts; whoever comes later would wait in vain
BULK = 256  # texts of a call in bulk that wait at a time: it must not fill the queue for seconds
RUN_CHARS = 2048  # of all texts, padded to the longest: 16 long texts in one run are slower than one by one
PADDING_CHARS = 80  # of a run: 20 pieces, which cost what a run costs before its first piece


class Model(Protocol):
    """A blocking model."""

    model: str
    revision: str
    dim: int

    def unfit(self, text: str) -> str | None: ...

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]: ...

    def tokens(self, texts: Sequence[str]) -> int: ...


@dataclass(slots=True)
class Waiting:
    """A text that waits for its run, or for its run's end."""

    text: str
    crowd: int  # how many texts the smallest of its calls has
    row: asyncio.Future[Row]
    callers: int = 0


class BatchingEmbedder:
    """Fulfils `cache.ports.Embedder` on top of a blocking model.

    While a run is on, further texts gather; the next run takes those of like size. A caller that is
    cancelled harms nobody: the run goes on for the others.
    """

    def __init__(
        self,
        model: Model,
        *,
        patience_s: float = PATIENCE_S,
        batch: int = BATCH,
        padding: int = PADDING_CHARS,
    ) -> None:
        self._model = model
        self._patience_s = patience_s
        self._batch = batch
        self._padding = padding
        self._waiting: dict[str, Waiting] = {}
        self._running: dict[str, Waiting] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._task: asyncio.Task[None] | None = None
        self.model, self.revision = model.model, model.revision
        self.dim: int | None = model.dim

    def unfit(self, text: str) -> str | None:
        """See `cache.ports.Embedder`."""
        return self._model.unfit(text)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `cache.ports.Embedder`."""
        if not texts:
            return np.empty((0, self._model.dim), np.float32)
        if len(self._waiting) + len(texts) > MAX_WAITING:
            raise _failed("busy", "the model is busy")
        waiting = [self._joined(text, len(texts)) for text in texts]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(self._patience_s + TEXT_PATIENCE_S * len(texts)):
                return np.stack(await asyncio.gather(*(asyncio.shield(one.row) for one in waiting)))
        except TimeoutError:
            raise _failed("slow", "the model is busy or hangs") from None
        finally:
            for one in waiting:
                self._left(one)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        """See `cache.ports.Embedder`."""
        if not bulk:
            return Embedded(await self.embed(texts), 0)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # runs are of texts alike in size
        rows = np.empty((len(texts), self._model.dim), np.float32)
        for at in range(0, len(order), BULK):
            some = order[at : at + BULK]
            rows[some] = await self.embed([texts[one] for one in some])
        return Embedded(rows, await asyncio.to_thread(self._model.tokens, texts))

    def _joined(self, text: str, crowd: int) -> Waiting:
        known = self._running.get(text) or self._waiting.get(text)
        if known is None:
            row: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
            known = self._waiting[text] = Waiting(text, crowd, row)
        known.crowd = min(known.crowd, crowd)
        known.callers += 1
        return known

    def _left(self, one: Waiting) -> None:
        """A caller got its row, or gave up: nobody runs what nobody waits for."""
        one.callers -= 1
        if one.callers == 0 and self._waiting.get(one.text) is one:
            del self._waiting[one.text]

    async def _work(self) -> None:
        for turn in itertools.count():
            if not self._waiting:
                return
            # Calls with few texts go first, but every other run is for the text that waits longest.
            waiting = list(self._waiting.values())
            first = waiting[0] if turn % 2 else min(waiting, key=lambda one: one.crowd)
            chosen = _alike(first.text, [one.text for one in waiting], self._batch, self._padding)
            self._running = {text: self._waiting.pop(text) for text in chosen}
            await self._run(chosen)
            self._running = {}

    async def _run(self, texts: list[str]) -> None:
        EMBED_BATCH.observe(len(texts))
        EMBEDDED.inc(len(texts))
        loop = asyncio.get_running_loop()
        try:
            with EMBED_SECONDS.labels("local").time():
                rows = await loop.run_in_executor(self._executor, self._ran, texts)
        except Exception as error:  # noqa: BLE001 - whatever a model raises belongs to those who wait
            EMBED_FAILURES.labels("model").inc()
            failure = (
                error if isinstance(error, EmbedderError) else EmbedderError(f"the model failed: {error}")
            )
            for text in texts:
                future = self._running[text].row
                future.set_exception(failure)
                future.exception()  # seen, in case every caller is gone
            return
        for text, row in zip(texts, rows, strict=True):
            self._running[text].row.set_result(row)

    def _ran(self, texts: list[str]) -> NDArray[np.float32]:
        """In the executor's thread."""
        return _checked(self._model.run(texts), len(texts), self._model.dim)

    async def close(self) -> None:
        """Turn away who still waits, and give the run that is on a while to end."""
        for one in self._waiting.values():
            one.row.set_exception(EmbedderError("the service is ending"))
            one.row.exception()  # seen, in case every caller is gone
        self._waiting.clear()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_S)
        self._executor.shutdown(wait=False, cancel_futures=True)


def _failed(why: str, message: str) -> EmbedderError:
    EMBED_FAILURES.labels(why).inc()
    return EmbedderError(message)


def _alike(first: str, waiting: Sequence[str], batch: int, padding: int) -> list[str]:
    """`first`, and those near to it in size: padding is work, and so is a run more."""
    chosen, longest, total = [first], len(first), len(first)
    for text in sorted(waiting, key=lambda text: abs(len(text) - len(first))):
        if text == first:
            continue
        longest, total = max(longest, len(text)), total + len(text)
        padded = longest * (len(chosen) + 1)
        if len(chosen) == batch or padded > RUN_CHARS or padded - total > padding:
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
