"""Streams: repeats as traffic has them (Zipf). Look up; on a miss store. What is served along the way?"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tqdm import tqdm

from bench.processes import served
from bench.quality.rates import share
from bench.quality.sets import Absent

SETS = ("text2sql", "snips")
STRICT = {"text2sql": [], "snips": ["--strict"]}
"""Without slots the class of snips is its intent, which is no answer."""

WINDOWS = 5
AGENT_TYPE = "stream"


class Seen(NamedTuple):
    """One query: what `replay.py` expects, and what happened. `right` None: nothing was served."""

    expect: str  # hit, exact, miss
    tier: str | None
    right: bool | None


def run(data: Path, names: Sequence[str], length: int) -> tuple[list[dict[str, Any]], list[Absent]]:
    """A result per set, and the sets that are absent."""
    results, absent = [], []
    for name in names:
        if not (data / "tools" / "replay.py").exists() or not (data / name / "public").is_dir():
            absent.append(Absent(name, f"{data} has no tools/replay.py or no {name}: give it with --data"))
            continue
        seen = replayed(name, stream(data, name, length))
        results.append({"set": name, "windows": dict(windows(seen)), "all": figures(seen)})
    return results, absent


def stream(data: Path, name: str, length: int) -> list[dict[str, Any]]:
    """The labelled stream, always the same; three in ten queries come once and never again."""
    done = subprocess.run(
        [
            sys.executable,
            str(data / "tools" / "replay.py"),
            "--set",
            name,
            "--n",
            str(length),
            *STRICT.get(name, []),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def replayed(name: str, queries: Sequence[dict[str, Any]]) -> list[Seen]:
    """One after the other, through a service of our own."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), redis_timeout_s="5") as service:
        return [ask(service.http, one) for one in tqdm(queries, desc=name, disable=None, leave=False)]


def ask(http: httpx.Client, one: dict[str, Any]) -> Seen:
    """Look up; store on a miss, the class as the answer."""
    question = {"agent_type": AGENT_TYPE, "prompt": one["text"]}
    answer = http.post("/v1/cache/lookup", json=question).raise_for_status().json()
    if answer["outcome"] == "hit":
        return Seen(one["expect"], answer["tier"], answer["response"] == one["class"])
    if answer["reason"] == "degraded":
        sys.exit(f"a lookup was degraded ({answer.get('rule')}): the machine is too busy to measure")
    http.post("/v1/cache/store", json=question | {"response": one["class"]}).raise_for_status()
    return Seen(one["expect"], None, None)


def windows(seen: Sequence[Seen]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of each fifth."""
    size = -(-len(seen) // WINDOWS)
    for at in range(0, len(seen), size):
        part = seen[at : at + size]
        yield f"{at + 1}-{at + len(part)}", figures(part)


def figures(seen: Sequence[Seen]) -> dict[str, Any]:
    """Rates of a part of the stream. `answerable`: the right answer came before, by `replay.py`."""
    hits = [one for one in seen if one.right is not None]
    wrong = sum(one.right is False for one in hits)
    return {
        "queries": len(seen),
        "hit": share(len(hits), len(seen)),
        "exact": share(sum(one.tier == "exact" for one in hits), len(seen)),
        "answerable": share(sum(one.expect != "miss" for one in seen), len(seen)),
        "wrong_of_all": share(wrong, len(seen)),
        "wrong_of_hits": share(wrong, len(hits)),
    }
