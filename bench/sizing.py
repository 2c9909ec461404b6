"""How much room does an entry take, and how long does Redis load after a restart?

    python bench/sizing.py [--entries N] [--answer CHARS] [--output FILE.json]

Stores N entries over HTTP, each with a vector of its own (384 dimensions, clusters of 100 around random
centres, noise of 0.3 of a centre's length), a question of Banking77 made distinct, and an answer of CHARS
characters made of such questions. Reads what Redis says of its memory, then restarts Redis twice, on the
AOF as the stores left it and on one just rewritten, while a client asks for one entry again and again.
"""

import argparse
import base64
import itertools
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from redis import Redis

from bench.processes import served
from bench.quality.sets import utterances
from service.store.embedded import EmbeddedRedis

AGENT_TYPE = "sizing"
DIM, CLUSTER, NOISE, BATCH, SAMPLE = 384, 100, 0.3, 64, 500
Bytes = float


class Room(NamedTuple):
    """Bytes per entry, in memory: all of it, and its parts."""

    all: Bytes
    record: Bytes
    document: Bytes
    vectors: Bytes
    rest: Bytes


class Reload(NamedTuple):
    """A restart of Redis under a client that asks every 20 ms."""

    aof_bytes_per_entry: Bytes
    load_s: float
    first_hit_after_load_s: float
    answers_meanwhile: dict[str, int]
    slowest_answer_s: float


def vectors(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Unit vectors, each another; each CLUSTER in a row around a centre."""
    for at in range(0, count, CLUSTER):
        centre = rng.standard_normal(DIM)
        near = centre / np.linalg.norm(centre) + rng.standard_normal((CLUSTER, DIM)) * NOISE / DIM**0.5
        yield from (near / np.linalg.norm(near, axis=1, keepdims=True)).astype("<f4")[: count - at]


def entries(count: int, answer_chars: int) -> Iterator[dict[str, str]]:
    """What is stored, always the same."""
    texts = [one.text for one in utterances("populate", None)]
    draw = random.Random(1)  # noqa: S311 - no secret
    for at, vector in enumerate(vectors(count, np.random.default_rng(1))):
        answer = "Here is what to do. "  # else some are refusals: questions begin with "I can't", too
        while len(answer) < answer_chars:
            answer += draw.choice(texts) + " "
        yield {
            "agent_type": AGENT_TYPE,
            "prompt": f"{texts[at % len(texts)]} ({at})",
            "response": answer[:answer_chars],
            "embedding": base64.b64encode(vector.tobytes()).decode(),
        }


def fill(http: httpx.Client, items: Iterator[dict[str, str]]) -> None:
    for page in iter(lambda: list(itertools.islice(items, BATCH)), []):
        answers = http.post("/v1/cache/store/batch", json={"items": page}).raise_for_status().json()["items"]
        if not all(answer.get("stored") for answer in answers):
            sys.exit(f"not stored: {next(one for one in answers if not one.get('stored'))}")


def index(redis: Redis) -> dict[str, Any]:
    """FT.INFO of the one index."""
    name = next(one for one in redis.execute_command("FT._LIST") if b":responses:" in one)
    flat = redis.execute_command("FT.INFO", name)
    return {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def key_bytes(redis: Redis, kind: str) -> Bytes:
    """Mean MEMORY USAGE of some keys of a kind."""
    keys = list(itertools.islice(redis.scan_iter(f"*:responses:{kind}:*", count=1000), SAMPLE))
    return sum(redis.memory_usage(key, samples=0) or 0 for key in keys) / len(keys)


def room(redis: Redis, empty: int, count: int) -> Room:
    info = index(redis)
    if int(info["num_docs"]) != count or int(info["hash_indexing_failures"]) != 0:
        sys.exit(f"{info['num_docs']} of {count} entries are in the index")
    whole = (redis.info("memory")["used_memory"] - empty) / count
    record, document = key_bytes(redis, "record"), key_bytes(redis, "document")
    graph = float(info["vector_index_sz_mb"]) * 2**20 / count
    return Room(whole, record, document, graph, whole - record - document - graph)


def aof_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "appendonlydir").iterdir())


class Asked(NamedTuple):
    """One lookup: when it was answered, how long it took, what it said."""

    at: float
    took_s: float
    outcome: str


@contextmanager
def asking(http: httpx.Client, prompt: str) -> Iterator[list[Asked]]:
    """A client in a thread that asks for one entry until the end."""
    seen: list[Asked] = []
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            begun = time.perf_counter()
            answer = http.post("/v1/cache/lookup", json={"agent_type": AGENT_TYPE, "prompt": prompt})
            told = answer.json()
            outcome = told.get("reason", told.get("outcome", str(answer.status_code)))
            seen.append(Asked(time.perf_counter(), time.perf_counter() - begun, outcome))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def reload(server: EmbeddedRedis, folder: Path, http: httpx.Client, prompt: str, count: int) -> Reload:
    size = aof_bytes(folder)
    with asking(http, prompt) as seen:
        server.stop()
        begun = time.perf_counter()
        server.start()
        loaded = time.perf_counter()
        while not (hits := [one for one in seen if one.at > loaded and one.outcome == "hit"]):
            if time.perf_counter() > loaded + 30:
                sys.exit("no hit within 30 s of loading")
            time.sleep(0.01)
    during = [one for one in seen if begun < one.at < hits[0].at]
    return Reload(
        aof_bytes_per_entry=size / count,
        load_s=loaded - begun,
        first_hit_after_load_s=hits[0].at - loaded,
        answers_meanwhile=dict(Counter(one.outcome for one in during)),
        slowest_answer_s=max(one.took_s for one in during),
    )


def rewrite(redis: Redis) -> None:
    redis.bgrewriteaof()
    time.sleep(0.5)
    while any(redis.info("persistence")[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled")):
        time.sleep(0.1)


def table(count: int, answer_chars: int, found: Room, reloads: Sequence[Reload]) -> str:
    per = 100_000 / count
    parts = ", ".join(f"{name} {size:,.0f}" for name, size in found._asdict().items() if name != "all")
    lines = [
        f"{count:,} entries, answers of {answer_chars} characters",
        f"bytes per entry in memory: {found.all:,.0f} ({parts})",
    ]
    for name, one in zip(("as the stores left it", "just rewritten"), reloads, strict=True):
        lines.append(
            f"AOF {name}: {one.aof_bytes_per_entry:,.0f} bytes per entry, loads in {one.load_s:.1f} s "
            f"({one.load_s * per:.0f} s per 100,000); meanwhile {one.answers_meanwhile}, the slowest in "
            f"{one.slowest_answer_s * 1000:.0f} ms; a hit {one.first_hit_after_load_s:.2f} s after"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--answer", type=int, default=1_200, metavar="CHARS")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    count, answer_chars = arguments.entries, arguments.answer
    prompt = next(entries(1, 1))["prompt"]
    with tempfile.TemporaryDirectory() as name, EmbeddedRedis(Path(name) / "redis") as server:
        folder = Path(name)
        redis = Redis.from_url(server.url, protocol=2)
        with served(folder / "service", redis_url=server.url, redis_timeout_s="10") as service:
            empty = redis.info("memory")["used_memory"]
            begun = time.perf_counter()
            fill(service.http, entries(count, answer_chars))
            fill_s = time.perf_counter() - begun
        found = room(redis, empty, count)
        modules = {module["name"]: module["ver"] for module in redis.info("modules")["modules"]}
        versions = {"redis": redis.info("server")["redis_version"], "search": modules["search"]}
        with served(folder / "service", redis_url=server.url) as service:
            reloads = [reload(server, folder / "redis", service.http, prompt, count)]
            rewrite(redis)
            reloads.append(reload(server, folder / "redis", service.http, prompt, count))
        if int(index(redis)["num_docs"]) != count:
            sys.exit("entries were lost")
    print(f"stored in {fill_s:.0f} s")
    print(table(count, answer_chars, found, reloads))
    if arguments.output:
        result = {
            "command": f"python bench/sizing.py --entries {count} --answer {answer_chars}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "server": versions,
            "entries": count,
            "answer_chars": answer_chars,
            "fill_s": round(fill_s, 1),
            "bytes_per_entry": found._asdict(),
            "reloads": [one._asdict() for one in reloads],
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
