"""Does `max_entries` hold, and who stays? Real services over HTTP, counted from behind all along.

    python bench/bounds.py [--scale N] [--output FILE.json]

Three loads: one service (10,000 entries may stay, 50,000 are stored in batches of 256, 500 of them are asked
for all along); two services on one Redis, both storing; and one that is killed while it stores, and started
again. An admin's connection counts the entries every 20 ms. Beside them lie entries of an agent_type without
a bound. All numbers are divided by N. Vectors are random, of 384 dimensions.
"""

import argparse
import base64
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from redis import Redis

from bench.processes import Served, served
from service.store.embedded import EmbeddedRedis

AGENT_TYPE, FREE = "bounded", "free"
DIM, SAMPLE_S, SETTLED_S = 384, 0.02, 60


class Load(NamedTuple):
    """How many entries may stay, are stored, in batches of, are asked for all along."""

    bound: int
    stores: int
    batch: int
    hot: int
    services: int = 1

    def divided(self, by: int) -> "Load":
        numbers = ("bound", "stores", "batch", "hot")
        return self._replace(**{name: max(2, getattr(self, name) // by) for name in numbers})


ONE, TWO, KILLED = (
    Load(10_000, 50_000, 256, 500),
    Load(4_000, 20_000, 32, 200, 2),
    Load(2_000, 6_000, 64, 100),
)


def items(numbers: range, agent_type: str = AGENT_TYPE) -> Iterator[dict[str, str]]:
    """Distinct questions with vectors of their own."""
    for number in numbers:
        vector = np.random.default_rng(number).standard_normal(DIM)
        raw = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
        embedding = base64.b64encode(raw).decode()
        yield {"agent_type": agent_type, "prompt": f"q{number}", "response": "r", "embedding": embedding}


def store(http: httpx.Client, found: Iterator[dict[str, str]], batch: int) -> Iterator[int]:
    """After each batch, how many it had."""
    while page := list(islice(found, batch)):
        answers = http.post("/v1/cache/store/batch", json={"items": page}).raise_for_status().json()["items"]
        if not all(answer.get("stored") for answer in answers):
            sys.exit(f"not stored: {next(one for one in answers if not one.get('stored'))}")
        yield len(page)


def hits(http: httpx.Client, numbers: range, agent_type: str = AGENT_TYPE) -> int:
    total = 0
    for at in range(numbers.start, numbers.stop, 250):
        page = range(at, min(at + 250, numbers.stop))
        asked = [{"agent_type": agent_type, "prompt": f"q{n}", "tiers": ["exact"]} for n in page]
        answers = http.post("/v1/cache/lookup/batch", json={"items": asked}).raise_for_status().json()
        total += sum(answer["outcome"] == "hit" for answer in answers["items"])
    return total


class Behind:
    """An admin's connection."""

    def __init__(self, url: str, free: int) -> None:
        self._redis = Redis.from_url(url, protocol=2)
        self._free = free

    def entries(self) -> int:
        """Of the bounded agent_type."""
        (name,) = (one for one in self._redis.execute_command("FT._LIST") if b":responses:" in one)
        (count,) = self._redis.execute_command("FT.SEARCH", name, "*", "LIMIT", 0, 0, "DIALECT", 2)
        return int(count) - self._free

    def uncounted(self) -> int:
        """Keys of entries whose id is in no set, less those of the agent_type without a bound."""
        known = {one for name in self._redis.scan_iter("*:used:*") for one in self._redis.zrange(name, 0, -1)}
        keys = list(self._redis.scan_iter("sc:{0}:responses:*", count=1000))
        return sum(key.rpartition(b":")[2] not in known for key in keys) - 2 * self._free

    def settle(self, bound: int) -> float:
        """Until there are as many as may be, or a 500th more, all of them counted; how long that took, s."""
        begun = time.monotonic()
        while not bound <= self.entries() <= bound + bound // 500 or self.uncounted():
            if time.monotonic() - begun > SETTLED_S:
                sys.exit(
                    f"{self.entries()} entries stay where {bound} may; {self.uncounted()} uncounted keys"
                )
            time.sleep(SAMPLE_S)  # between two samples
        return time.monotonic() - begun

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """The number of entries, again and again."""
        seen: list[int] = []
        over = threading.Event()

        def run() -> None:
            while not over.wait(SAMPLE_S):
                seen.append(self.entries())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def bounded(service: Served, most: int) -> None:
    service.http.put(f"/v1/policies?agent_type={AGENT_TYPE}", json={"max_entries": most}).raise_for_status()


@contextmanager
def running(folder: Path, load: Load) -> Iterator[tuple[list[Served], Behind, str]]:
    """Services on a Redis of their own, with the bound set and the free entries stored."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        settings = {"redis_url": server.url, "redis_timeout_s": "10", "secret": "a secret of the bench, 1"}
        services = [
            stack.enter_context(served(folder / f"service{at}", **settings)) for at in range(load.services)
        ]
        sum(store(services[0].http, items(range(load.hot), FREE), load.batch))
        bounded(services[0], load.bound)
        time.sleep(1.5)  # the others have read it
        yield services, Behind(server.url, load.hot), server.url


def write(service: Served, numbers: range, load: Load) -> None:
    """Store, and ask for half of the hot ones after each batch."""
    half = load.hot // 2
    for turn, _ in enumerate(store(service.http, items(numbers), load.batch)):
        hits(service.http, range(half) if turn % 2 else range(half, load.hot))


def held(folder: Path, load: Load) -> dict[str, Any]:
    with running(folder, load) as (services, behind, _):
        sum(store(services[0].http, items(range(load.hot)), load.batch))
        share = (load.stores - load.hot) // load.services
        starts = [load.hot + at * share for at in range(load.services)]
        begun = time.monotonic()
        with behind.counting() as seen, ThreadPoolExecutor() as pool:
            done = [
                pool.submit(write, service, range(start, start + share), load)
                for service, start in zip(services, starts, strict=True)
            ]
            for one in done:
                one.result()
        took = time.monotonic() - begun
        settled_s = behind.settle(load.bound)
        full = seen[next(at for at, count in enumerate(seen) if count >= load.bound) :]
        return {
            **load._asdict(),
            "samples": len(seen),
            "samples_full": len(full),
            "most": max(seen),
            "least_once_full": min(full),
            "beyond_at_most": max(seen) / load.bound - 1,
            "settled_s": round(settled_s, 2),
            "stores_s": round(took, 1),
            "hot_left": hits(services[0].http, range(load.hot)),
            "free_left": hits(services[0].http, range(load.hot), FREE),
            "uncounted_keys": behind.uncounted(),
        }


def killed(folder: Path, load: Load) -> dict[str, Any]:
    with running(folder, load) as ([service], behind, url):
        sum(store(service.http, items(range(load.bound)), load.batch))
        thread = threading.Thread(target=_until_killed, args=(service, range(load.bound, load.stores), load))
        thread.start()
        while behind.entries() <= load.bound:
            time.sleep(0.001)  # the load and the service need the processor
        service.end(signal.SIGKILL)
        thread.join()
        left, uncounted = behind.entries(), behind.uncounted()
        with served(folder / "again", redis_url=url, secret="a secret of the bench, 1") as again:  # noqa: S106 - of the bench
            settled_s = behind.settle(load.bound)
            return {
                **load._asdict(),
                "left_by_the_killed": left,
                "uncounted_keys_left_by_the_killed": uncounted,
                "settled_s_after_start": round(settled_s, 2),
                "uncounted_keys": behind.uncounted(),
                "free_left": hits(again.http, range(load.hot), FREE),
            }


def _until_killed(service: Served, numbers: range, load: Load) -> None:
    with suppress(httpx.TransportError, RuntimeError):  # it is gone, or its client was closed
        write(service, numbers, load)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="a smaller one")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    by = arguments.scale
    results = {}
    for name, load, run in (("one", ONE, held), ("two", TWO, held), ("killed", KILLED, killed)):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(Path(folder), load.divided(by))
        print(name, json.dumps(results[name]), flush=True)
    if arguments.output:
        result = {
            "command": "python bench/bounds.py" + (f" --scale {by}" if by > 1 else ""),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            **results,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
