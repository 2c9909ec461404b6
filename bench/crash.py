"""Kills Redis and the service at random under load, and checks after each restart that the cache is right.

    python bench/crash.py --minutes 10 --seed 1 --appendfsync always
    python bench/crash.py --minutes 10 --seed 1 --appendfsync everysec --power-cuts

Every few seconds, with a probability, Redis gets a kill -9, and so does the service. With --power-cuts the
append-only file is cut back to where it was before its last second, as when the machine loses power.
The loop is that of Qdrant's crasher. After each restart:

- every acknowledged entry is found by the exact and by the semantic tier, with the answer acknowledged last
  or one sent after it;
- nothing is there that was never sent, nothing twice, no record without its document, none without an end.

Exits with 1 if anything was wrong, or lost that must not be.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from redis import Redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.processes import Served, free_port
from bench.raw import Connection, connected
from service.store.embedded import EmbeddedRedis

LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
SECRET = "a secret of the crash loop"  # noqa: S105 - of a Redis that lives for minutes
PAGE = 250
RECORDS, DOCUMENTS = "sc:{0}:responses:record:", "sc:{0}:responses:document:1:"
LOOK_S = 0.05
POWER_CUT_S = 1.0
"""What a power cut may take with `everysec`: Redis' own promise is about a second."""


@dataclass
class Options:
    """How long, how hard."""

    minutes: float = 1.0
    seed: int = 1
    appendfsync: str = "always"
    power_cuts: bool = False
    probability: float = 0.3
    every_s: float = 5.0
    questions: int = 3_000
    clients: int = 8


@dataclass
class Report:
    """What happened. The last five must be 0, `lost` only where nothing may be."""

    options: Options
    redis_kills: int = 0
    service_kills: int = 0
    checks: int = 0
    stores: int = 0
    hits: int = 0
    misses: Counter[str] = field(default_factory=Counter)
    refused_stores: Counter[int] = field(default_factory=Counter)
    lost_to_power_cuts: int = 0
    lost: int = 0
    wrong: int = 0
    disagreeing: int = 0
    phantoms: int = 0
    endless: int = 0
    unexpected: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        """Whether the cache told the truth all the time."""
        bad = self.lost + self.wrong + self.disagreeing + self.phantoms + self.endless
        return bad == 0 and not self.unexpected and self.stores > 0 and self.hits > 0


@dataclass
class Known:
    """What a question's answer may be: versions count up."""

    sent: int = 0
    acknowledged: int = 0
    history: list[tuple[float, int]] = field(default_factory=list)  # when which version was acknowledged

    def may_be(self, version: int, least: int) -> bool:
        """Not older than what was acknowledged, not newer than what was sent."""
        return least <= version <= self.sent


class Crash:
    """The service, its Redis, the load and the checks."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.report = Report(options)
        self.known = [Known() for _ in range(options.questions)]
        self.random = random.Random(options.seed)  # noqa: S311 - repeatable on purpose
        fsync = ["--appendfsync", options.appendfsync]
        self.redis = EmbeddedRedis(folder / "redis", port=free_port(), options=fsync)
        self.started: Served | None = None
        self.sizes: list[tuple[float, Path, int]] = []
        self.cuts = 0  # of the power

    @property
    def service(self) -> Served:
        """The one that runs."""
        if self.started is None:
            raise RuntimeError("not started")
        return self.started

    # --- questions and answers ---

    def question(self, n: int, **more: Any) -> dict[str, Any]:
        """One of a fixed set, each with a vector of its own."""
        values = np.random.default_rng(n).normal(size=384)
        vector = base64.b64encode((values / np.linalg.norm(values)).astype("<f4").tobytes()).decode()
        return {"agent_type": f"a{n % 7}", "prompt": f"question {n}", "embedding": vector, **more}

    async def client(self, number: int) -> None:
        """Store and look up until cancelled; connect again when the service is back."""
        rng = random.Random(f"{self.options.seed}/{number}")  # noqa: S311 - repeatable on purpose
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with connected(self.service.port) as connection:
                    while True:
                        n = rng.randrange(self.options.questions)
                        # One client writes a question, so that its versions are acknowledged in order.
                        if n % self.options.clients == number:
                            await self.store(connection, n)
                        else:
                            await self.look(connection, n, rng.choice(["exact", "semantic"]))
            await asyncio.sleep(0.05)

    async def store(self, connection: Connection, n: int) -> None:
        known, cuts = self.known[n], self.cuts
        known.sent += 1
        version = known.sent
        body = self.question(n, response={"n": n, "version": version}, ttl_s=7200)
        answer = await connection.post(STORE, json.dumps(body).encode())
        if answer.status == 201 and cuts != self.cuts:
            self.report.lost_to_power_cuts += 1  # perhaps: it was on its way when the power went
        elif answer.status == 201:
            self.report.stores += 1
            known.acknowledged = version
            known.history.append((time.monotonic(), version))
        elif answer.status in (503, 507):
            self.report.refused_stores[answer.status] += 1
        else:
            self.report.unexpected[f"store {answer.status} {answer.body[:200]!r}"] += 1

    async def look(self, connection: Connection, n: int, tier: str) -> None:
        least, cuts = self.known[n].acknowledged, self.cuts
        answer = await connection.post(LOOKUP, json.dumps(self.question(n, tiers=[tier])).encode())
        if answer.status != 200:
            self.report.unexpected[f"lookup {answer.status} {answer.body[:200]!r}"] += 1
        elif answer.json["outcome"] == "hit":
            self.report.hits += 1
            # What was acknowledged when it was asked may have been lost on its way.
            least = least if cuts == self.cuts else min(least, self.known[n].acknowledged)
            self.judge(n, answer.json["response"], least)
        else:
            self.report.misses[answer.json["reason"]] += 1

    def judge(self, n: int, response: dict[str, int], least: int) -> None:
        if response["n"] != n or not self.known[n].may_be(response["version"], least):
            self.report.wrong += 1

    # --- killing and starting ---

    async def run(self) -> Report:
        """Crash and check until the time is over."""
        self.redis.start()
        await self.start_service()
        end = time.monotonic() + 60 * self.options.minutes
        try:
            while time.monotonic() < end:
                await self.round()
        finally:
            if self.started:
                self.started.end(signal.SIGKILL)
            self.redis.stop()
        return self.report

    async def round(self) -> None:
        """Load for a while, perhaps killings under it, then a check."""
        async with self.load():
            await asyncio.sleep(self.options.every_s)
            redis, service = (self.random.random() < self.options.probability for _ in range(2))
            if redis:
                await self.crash_redis()
            if service:
                self.report.service_kills += 1
                self.service.end(signal.SIGKILL)
                await self.start_service()
            if redis or service:
                await asyncio.sleep(1)
        if redis or service:
            await self.check()

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.client(n)) for n in range(self.options.clients)]
        tasks.append(asyncio.create_task(self.watch_file()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError):
                    raise ended or AssertionError

    async def watch_file(self) -> None:
        """How long the append-only file was when."""
        while True:
            file = self.file()
            self.sizes = [*self.sizes[-200:], (time.monotonic(), file, file.stat().st_size)]
            await asyncio.sleep(LOOK_S)

    def file(self) -> Path:
        return max((self.folder / "redis" / "appendonlydir").glob("*.incr.aof"), key=lambda p: p.name)

    async def crash_redis(self) -> None:
        self.report.redis_kills += 1
        pid = self.redis.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        await asyncio.to_thread(self.redis.stop)
        if self.options.power_cuts:
            self.forgive(self.cut_power(killed))
        await asyncio.sleep(self.random.uniform(0, 1))
        await asyncio.to_thread(self.redis.start)

    def cut_power(self, killed: float) -> float:
        """Take from the file what was written in the last second; when the last look before it was."""
        since, file = killed - POWER_CUT_S, self.file()  # a rewrite begins another
        looks = [(at, size) for at, one, size in self.sizes if one == file and at <= since]
        at, size = looks[-1] if looks else (0.0, 0)
        os.truncate(file, size)
        return at

    def forgive(self, since: float) -> None:
        """What was acknowledged since that look may be lost: a busy machine looks late."""
        self.cuts += 1
        for known in self.known:
            kept = [one for one in known.history if one[0] <= since]
            if len(kept) < len(known.history):
                self.report.lost_to_power_cuts += 1
                known.acknowledged, known.history = (kept[-1][1] if kept else 0), kept

    async def start_service(self) -> None:
        settings = {"redis_url": self.redis.url, "secret": SECRET, "embedder_threads": "1"}
        self.started = Served(self.folder / "service", **settings)
        await asyncio.to_thread(self.service.wait)

    # --- checking ---

    async def check(self) -> None:
        """Nobody writes now. Everything acknowledged is there, and nothing else than what was sent."""
        self.report.checks += 1
        await asyncio.to_thread(self.wait_until_whole)
        expected = [n for n, known in enumerate(self.known) if known.acknowledged]
        found = {tier: await self.answers(expected, tier) for tier in ("exact", "semantic")}
        for n in expected:
            exact, semantic = found["exact"].get(n), found["semantic"].get(n)
            self.report.lost += exact is None
            self.report.disagreeing += exact != semantic
            if exact is not None:
                self.judge(n, exact, self.known[n].acknowledged)
        await asyncio.to_thread(self.check_keys)

    async def answers(self, numbers: list[int], tier: str) -> dict[int, dict[str, int]]:
        """Of those that hit."""
        found: dict[int, dict[str, int]] = {}
        async with connected(self.service.port) as connection:
            for at in range(0, len(numbers), PAGE):
                page = numbers[at : at + PAGE]
                items = [self.question(n, tiers=[tier]) for n in page]
                answer = await connection.post(LOOKUP + "/batch", json.dumps({"items": items}).encode())
                for n, item in zip(page, answer.json["items"], strict=True):
                    if item["outcome"] == "hit":
                        found[n] = item["response"]
        return found

    def wait_until_whole(self) -> None:
        """Until Redis has loaded, the service is ready, and the index is built."""
        self.service.wait()
        with Redis.from_url(self.redis.url, protocol=2) as redis:
            while int(self.index(redis)[b"indexing"]):
                time.sleep(0.05)

    def index(self, redis: Redis) -> dict[bytes, Any]:
        reply = redis.execute_command("FT.INFO", "sc:{0}:responses:index:1")
        return dict(zip(reply[::2], reply[1::2], strict=True))

    def check_keys(self) -> None:
        """Records and documents are pairs with an end, as many as the index says, none that was not sent."""
        with Redis.from_url(self.redis.url, protocol=2, decode_responses=True) as redis:
            keys = list(redis.scan_iter("sc:{0}:responses:*", count=1000))
            with redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.pttl(key)
                lives = pipeline.execute()
        self.report.endless += sum(life == -1 for life in lives)
        records = {key.removeprefix(RECORDS) for key in keys if key.startswith(RECORDS)}
        documents = {key.removeprefix(DOCUMENTS) for key in keys if key.startswith(DOCUMENTS)}
        with Redis.from_url(self.redis.url, protocol=2) as redis:
            indexed = int(self.index(redis)[b"num_docs"])
        sent = sum(known.sent > 0 for known in self.known)
        self.report.disagreeing += len(records ^ documents) + abs(indexed - len(documents))
        self.report.phantoms += max(0, len(records) - sent) + len(keys) - len(records) - len(documents)


async def crash(options: Options) -> Report:
    """Run the loop in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="semcached-crash-") as folder:
        return await Crash(options, Path(folder)).run()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--appendfsync", choices=["always", "everysec"], default="always")
    parser.add_argument("--power-cuts", action="store_true")
    parser.add_argument("--questions", type=int, default=3_000)
    parser.add_argument("--out", type=Path, help="write the report there, as JSON")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    report = asyncio.run(crash(Options(**arguments)))
    text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode()
    print(text)
    if out:
        out.write_text(text + "\n")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
