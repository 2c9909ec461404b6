"""Invalidates among 20,000 entries over 200 sources, through the service, and checks by a full scan.

    python bench/invalidation.py --out bench/results/invalidation.json

14,000 responses with vectors, 6,000 tool results. An event deletes the dependents of one source; a dry run by
meaning; an invalidation of 8,000 during which the service gets a kill -9, and again after its restart.
Exits with 1 where the scan finds anything else than what was meant to be left.
"""

import argparse
import base64
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from redis import Redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.processes import Served
from service.api.auth import DEFAULT_TENANT
from service.cache.digests import Keyring
from service.embedders.local import MiniLM
from service.store.embedded import EmbeddedRedis
from service.store.keys import Keys

SECRET = "a secret of the measurement"  # noqa: S105 - of a Redis that lives for minutes
RESPONSES, TOOLS, SOURCES, BATCH = 14_000, 6_000, 200, 250
QUESTION = "How do I reset my password?"
NEAR = 120


class World:
    """What was written, and what must be left of it."""

    def __init__(self, redis: Redis, http: httpx.Client) -> None:
        self.redis, self.http = redis, http
        self.sources: dict[str, set[str]] = {}
        self.near: set[str] = set()
        self.bulk: set[str] = set()

    def scanned(self) -> set[str]:
        """Ids of every record that is there."""
        kinds = ("responses", "tools")
        return {
            key[-32:].decode()
            for kind in kinds
            for key in self.redis.scan_iter(f"sc:{{0}}:{kind}:record:*", count=5000)
        }

    def documents(self) -> int:
        """How many index documents are there."""
        patterns = ("sc:{0}:responses:document:*", "sc:{0}:tools:document:*")
        return sum(1 for one in patterns for _ in self.redis.scan_iter(one, count=5000))

    def check(self, meant: set[str]) -> None:
        """Whether just that is there."""
        there = self.scanned()
        if there != meant or self.documents() != len(meant):
            raise SystemExit(f"{len(there - meant)} too many, {len(meant - there)} too few")


def sources_of(at: int) -> list[str]:
    return sorted({f"product:{at % SOURCES}", f"product:{at * 7 % SOURCES}"})


def fill_responses(world: World) -> None:
    """The first ones lie at a cosine of 0.95 to 0.7 from the question, the others anywhere."""
    near = MiniLM().run([QUESTION])[0].astype(float)
    drawn = np.random.default_rng(1)
    for at in range(0, RESPONSES, BATCH):
        items = []
        for one in range(at, at + BATCH):
            other = drawn.normal(size=near.size)
            other -= other @ near * near
            cosine = (0.95 if one < NEAR else 0.7) if one < 2 * NEAR else 0.0
            values = cosine * near + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
            items.append(
                {
                    "agent_type": "bulk" if one % 2 else "support",
                    "prompt": f"question {one}",
                    "response": "An answer of some length. " * 10,
                    "sources": sources_of(one),
                    "embedding": base64.b64encode(values.astype("<f4").tobytes()).decode(),
                }
            )
        answer = world.http.post("/v1/cache/store/batch", json={"items": items})
        for one, item in enumerate(answer.json()["items"], at):
            world.sources[item["entry_id"]] = set(sources_of(one))
            if one < NEAR:
                world.near.add(item["entry_id"])
            if one % 2:
                world.bulk.add(item["entry_id"])


def fill_tools(world: World) -> None:
    key = Keyring(SECRET.encode()).of(DEFAULT_TENANT).current
    keys, now = Keys("sc"), time.time_ns() // 1_000_000
    pipeline = world.redis.pipeline(transaction=False)
    for at in range(TOOLS):
        name = key.digest("call", str(at).encode())
        agent_type = "bulk" if at % 6 == 0 else "support"
        fields: dict[Any, str | int] = {
            "tenant": key.tenant,
            "agent_type": key.digest("agent_type", agent_type.encode()),
            "tool": key.digest("tool", b"search"),
            "source": ",".join(key.digest("source", one.encode()) for one in sources_of(at)),
            "stored_at": now,
            "expires_at": 2**53,
        }
        pipeline.set(keys.tool_record(0, name), b"a result")
        pipeline.hset(keys.tool_document(0, name), mapping=fields)
        world.sources[name] = set(sources_of(at))
        if agent_type == "bulk":
            world.bulk.add(name)
    pipeline.execute()


class Waits:
    """How long somebody else waits for Redis meanwhile, ms."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url)
        self.ms: list[float] = []
        self._end = threading.Event()

    def _run(self) -> None:
        while not self._end.wait(0.002):
            begun = time.perf_counter()
            self._redis.ping()
            self.ms.append((time.perf_counter() - begun) * 1000)

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def told(self) -> dict[str, float]:
        ms = sorted(self.ms)
        return {
            "p50": round(statistics.median(ms), 2),
            "p99": round(ms[len(ms) * 99 // 100], 2),
            "max": round(ms[-1], 2),
        }


def timed(http: httpx.Client, path: str, body: Any) -> tuple[dict[str, Any], float]:
    begun = time.perf_counter()
    answer = http.post(path, json=body)
    seconds = time.perf_counter() - begun
    if answer.status_code != 200:
        raise SystemExit(answer.text)
    return answer.json(), seconds


def by_event(world: World) -> dict[str, Any]:
    rule = {"event": "product_updated", "where": {"source": "product:{product_id}"}}
    world.http.put("/v1/invalidation-rules/products", json=rule).raise_for_status()
    gone = {one for one, sources in world.sources.items() if "product:7" in sources}
    fired, seconds = timed(world.http, "/v1/events", {"type": "product_updated", "data": {"product_id": 7}})
    for one in gone:
        del world.sources[one]
    world.check(set(world.sources))
    if fired["deleted"] != len(gone):
        raise SystemExit(f"said {fired}, {len(gone)} are gone")
    return {"deleted": len(gone), "ms": round(seconds * 1000, 1)}


def dry_runs(world: World) -> dict[str, Any]:
    similar = {"similar_to": {"prompt": QUESTION, "threshold": 0.9}}
    near = world.near & world.sources.keys()
    told: dict[str, Any] = {}
    for name, where, wanted in (
        ("similar_to", similar, len(near)),
        ("prompt_regex", {"prompt_regex": "question 1[0-9]*$"}, None),
        ("older_than_s", {"older_than_s": 86400}, 0),
    ):
        found, seconds = timed(world.http, "/v1/invalidate", {"where": where, "dry_run": True})
        if wanted is not None and found["matched"] != wanted:
            raise SystemExit(f"{name}: {found['matched']} found, {wanted} meant")
        told[name] = {"matched": found["matched"], "ms": round(seconds * 1000, 1)}
    world.check(set(world.sources))
    return told


def killed(world: World, service: Served, url: str, folder: Path) -> dict[str, Any]:
    """Half way through, and again."""
    bulk = world.bulk & world.sources.keys()
    body = {"where": {"agent_type": "bulk"}}
    before = int(world.redis.dbsize())

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            world.http.post("/v1/invalidate", json=body)

    asking = threading.Thread(target=ask)
    asking.start()
    while int(world.redis.dbsize()) > before - len(bulk):  # half: two keys an entry
        time.sleep(0.005)  # another process tells no event
    service.end(signal.SIGKILL)
    asking.join()
    left = len(world.scanned() & bulk)
    if not 0 < left < len(bulk):
        raise SystemExit("it was not half way")
    again = start(folder, url)
    world.http = again.http
    try:
        done, _ = timed(world.http, "/v1/invalidate", body)
    finally:
        again.end()
    for one in bulk:
        del world.sources[one]
    world.check(set(world.sources))
    return {"meant": len(bulk), "left_when_killed": left, "deleted_then": done["deleted"]}


def rates(world: World, url: str) -> dict[str, Any]:
    """Time per 1,000 deleted, of each kind, and what others wait meanwhile."""
    told: dict[str, Any] = {}
    for keyspace in ("tools", "responses"):
        waits, deleted, seconds = Waits(url), 0, 0.0
        where = {"agent_type": "support", "older_than_s": 0}
        with waits.watched():
            done, seconds = timed(world.http, "/v1/invalidate", {"where": where, "keyspaces": [keyspace]})
            deleted = done["deleted"]
        told[keyspace] = {
            "deleted": deleted,
            "ms_per_1000": round(seconds * 1e6 / deleted, 1),
            "others_wait_ms": waits.told(),
        }
    return told


def start(folder: Path, url: str) -> Served:
    return Served(folder, redis_url=url, secret=SECRET, redis_timeout_s="2").wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis(Path(name) / "redis", port=0) as server:
        folder, url = Path(name), server.url
        results: dict[str, Any] = {"entries": RESPONSES + TOOLS, "sources": SOURCES}
        with Redis.from_url(url, protocol=2) as redis:
            service = start(folder, url)
            world = World(redis, service.http)
            fill_responses(world)
            fill_tools(world)
            world.check(set(world.sources))
            results["event"] = by_event(world)
            results["dry_run"] = dry_runs(world)
            results["kill -9"] = killed(world, service, url, folder)
            service = start(folder, url)
            world.http = service.http
            results["rates"] = rates(world, url)
            service.end()
            world.check(set())
    print(json.dumps(results, indent=1))
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
