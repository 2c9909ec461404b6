"""How often `comparison: similar` takes two answers for the same, and how often wrongly.

    python -m bench.comparing [--data ../shared/data] [--limit 2500] [--output bench/results/comparing.json]

Label 1: both say the same; 0: they don't. Of each set: cosine alone, words alone, and both, which is what is
shipped. `held` are the groups that `Pair.held_back` keeps: nothing was chosen on them.
"""

import argparse
import asyncio
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.quality.sets import COMMITTED, named, sample
from bench.quality.vectors import embedded
from bench.verifier.sets import Pair, rows
from service.cache.comparing import CUT, Answers, Comparing, Verdict, nearly_equal
from service.calibrate import Rate
from service.embedders.batching import Model, batching
from service.embedders.local import MiniLM
from service.model import Comparison

RESULTS = Path(__file__).parent / "results" / "comparing.json"
ANSWERS = COMMITTED / "answers" / "answers.jsonl"
CUTS = (0.85, 0.9, 0.95)
SAME = 4.5
"""Least score of stsb, of 5, that counts as the same. Nearly the same is another answer."""


class Compared(NamedTuple):
    """Pairs of one set, with what speaks for each."""

    pairs: list[Pair]
    cosines: NDArray[np.float64]
    words: NDArray[np.bool_]
    shipped: NDArray[np.bool_]


def answers() -> Iterator[Pair]:
    """Our own: an answer with its rewordings and traps."""
    for line in ANSWERS.read_text("utf-8").splitlines():
        row = json.loads(line)
        others = [("light", row["light"], 1), ("strong", row["strong"], 1)]
        for kind, text, label in [*others, *(("trap", trap, 0) for trap in row["traps"])]:
            yield Pair("answers", kind, row["group"], row["base"], text, label)


def graded(data: Path) -> Iterator[Pair]:
    """stsb, by its score."""
    for row in rows(data / "stsb" / "public" / "pairs.tsv.gz"):
        label = int(float(row["score"]) >= SAME)
        yield Pair("stsb", row["kind"], row["group"], row["text_a"], row["text_b"], label)


READERS = {
    "answers": lambda _: answers(),
    "stsb": graded,
    **{name: named(name) for name in ("mrpc", "parade", "paws_wiki", "cannot_negation", "checklist_swaps")},
}


def compared(pairs: Sequence[Pair], model: Model) -> Compared:
    """Each pair, as the service sees it."""
    vectors = embedded(model, (text for pair in pairs for text in (pair.text_a, pair.text_b)), None)
    words = np.array([nearly_equal(pair.text_a, pair.text_b) for pair in pairs])
    shipped = np.array([verdict is Verdict.SAME for verdict in asyncio.run(_verdicts(pairs, model))])
    return Compared(list(pairs), vectors.similarities(pairs), words, shipped)


async def _verdicts(pairs: Iterable[Pair], model: Model) -> list[Verdict]:
    async with batching(model) as embedder:
        comparing = Comparing(embedder, None)
        return [
            await comparing.same(
                Answers("", json.dumps(pair.text_a).encode(), json.dumps(pair.text_b).encode()),
                Comparison.SIMILAR,
            )
            for pair in pairs
        ]


def measured(name: str, found: Compared) -> list[dict[str, Any]]:
    """A row per label and part: how many pairs are taken for the same, by each way to decide."""
    ways: Mapping[str, NDArray[np.bool_]] = {
        "cosine": found.cosines >= CUT,
        "words": found.words,
        **{f"words, {cut}": found.words & (found.cosines >= cut) for cut in CUTS},
        "shipped": found.shipped,
    }
    parts = sorted({_part(pair) for pair in found.pairs})
    return [
        {"set": name, "kind": kind, "label": label, "held": held, "pairs": int(chosen.sum())}
        | {way: int((same & chosen).sum()) for way, same in ways.items()}
        for kind, label, held in parts
        if (chosen := np.array([_part(pair) == (kind, label, held) for pair in found.pairs])).any()
    ]


def _part(pair: Pair) -> tuple[str, int, bool]:
    """Our own by kind; none of them was there when anything was chosen."""
    own = pair.set_name == "answers"
    return (pair.kind if own else "", pair.label, own or pair.held_back)


def table(found: Sequence[Mapping[str, Any]]) -> None:
    """Percent that each way takes for the same; of the shipped one with its 95 % interval."""
    ways = [name for name in found[0] if name not in {"set", "kind", "label", "held", "pairs"}]
    print(f"{'set':22}{'label':>6}{'held':>6}{'pairs':>7} " + " ".join(way.rjust(12) for way in ways))
    for row in found:
        percents = " ".join(f"{100 * row[way] / row['pairs']:12.2f}" for way in ways)
        which = f"{row['set']} {row['kind']}"
        held = "yes" if row["held"] else "no"
        print(
            f"{which:22}{row['label']:>6}{held:>6}{row['pairs']:>7} {percents}  "
            f"{Rate(row['shipped'], row['pairs'])}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=2500)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    model = MiniLM()
    found: list[dict[str, Any]] = []
    for name, read in READERS.items():
        if name != "answers" and not (options.data / name).is_dir():
            print(f"skipped: {options.data / name} is absent; --data names the folder of the sets")
            continue
        found += measured(name, compared(sample(read(options.data), options.limit), model))
    table(found)
    result = {
        "command": "python -m bench.comparing",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "model": f"{model.model} {model.revision}",
        "cut": CUT,
        "rows": found,
    }
    options.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
