"""What do the guards and the verifier cost? Lookups over HTTP, all of it on and parts of it off.

    python bench/price.py [--entries N] [--rounds N] [--threshold T] [--output FILE.json]

One service, one cache of Banking77 per arm, filled alike; an arm's policy says what is on. Every query is
asked of all arms one after the other, the first another each time, so that what the machine does besides
meets all alike. Queries are of three kinds: `grey` has a candidate near enough that no guard rejects, which
the verifier reads; `far` has none near enough; `guarded` has some, all rejected by guards. The ratios are to
the arm without a verifier.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import msgspec
import numpy as np

from bench.processes import served
from bench.quality.sets import Utterance, digest, utterances
from bench.raw import connected
from service.model import GuardName
from service.settings import Settings

ARMS: Mapping[str, dict[str, bool]] = {
    "no verifier": {"verifier": False},
    "all on": {},
    "no guards": {name: False for name in get_args(GuardName) if name != "verifier"},
    "neither": dict.fromkeys(get_args(GuardName), False),
}
"""Guards switched in each arm's policy; the first is what the others are compared with."""

BATCH = 128
MOST = 200  # queries of a kind


class Times(NamedTuple):
    """Of one kind of queries in one arm, ms, and as ratios to the first arm."""

    p50: float
    p99: float
    p50_ratio: float
    p99_ratio: float


def some(phase: str, count: int) -> list[Utterance]:
    """The same utterances always."""
    return sorted(utterances(phase, None), key=lambda one: digest(one.text))[:count]


def fill(http: httpx.Client, entries: Sequence[Utterance]) -> None:
    """One cache per arm, each with its policy."""
    for arm, guards in ARMS.items():
        answer = http.put("/v1/policies", params={"agent_type": arm}, json={"guards": guards})
        if answer.status_code != 200:
            sys.exit(f"PUT /v1/policies: {answer.status_code} {answer.text}")
        for at in range(0, len(entries), BATCH):
            page = entries[at : at + BATCH]
            items = [{"agent_type": arm, "prompt": one.text, "response": one.intent} for one in page]
            http.post("/v1/cache/store/batch", json={"items": items}, timeout=120).raise_for_status()


def question(arm: str, text: str, threshold: float, **more: Any) -> dict[str, Any]:
    given = {"threshold": threshold}
    return {"agent_type": arm, "prompt": text, "tiers": ["semantic"]} | given | more


def kinds(http: httpx.Client, queries: Sequence[Utterance], threshold: float) -> dict[str, list[str]]:
    """The texts of each kind, as the arm with all guards and without a verifier sees them."""
    found: dict[str, list[str]] = defaultdict(list)
    for one in queries:
        asked = question("no verifier", one.text, threshold, explain=True)
        decision = http.post("/v1/cache/lookup", json=asked).raise_for_status().json()["decision"]
        near = [c for c in decision["candidates"] if c["similarity"] >= decision["threshold"]]
        kind = "far" if not near else "grey" if any(c["rejected_by"] is None for c in near) else "guarded"
        if len(found[kind]) < MOST:
            found[kind].append(one.text)
    return dict(found)


async def measured(port: int, texts: Sequence[str], rounds: int, threshold: float) -> dict[str, list[float]]:
    """Seconds of each lookup, by arm; the arms take turns, and so does who is first."""
    taken: dict[str, list[float]] = {arm: [] for arm in ARMS}
    bodies = {
        (arm, text): msgspec.json.encode(question(arm, text, threshold)) for arm in ARMS for text in texts
    }
    orders = itertools.cycle([[*ARMS][at:] + [*ARMS][:at] for at in range(len(ARMS))])
    async with connected(port) as connection:
        for text in [*texts[:20], *(text for _ in range(rounds) for text in texts)]:
            for arm in next(orders):
                begun = time.perf_counter()
                answer = await connection.post("/v1/cache/lookup", bodies[arm, text])
                taken[arm].append(time.perf_counter() - begun)
                if answer.status != 200 or answer.json.get("reason") == "degraded":
                    sys.exit(f"no measurable answer: {answer.status} {answer.body.decode()}")
    warm = len(texts[:20])
    return {arm: seconds[warm:] for arm, seconds in taken.items()}


def times(taken: Mapping[str, Sequence[float]]) -> dict[str, Times]:
    """Percentiles of each arm."""
    ms = {arm: (np.quantile(seconds, (0.5, 0.99)) * 1000).round(3).tolist() for arm, seconds in taken.items()}
    base = next(iter(ms.values()))
    return {
        arm: Times(p50, p99, round(p50 / base[0], 3), round(p99 / base[1], 3))
        for arm, (p50, p99) in ms.items()
    }


def table(found: Mapping[str, tuple[int, Mapping[str, Times]]]) -> str:
    lines = ["queries            arm             p50 ms    p99 ms   p50 ratio   p99 ratio"]
    for kind, (count, arms) in found.items():
        lines += [
            f"{kind + f' ({count})':18} {arm:12} {one.p50:9.2f} {one.p99:9.2f} "
            f"{one.p50_ratio:11.2f} {one.p99_ratio:11.2f}"
            for arm, one in arms.items()
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=4_000, help="in each arm's cache")
    parser.add_argument("--queries", type=int, default=1_000, help="sorted into kinds, 200 of each used")
    parser.add_argument("--rounds", type=int, default=10, help="how often each query is asked of each arm")
    parser.add_argument(
        "--threshold",
        type=float,
        default=Settings().threshold,
        help="of all arms [the default with a verifier]",
    )
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(Path(name), redis_timeout_s="5") as service:
        fill(service.http, some("populate", given.entries))
        texts = kinds(service.http, some("query", given.queries), given.threshold)
        found = {
            kind: (
                len(some_texts),
                times(asyncio.run(measured(service.port, some_texts, given.rounds, given.threshold))),
            )
            for kind, some_texts in sorted(texts.items())
        }
    print(table(found))
    if given.output:
        result = {
            "command": " ".join(["python bench/price.py", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "entries": given.entries,
            "kinds": {
                kind: {"queries": count, "arms": {arm: one._asdict() for arm, one in arms.items()}}
                for kind, (count, arms) in found.items()
            },
        }
        given.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
