"""A reader from a process of its own that asks, every few ms, what one that starts now would find."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import msgspec
import numpy as np
from redis import Redis, exceptions

from service.model import Generation
from service.store.keys import Keys
from service.store.vectors import packed

EVERY_S = 0.005
NEAREST = 3


class Polled(msgspec.Struct):
    """What it saw."""

    polls: int = 0
    moved: int = 0  # another generation was published between reading its record and searching it
    away: int = 0  # Redis was
    building: int = 0  # Redis, just started, was still reading documents into the index
    flaws: list[str] = []


class Polling:
    """The process, seen from outside."""

    def __init__(self, told: "multiprocessing.Queue[bytes]", over: Event) -> None:
        self._told, self._over = told, over

    def end(self) -> Polled:
        """What it saw; it asks no more."""
        self._over.set()
        return msgspec.json.decode(self._told.get(timeout=30), type=Polled)


@contextmanager
def polling(url: str, partitions: int, prefix: str = "sc") -> Iterator[Polling]:
    """One at work."""
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[bytes] = context.Queue()
    over = context.Event()
    process = context.Process(target=_run, args=(url, Keys(prefix), partitions, told, over), daemon=True)
    process.start()
    try:
        yield Polling(told, over)
    finally:
        over.set()
        process.join(10)
        process.kill()


def _run(url: str, keys: Keys, partitions: int, told: "multiprocessing.Queue[bytes]", over: Event) -> None:
    redis = Redis.from_url(url, protocol=2, socket_timeout=10)
    seen, reader = Polled(), _Reader(redis, keys, partitions)
    while not over.is_set():
        try:
            reader.poll(seen)
        except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError):
            seen.away += 1
        over.wait(EVERY_S)
    told.put(msgspec.json.encode(seen))


class _Reader:
    def __init__(self, redis: "Redis", keys: Keys, partitions: int) -> None:
        self._redis, self._keys = redis, keys
        self._partitions = partitions
        self._rng = np.random.default_rng(1)

    def poll(self, seen: Polled) -> None:
        """What the record names answers; else it names another by now."""
        seen.polls += 1
        while True:
            generation = self._generation()
            why = "there is no generation" if generation is None else self._wrong(generation, seen)
            if why is None:
                return
            if self._generation() == generation:
                seen.flaws.append(f"at {time.time():.3f}: {why}")
                return
            seen.moved += 1

    def _generation(self) -> Generation | None:
        raw: Any = self._redis.get(self._keys.meta("responses:generation"))
        return None if raw is None else msgspec.json.decode(raw, type=Generation)

    def _wrong(self, generation: Generation, seen: Polled) -> str | None:
        indexes = [self._keys.index(one, generation) for one in range(self._partitions)]
        try:
            found = sum(self._nearest(one, generation) for one in indexes)
            if found >= NEAREST:
                return None
            if any(self._is_building(one) for one in indexes):
                seen.building += 1
                return None
        except exceptions.ResponseError as error:
            return f"generation {generation.number}: {error}"
        return f"generation {generation.number}: {found} of {NEAREST} nearest"

    def _nearest(self, index: str, generation: Generation) -> int:
        drawn = self._rng.normal(size=generation.dim)
        vector = packed((drawn / np.linalg.norm(drawn)).astype(np.float32), "", generation)
        nearest = f"*=>[KNN {NEAREST} @vector $vector]"
        told: Any = self._redis.execute_command(
            *("FT.SEARCH", index, nearest, "PARAMS", 2, "vector", vector, "NOCONTENT", "DIALECT", 2)
        )
        return int(told[0])

    def _is_building(self, index: str) -> bool:
        info: Any = self._redis.execute_command("FT.INFO", index)
        return bool(int(dict(zip(info[::2], info[1::2], strict=True))[b"indexing"]))
