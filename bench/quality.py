"""How often is the cache right? Banking77 through the service: populate, then ask.

    python bench/quality.py [--limit N] [--output FILE.json]

Warms the populate phase (`semcached warm`; the answer of an entry is its intent), asks the query phase over
HTTP, and counts at each threshold: hits, and false hits (an answer of another intent). One pass with
threshold -1 shows the nearest entry of every query; what a threshold serves follows, and is checked against
the service itself at one of them.
"""

import argparse
import csv
import gzip
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.processes import command, served

DATA = Path(__file__).parent / "data" / "banking77" / "utterances.tsv.gz"
THRESHOLDS = [0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99]
CHECKED_AT = 0.90
AGENT_TYPE = "banking77"
BATCH = 128


class Utterance(NamedTuple):
    text: str
    intent: str


class Served(NamedTuple):
    """The nearest entry of a query."""

    similarity: float
    right: bool


class Row(NamedTuple):
    """Shares of 1; the intervals are Wilson's at 95 %."""

    threshold: float
    hit_rate: float
    false_of_hits: float
    false_of_hits_interval: tuple[float, float]
    false_of_all: float
    false_of_all_interval: tuple[float, float]


def utterances(phase: str, limit: int | None) -> list[Utterance]:
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Utterance(row["text"], row["intent"]) for row in rows if row["phase"] == phase][:limit]


def warm(data_dir: Path, entries: Sequence[Utterance]) -> float:
    """Seconds that `semcached warm` took."""
    file = data_dir / "populate.jsonl"
    lines = ({"agent_type": AGENT_TYPE, "prompt": one.text, "response": one.intent} for one in entries)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    begun = time.perf_counter()
    done = command(data_dir, "warm", str(file))
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - begun


def ask(http: httpx.Client, queries: Sequence[Utterance], threshold: float) -> Iterator[Served | None]:
    for at in range(0, len(queries), BATCH):
        page = queries[at : at + BATCH]
        asked = {"agent_type": AGENT_TYPE, "tiers": ["semantic"], "threshold": threshold}
        items = [asked | {"prompt": one.text} for one in page]
        answers = (
            http.post("/v1/cache/lookup/batch", json={"items": items}).raise_for_status().json()["items"]
        )
        for one, answer in zip(page, answers, strict=True):
            hit = answer["outcome"] == "hit"
            yield Served(answer["similarity"], answer["response"] == one.intent) if hit else None


def wilson(count: int, total: int) -> tuple[float, float]:
    if total == 0:
        return 0.0, 1.0
    z, p = 1.959964, count / total
    middle, spread = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)


def row(threshold: float, nearest: Sequence[Served | None]) -> Row:
    hits = [one for one in nearest if one is not None and one.similarity >= threshold]
    wrong = sum(not one.right for one in hits)
    return Row(
        threshold=threshold,
        hit_rate=len(hits) / len(nearest),
        false_of_hits=wrong / len(hits) if hits else 0.0,
        false_of_hits_interval=wilson(wrong, len(hits)),
        false_of_all=wrong / len(nearest),
        false_of_all_interval=wilson(wrong, len(nearest)),
    )


def table(rows: Sequence[Row]) -> str:
    lines = ["threshold   hit rate   false hits / hits      false hits / all"]
    for one in rows:
        of_hits, of_all = one.false_of_hits_interval, one.false_of_all_interval
        lines.append(
            f"{one.threshold:9.2f}   {one.hit_rate:8.1%}   "
            f"{one.false_of_hits:6.2%} ({of_hits[0]:.1%}-{of_hits[1]:.1%})   "
            f"{one.false_of_all:7.2%} ({of_all[0]:.1%}-{of_all[1]:.1%})"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, help="utterances of each phase; all if absent")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    populate, queries = utterances("populate", arguments.limit), utterances("query", arguments.limit)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as service:
        warm_s = warm(Path(folder), populate)
        begun = time.perf_counter()
        nearest = list(ask(service.http, queries, -1))
        ask_s = time.perf_counter() - begun
        served_now = list(ask(service.http, queries, CHECKED_AT))
    expected = [one if one is not None and one.similarity >= CHECKED_AT else None for one in nearest]
    if served_now != expected:
        sys.exit(f"the service serves otherwise at {CHECKED_AT} than its similarities say")
    rows = [row(threshold, nearest) for threshold in THRESHOLDS]
    print(f"banking77: {len(populate)} entries warmed in {warm_s:.1f} s")
    print(f"{len(queries)} queries asked in {ask_s:.1f} s")
    print(table(rows))
    if arguments.output:
        result = {
            "data": "banking77, public part",
            "command": "python bench/quality.py",
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "semcached": version("semcached-server"),
            "entries": len(populate),
            "queries": len(queries),
            "rows": [one._asdict() for one in rows],
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
