"""Runs a blocking verifier off the event loop, a few pairs at a time, so that a batch holds nobody up."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Protocol

from service.errors import VerifierError
from service.telemetry import VERIFIED, VERIFY_FAILURES, VERIFY_SECONDS

Pair = tuple[str, str]

SLICE = 4  # pairs per run: more gains nothing on one thread, and others wait
PATIENCE_S = 1.0
PAIR_PATIENCE_S = 0.1  # for each pair of a call; the longest takes 0.06 s on a slow core
MAX_WAITING = 1024  # pairs; whoever comes later would wait in vain
WARM_S = 30.0


class Model(Protocol):
    """A blocking verifier."""

    version: str
    cut: float

    def run(self, pairs: Sequence[Pair]) -> list[float | None]: ...


class ThreadedVerifier:
    """Fulfils `cache.ports.Verifier` on top of a blocking model."""

    def __init__(self, model: Model, *, patience_s: float = PATIENCE_S) -> None:
        self._model = model
        self._patience_s = patience_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._waiting = 0
        self.version, self.cut = model.version, model.cut

    async def scores(self, pairs: Sequence[Pair]) -> list[float | None]:
        """See `cache.ports.Verifier`."""
        if self._waiting + len(pairs) > MAX_WAITING:
            raise _failed("busy", "the verifier is busy")
        self._waiting += len(pairs)
        try:
            async with asyncio.timeout(self._patience_s + PAIR_PATIENCE_S * len(pairs)):
                slices = [pairs[at : at + SLICE] for at in range(0, len(pairs), SLICE)]
                return [score for part in slices for score in await self._run(part)]
        except TimeoutError:
            raise _failed("slow", "the verifier is busy or hangs") from None
        finally:
            self._waiting -= len(pairs)

    async def warm(self) -> None:
        """The first run, with more patience: where a service starts, many do, and nobody waits for an answer.

        Raises:
            VerifierError: it hangs or fails.
        """
        try:
            async with asyncio.timeout(WARM_S):
                await self._run([("warm up", "warm it up")])
        except TimeoutError:
            raise _failed("slow", "the verifier hangs") from None

    async def _run(self, pairs: Sequence[Pair]) -> list[float | None]:
        VERIFIED.inc(len(pairs))
        loop = asyncio.get_running_loop()
        try:
            with VERIFY_SECONDS.time():
                return await loop.run_in_executor(self._executor, self._model.run, pairs)
        except Exception as error:
            raise _failed("model", f"the verifier failed: {error}") from error

    def close(self) -> None:
        """Turn away who still waits."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _failed(why: str, message: str) -> VerifierError:
    VERIFY_FAILURES.labels(why).inc()
    return VerifierError(message)


@asynccontextmanager
async def threaded(model: Model) -> AsyncIterator[ThreadedVerifier]:
    """A verifier that is warm: the first run, the slow one, is done."""
    verifier = ThreadedVerifier(model)
    try:
        await verifier.warm()
        yield verifier
    finally:
        verifier.close()
