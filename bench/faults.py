"""Measures what callers see while Redis hangs, dies, fills up or comes late, and while clients stall.

    python bench/faults.py [--out bench/results/faults.json]

Times are of this machine. The service promises: a lookup is never an error; 300 ms at most, 5 ms once the
breaker is open; hits again 2 s after Redis has recovered. A full disk takes root: a small one is mounted.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis, exceptions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.processes import Served, free_port
from bench.raw import Answer, Connection, connected
from service.store.embedded import EmbeddedRedis

LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
SECRET = "a secret of the benchmarks"  # noqa: S105 - of a Redis that lives for minutes
Figures = dict[str, Any]


def body(n: int, **more: Any) -> bytes:
    """A question with a vector of its own."""
    values = np.random.default_rng(n).normal(size=384)
    vector = base64.b64encode((values / np.linalg.norm(values)).astype("<f4").tobytes()).decode()
    return json.dumps({"agent_type": "a", "prompt": f"question {n}", "embedding": vector, **more}).encode()


def percentiles(times_s: list[float]) -> Figures:
    """p50, p99 and the longest, ms."""
    p50, p99 = np.percentile(times_s, [50, 99])
    return {
        "count": len(times_s),
        "p50_ms": round(1000 * float(p50), 2),
        "p99_ms": round(1000 * float(p99), 2),
        "max_ms": round(1000 * max(times_s), 2),
    }


class Watch:
    """Looks up known entries without a pause, and notes when what came back."""

    def __init__(self, port: int, entries: int, clients: int = 4) -> None:
        self.port, self.entries, self.clients = port, entries, clients
        self.seen: list[tuple[float, float, int, str, str]] = []  # end, time, status, X-Cache, outcome

    async def look(self, connection: Connection, n: int) -> Answer:
        begun = time.perf_counter()
        answer = await connection.post(LOOKUP, body(n % self.entries))
        outcome = answer.json.get("outcome", "error")
        now = time.perf_counter()
        self.seen.append((now, now - begun, answer.status, answer.headers.get("x-cache", ""), outcome))
        return answer

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Watch"]:
        async def client(number: int) -> None:
            async with connected(self.port) as connection:
                n = number
                while True:
                    await self.look(connection, n)
                    n += 1

        tasks = [asyncio.create_task(client(number)) for number in range(self.clients)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def since(self, begun: float, until: float = float("inf")) -> list[float]:
        """Times of the lookups that ended in this span, s."""
        return [took for at, took, *_ in self.seen if begun <= at < until]

    def outcomes(self) -> Counter[str]:
        return Counter(f"{status} {cache} {outcome}" for *_, status, cache, outcome in self.seen)

    async def hit_after(self, since: float) -> float:
        """How long after that the first hit came, s."""
        while True:
            hits = [at for at, *_, outcome in self.seen if at > since and outcome == "hit"]
            if hits:
                return hits[0] - since
            await asyncio.sleep(0.01)


class Bed:
    """A service over a Redis that may be hurt."""

    def __init__(self, folder: Path, entries: int, options: tuple[str, ...] = ()) -> None:
        self.folder, self.entries = folder, entries
        self.redis = EmbeddedRedis(folder / "redis", port=free_port(), options=options)
        self.served: Served | None = None

    @property
    def port(self) -> int:
        if self.served is None:
            raise RuntimeError("not started")
        return self.served.port

    async def start_service(self, *, wait: bool = True) -> Served:
        self.served = Served(self.folder / "service", redis_url=self.redis.url, secret=SECRET)
        if wait:
            await asyncio.to_thread(self.served.wait)
        return self.served

    async def fill(self) -> None:
        async with connected(self.port) as connection:
            for at in range(0, self.entries, 250):
                items = [json.loads(body(n, response=n)) for n in range(at, min(at + 250, self.entries))]
                answer = await connection.post(f"{STORE}/batch", json.dumps({"items": items}).encode())
                if not all(item.get("stored") for item in answer.json["items"]):
                    raise RuntimeError(answer.body[:500])

    def client(self) -> Redis:
        return Redis.from_url(self.redis.url, protocol=2)


@contextlib.asynccontextmanager
async def bed(entries: int, options: tuple[str, ...] = (), folder: Path | None = None) -> AsyncIterator[Bed]:
    """A filled cache; everything is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="semcached-faults-") as temporary:
        one = Bed(folder or Path(temporary), entries, options)
        try:
            one.redis.start()
            await one.start_service()
            await one.fill()
            yield one
        finally:
            if one.served:
                one.served.end(signal.SIGKILL)
            one.redis.stop()


async def hung(entries: int = 500) -> Figures:
    """SIGSTOP: until the breaker opens, while it is open, and after SIGCONT."""
    async with bed(entries) as one, Watch(one.port, entries).running() as watch:
        await asyncio.sleep(1)
        pid = one.redis.pid or 0
        stopped = time.perf_counter()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        opened = time.perf_counter()
        await asyncio.sleep(5)
        os.kill(pid, signal.SIGCONT)
        continued = time.perf_counter()
        hit_after_s = await watch.hit_after(continued)
        return {
            "before": percentiles(watch.since(0, stopped)),
            "until the breaker opens": percentiles(watch.since(stopped, opened)),
            "breaker open": percentiles(watch.since(opened, continued)),
            "hits again, s after SIGCONT": round(hit_after_s, 2),
            "outcomes": watch.outcomes(),
        }


async def killed(entries: int = 20_000) -> Figures:
    """kill -9 under load, and a start on the same data."""
    async with bed(entries) as one, Watch(one.port, entries).running() as watch:
        await asyncio.sleep(1)
        os.kill(one.redis.pid or 0, signal.SIGKILL)
        at = time.perf_counter()
        await asyncio.to_thread(one.redis.stop)
        await asyncio.sleep(1)
        started = time.perf_counter()
        await asyncio.to_thread(one.redis.start)  # returns once it has loaded
        loaded = time.perf_counter()
        hit_after_s = await watch.hit_after(loaded)
        return {
            "entries": entries,
            "loading, s": round(loaded - started, 2),
            "while away and loading": percentiles(watch.since(at, loaded)),
            "hits again, s after loading": round(hit_after_s, 2),
            "outcomes": watch.outcomes(),
        }


async def late() -> Figures:
    """The service starts before its Redis."""
    with tempfile.TemporaryDirectory(prefix="semcached-faults-") as folder:
        one = Bed(Path(folder), 0)
        one.redis.start()  # to know its URL
        one.redis.stop()
        service = await one.start_service(wait=False)
        try:
            async with until_listening(one.port) as connection:
                answer = await connection.post(LOOKUP, body(0))
                refused = await connection.post(STORE, body(0, response=0))
                await asyncio.to_thread(one.redis.start)
                started = time.perf_counter()
                while (await connection.post(STORE, body(0, response=0))).status != 201:
                    await asyncio.sleep(0.01)
                took = time.perf_counter() - started
                hit = await connection.post(LOOKUP, body(0))
            return {
                "lookup, store before": [f"{answer.status} {answer.headers['x-cache']}", refused.status],
                "stores, s after Redis came": round(took, 2),
                "then": hit.json["outcome"],
            }
        finally:
            service.end(signal.SIGKILL)
            one.redis.stop()


@contextlib.asynccontextmanager
async def until_listening(port: int) -> AsyncIterator[Connection]:
    """A connection, as soon as the service takes one."""
    while True:
        try:
            async with connected(port) as connection:
                yield connection
                return
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)


async def full_memory(entries: int = 500) -> Figures:
    """maxmemory, nothing evicted."""
    async with bed(entries) as one:
        with one.client() as redis:
            redis.config_set("maxmemory", 1)
            during = await full(one)
            redis.config_set("maxmemory", 0)
        return {"while full": during, "after": await full(one)}


async def full(one: Bed, requests: int = 100) -> Figures:
    """Statuses of lookups (hits?) and of stores."""
    watch = Watch(one.port, one.entries)
    stores: Counter[int] = Counter()
    async with connected(one.port) as connection:
        for n in range(requests):
            await watch.look(connection, n)
            stores[(await connection.post(STORE, body(n, response=f"again {n}"))).status] += 1
    return {"lookups": watch.outcomes(), "stores": stores}


async def full_disk(entries: int = 200) -> Figures:
    """The append-only file's disk is full (everysec), then has room again."""
    with tempfile.TemporaryDirectory(prefix="semcached-disk-") as folder, small_disk(Path(folder)):
        async with bed(entries, folder=Path(folder)) as one:
            filler = Path(folder) / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
            async with connected(one.port) as connection:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        while (await connection.post(STORE, body(9999, response=1))).status == 201:
                            await asyncio.sleep(0.05)
            during = await full(one)
            filler.unlink()
            begun = time.perf_counter()
            async with connected(one.port) as connection:
                while (await connection.post(STORE, body(9999, response=1))).status != 201:
                    await asyncio.sleep(0.02)
            took = time.perf_counter() - begun
            return {"while full": during, "stores, s after there is room": round(took, 2)}


@contextlib.contextmanager
def small_disk(folder: Path) -> Any:
    """A file system of 12 MB.

    Raises:
        PermissionError: only root may mount one.
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        raise PermissionError("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


async def stalled(entries: int = 500, sockets: int = 1_000) -> Figures:
    """Sockets that say nothing, stop in their headers, or in their body: what others see of it."""
    request = f"POST {LOOKUP} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n".encode()
    async with bed(entries) as one:
        figures: Figures = {}
        async with (
            Watch(one.port, entries, clients=2).running() as watch,
            contextlib.AsyncExitStack() as stack,
        ):
            await asyncio.sleep(1)
            for turn in range(3):  # the same span without and with, three times: the machine is noisy
                begun = time.perf_counter()
                await asyncio.sleep(3)
                middle = time.perf_counter()
                for n in range(sockets):
                    connection = await stack.enter_async_context(connected(one.port))
                    connection.send([b"", request[:30], request, request + b"{"][n % 4])
                await asyncio.sleep(1)  # all have been accepted
                opened = time.perf_counter()
                await asyncio.sleep(3)
                figures[f"turn {turn + 1}"] = {
                    "without": percentiles(watch.since(begun, middle)),
                    "with": percentiles(watch.since(opened)),
                }
                await asyncio.sleep(9)
        return figures


SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, Figures]]] = {
    "Redis hangs (SIGSTOP)": hung,
    "Redis is killed and starts again": killed,
    "Redis comes later than the service": late,
    "Redis is full (maxmemory)": full_memory,
    "the disk is full": full_disk,
    "1,000 stalled sockets": stalled,
}


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    arguments = parser.parse_args()
    figures: dict[str, Figures | str] = {"machine": f"{os.cpu_count()} cores, shared"}
    for name, scenario in SCENARIOS.items():
        if arguments.only in name:
            try:
                figures[name] = await scenario()
            except (PermissionError, exceptions.RedisError) as error:
                figures[name] = f"not measured: {error}"
            print(json.dumps({name: figures[name]}, indent=1), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
