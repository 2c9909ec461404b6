"""What the guards on wording cost and what they stop.

    python bench/guards.py [--data ../shared/data] [--output bench/results/guards.json]

Price: share of the pairs with the same answer (label 1) that a guard rejects. Gain: share of those with
another answer (label 0). Per set and kind, for each guard alone and all together; pairs kept back from
development where a kind has any, all of its pairs otherwise. Tier C is only measured on, where it is there.
"""

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.verifier.sets import Pair, given, reworded, trainable
from service.cache.guards import WORDING, verdicts
from service.cache.wording.words import wording
from service.model import Policy

MEASURED_ONLY = ("qqp", "paws_qqp", "checklist_swaps", "mrpc")
TOGETHER = "together"


def pairs(data: Path) -> Iterator[Pair]:
    """All pairs that are there; says which are not."""
    yield from reworded()
    try:
        yield from trainable(data)
    except FileNotFoundError as error:
        print(f"skipped from here on: {error.filename} is absent; --data names the folder of the sets")
    for name in MEASURED_ONLY:
        try:
            yield from given(data, name)
        except FileNotFoundError:
            print(f"skipped: {name} is absent")


def measured(found: list[Pair]) -> list[dict[str, object]]:
    """One row per set, kind and label: pairs, whether held back, percent rejected by guard."""
    kept = {(pair.set_name, pair.kind, pair.label) for pair in found if pair.held_back}
    counts: dict[tuple[str, str, int], Counter[str]] = {}
    for pair in found:
        key = (pair.set_name, pair.kind, pair.label)
        if key in kept and not pair.held_back and pair.set_name != "reworded":
            continue
        said = verdicts(pair.text_a, pair.text_b, Policy(), every=True)
        rejected = [name for name, may in said.items() if not may]
        counts.setdefault(key, Counter()).update([*rejected, "pairs", *([TOGETHER] if rejected else [])])
    return [
        {
            "set": key[0],
            "kind": key[1],
            "label": key[2],
            "held_back": key in kept and key[0] != "reworded",
            "pairs": count["pairs"],
            "rejected_percent": {
                name: round(100 * count[name] / count["pairs"], 2) for name in (*WORDING, TOGETHER)
            },
        }
        for key, count in sorted(counts.items(), key=lambda item: (-item[0][2], item[0]))
    ]


def microseconds(found: list[Pair]) -> float:
    """Processor time per pair of questions of 9 to 15 words, each read anew, µs."""
    some = [p for p in found if all(9 <= len(text.split()) <= 15 for text in (p.text_a, p.text_b))][:5000]
    verdicts("a", "b", Policy(), every=True)  # reads the lists
    wording.cache_clear()
    begun = time.process_time()
    for pair in some:
        verdicts(pair.text_a, pair.text_b, Policy(), every=True)
    return round((time.process_time() - begun) / max(len(some), 1) * 1e6, 1)


def table(rows: list[dict[str, object]]) -> None:
    """Percent rejected."""
    names = (*WORDING, TOGETHER)
    print(f"{'set and kind':46}{'pairs':>7} " + " ".join(name[:8].rjust(8) for name in names))
    for label, title in (
        (1, "price: the same answer, rejected, %"),
        (0, "gain: another answer, rejected, %"),
    ):
        print(title)
        for row in rows:
            percent = row["rejected_percent"]
            if row["label"] == label and isinstance(percent, dict):
                which = f"{row['set']} {row['kind']}{'' if row['held_back'] else ' *'}"
                figures = " ".join(f"{percent[name]:8.1f}" for name in names)
                print(f"{which[:45]:46}{row['pairs']:>7} {figures}")
        print(
            f"{'mean of the rows above':53} " + " ".join(f"{mean(rows, label, name):8.2f}" for name in names)
        )
    print("* not kept back: these were there while the guards were written, or are ours")


def mean(rows: list[dict[str, object]], label: int, name: str) -> float:
    """Over sets and kinds, each counting once."""
    found = [row["rejected_percent"] for row in rows if row["label"] == label]
    shares = [float(one[name]) for one in found if isinstance(one, dict)]
    return sum(shares) / max(len(shares), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "guards.json")
    options = parser.parse_args()
    found = list(pairs(options.data))
    rows = measured(found)
    table(rows)
    spent = microseconds(found)
    print(f"all guards: {spent} µs of processor time per pair")
    result = {
        "command": "python bench/guards.py",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "microseconds_per_pair": spent,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
