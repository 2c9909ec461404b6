"""What every worker does: it fills, looks up and stores as it is told on stdin, a JSON line each way.

Only the call itself is timed. What a peer's embedding function would look up is laid ready before.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

ANSWER_CHARS = 500
PAGE = 1000

Floats = NDArray[np.float32]


class Part(NamedTuple):
    """Texts, whose they are, their vectors [n, dim], and the number of the first."""

    texts: Sequence[str]
    tenants: Sequence[str]
    vectors: Floats
    first: int

    @property
    def answers(self) -> list[str]:
        return [answer(self.first + at, text) for at, text in enumerate(self.texts)]


class Contender(Protocol):
    """A cache that is measured."""

    async def prepare(self, part: Part) -> None:
        """Lay ready the vectors of texts that are about to be asked or stored."""

    async def fill(self, part: Part) -> None:
        """Store many, by whatever way is quick."""

    async def lookup(self, text: str) -> str | None:
        """The answer that is served."""

    async def store(self, text: str, answer: str) -> None:
        """Store one, as a user does."""

    async def size(self) -> int | None:
        """Bytes on disk and in the process of all entries; None: Redis tells."""


class Given(NamedTuple):
    """What a worker is started with."""

    work: Path
    target: str  # address of a Redis or a service; else empty
    place: Path  # a folder of its own
    threshold: float
    form: str

    def part(self, kind: str, begin: int, end: int) -> Part:
        """Some of the work."""
        vectors = np.load(self.work / f"{kind}.npy", mmap_mode="r")
        told = read(self.work / f"{kind}.json")
        rows = np.asarray(vectors[begin:end], np.float32)
        return Part(told["texts"][begin:end], told["tenants"][begin:end], rows, told["first"] + begin)

    @property
    def dim(self) -> int:
        return int(np.load(self.work / "entries.npy", mmap_mode="r").shape[1])


@cache
def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


Open = Callable[[Given], AbstractAsyncContextManager[Contender]]


def answer(number: int, text: str) -> str:
    """The answer of an entry: its number, then words, ANSWER_CHARS long."""
    return (f"answer {number} to: " + f"{text} " * ANSWER_CHARS)[:ANSWER_CHARS]


def number_of(served: str | None) -> int | None:
    """Whose answer it is."""
    return None if served is None else int(served.split(" ", 2)[1])


def main(opened: Open, packages: Sequence[str], run: Callable[[Any], Any] = asyncio.run) -> None:
    """Work until stdin ends. What libraries print goes to stderr."""
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    work, target, place, threshold, form = sys.argv[1:]
    given = Given(Path(work), target, Path(place), float(threshold), form)

    async def serve() -> None:
        async with opened(given) as contender:
            print(json.dumps({"versions": {name: version(name) for name in packages}}), file=say)
            async for told in orders():
                print(json.dumps(await DO[told["do"]](contender, given, told)), file=say)

    run(serve())


async def orders() -> AsyncIterator[Mapping[str, Any]]:
    """Blocks the loop while there is nothing to do, but for what runs beside (heartbeats, flushes)."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


async def fill(contender: Contender, given: Given, told: Mapping[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    for begin in range(0, told["count"], PAGE):
        await contender.fill(given.part("entries", begin, min(begin + PAGE, told["count"])))
    return {"s": time.perf_counter() - begun}


async def lookup(contender: Contender, given: Given, told: Mapping[str, Any]) -> dict[str, Any]:
    part = given.part(told["kind"], told["from"], told["to"])
    texts = [text + told["mark"] for text in part.texts]
    await contender.prepare(part._replace(texts=texts))
    taken, served, cpu = [], [], time.process_time()
    for text in texts:
        begun = time.perf_counter()
        found = await contender.lookup(text)
        taken.append(1000 * (time.perf_counter() - begun))
        served.append(number_of(found))
    return {"ms": taken, "served": served, "cpu_ms": 1000 * (time.process_time() - cpu)}


async def store(contender: Contender, given: Given, told: Mapping[str, Any]) -> dict[str, Any]:
    part = given.part("new", told["from"], told["to"])
    texts = [text + told["mark"] for text in part.texts]
    await contender.prepare(part._replace(texts=texts))
    taken = []
    for text, one in zip(texts, part.answers, strict=True):
        begun = time.perf_counter()
        await contender.store(text, one)
        taken.append(1000 * (time.perf_counter() - begun))
    return {"ms": taken}


async def size(contender: Contender, _given: Given, _told: Mapping[str, Any]) -> dict[str, Any]:
    return {"bytes": await contender.size()}


DO = {"fill": fill, "lookup": lookup, "store": store, "size": size}
