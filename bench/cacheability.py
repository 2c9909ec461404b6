"""How far the rules of `service/cache/cacheability.py` get: on our own lists, and on situated_qa's questions.

python bench/cacheability.py --data ../shared/data

The first two lists were there while the rules were written; the third was written after them, and no rule
was changed since. situated_qa says of each question whether its answer depends on the date. Half of it (by
digest) is for tuning the rules; what is reported is the other half.
"""

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

from service.cache.cacheability import is_of
from service.model import Kind

LIST = Path(__file__).parent / "data" / "cacheability.jsonl"
RESULTS = Path(__file__).parent / "results" / "cacheability.json"
LISTS = ("first", "second", "third")
SITUATED = Path("situated_qa/public/context_dependence.tsv.gz")

Labelled = tuple[str, bool]


def own(name: str) -> list[dict[str, Any]]:
    """A written list, `first`, `second` or `third`: `text`, `kinds`."""
    rows = (json.loads(line) for line in LIST.read_text().splitlines())
    return [row for row in rows if row["list"] == name]


def situated(data: Path, half: str) -> list[Labelled]:
    """Questions, and whether their answers depend on the date; `tune` or `report`."""
    with gzip.open(data / SITUATED, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [
        (text, label == "1")
        for text, on, label, _ in rows
        if on == "time" and is_tuned(text) == (half == "tune")
    ]


def is_tuned(text: str) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[8:16], 16) % 2 == 0


def rates(kind: Kind, rows: Iterable[Labelled]) -> dict[str, float]:
    """Shares in %: recall of what is of the kind, cost on what isn't, precision."""
    found = [(is_of(kind, text), label) for text, label in rows]
    hits, missed = found.count((True, True)), found.count((False, True))
    false, right = found.count((True, False)), found.count((False, False))
    return {
        "of_the_kind": hits + missed,
        "others": false + right,
        "recall": round(100 * hits / (hits + missed), 1),
        "cost": round(100 * false / (false + right), 1),
        "precision": round(100 * hits / max(1, hits + false), 1),
    }


def wrong(kind: Kind, rows: Iterable[Labelled]) -> list[str]:
    return [f"{'missed' if label else 'false'}: {text}" for text, label in rows if is_of(kind, text) != label]


def labelled(kind: Kind, name: str) -> list[Labelled]:
    return [(row["text"], kind in row["kinds"]) for row in own(name)]


def judged(name: str) -> dict[str, dict[str, float]]:
    return {kind: rates(kind, labelled(kind, name)) for kind in get_args(Kind)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="where situated_qa lies")
    parser.add_argument(
        "--wrong", choices=get_args(Kind), help="show what a kind gets wrong in the first list"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--tune", type=int, help="show so many that are wrong in the half for tuning")
    given = parser.parse_args()
    rows = [row for name in LISTS for row in own(name)]
    result: dict[str, Any] = {name: judged(name) for name in LISTS}
    if given.wrong:
        print("\n".join(wrong(given.wrong, labelled(given.wrong, "first"))))
    if given.data:
        for half in ("tune", "report"):
            result[f"situated_qa_{half}"] = rates("time_sensitive", situated(given.data, half))
        if given.tune:
            print("\n".join(wrong("time_sensitive", situated(given.data, "tune"))[: given.tune]))
    begun = perf_counter()
    for row in rows:
        for kind in get_args(Kind):
            is_of(kind, row["text"])
    print(f"{1e6 * (perf_counter() - begun) / len(rows):.0f} µs per question for all kinds")
    print(json.dumps(result, indent=1))
    if given.data:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
