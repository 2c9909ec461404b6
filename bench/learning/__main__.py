"""Does `mode: verified` keep its bound, and what does it cost?

    python -m bench.learning [--data DIR] [--cache DIR] [--sets a,b] [--seeds N] [--length N]
        [--output FILE.json]

Streams of replay.py (Zipf, three in ten requests never asked again) through a cache in this process that
decides by the service's own modules. docs/learning.md says what the figures are.
"""

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import plot
from bench.learning import arms, figures, tables
from bench.learning.scoring import Readings
from bench.learning.simulate import Outcomes, run
from bench.learning.streams import Stream, absent, prepared, replayed
from bench.paired import run_of, write
from bench.quality.__main__ import plain
from bench.quality.vectors import embedded
from service.embedders.local import MiniLM

SETS = ("text2sql", "snips", "qqp", "banking77", "clinc150", "hwu64")
VERSIONS = ("semcached-server", "onnxruntime", "numpy", "tokenizers")
SHOWN_ALONG = 0.02


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.learning")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public sets")
    parser.add_argument("--cache", type=Path, help="keeps vectors and the verifier's scores")
    parser.add_argument("--sets", default=",".join(SETS), help="only these, with commas between")
    parser.add_argument("--seeds", default="5", help="streams of each set, one number or one for each set")
    parser.add_argument("--length", type=int, default=20_000, help="requests of each stream")
    parser.add_argument("--output", type=Path, help="write the figures as JSON; the plot beside it, as .svg")
    return parser.parse_args()


def measured(name: str, seeds: int, given: argparse.Namespace, model: MiniLM) -> dict[str, Any]:
    """All arms on all streams of a set."""
    plains = [replayed(given.data, name, seed, given.length) for seed in range(1, seeds + 1)]
    vectors = embedded(model, [text for one in plains for text, _ in one.requests], given.cache)
    return compared(name, (prepared(one, vectors) for one in plains), Readings(name, given.cache))


def compared(name: str, streams: Iterable[Stream], readings: Readings) -> dict[str, Any]:
    """The figures of some streams."""
    learned: dict[tuple[str, float], list[Outcomes]] = {}
    tried: dict[str, dict[str, list[Outcomes]]] = {}
    for one in tqdm(streams, desc=name, disable=None, leave=False):
        _stream(one, readings, learned, tried)
        readings.keep()
    found = learned["verified", SHOWN_ALONG]
    return {
        "set": name,
        "seeds": len(found),
        "requests": len(found[0]),
        "arms": [_arm(*key, outcomes, tried) for key, outcomes in learned.items()],
        "fixed": {
            family: {choice: figures.meant(outcomes) for choice, outcomes in choices.items()}
            for family, choices in tried.items()
        },
        "along": {
            "verified": figures.along(found),
            "default": figures.along(tried["default"][f"{readings.cut}"]),
        },
    }


def _stream(
    stream: Stream,
    readings: Readings,
    learned: dict[tuple[str, float], list[Outcomes]],
    tried: dict[str, dict[str, list[Outcomes]]],
) -> None:
    for name, bound, made in arms.verified():
        learned.setdefault((name, bound), []).append(run(stream, readings, made(stream.seed)))
    for family, choice, arm in arms.fixed(readings.cut):
        tried.setdefault(family, {}).setdefault(choice, []).append(run(stream, readings, arm))


def _arm(
    name: str,
    bound: float,
    found: Sequence[Outcomes],
    tried: Mapping[str, Mapping[str, Sequence[Outcomes]]],
) -> dict[str, Any]:
    means = figures.meant(found)
    return {
        "arm": name,
        **figures.held(found, bound),
        **means,
        "oracles": {
            "same error": figures.oracles(tried, means["wrong_by_seed"]),
            "at the bound": figures.oracles(tried, [bound] * len(found)),
        },
    }


def main() -> None:
    given = arguments()
    model = MiniLM(1)
    result = run_of("bench.learning", {name: version(name) for name in VERSIONS})
    result["sets"] = []
    sets = given.sets.split(",")
    counts = (numbers * len(sets))[: len(sets)] if len(numbers := given.seeds.split(",")) == 1 else numbers
    for name, seeds in zip(sets, map(int, counts), strict=True):
        if why := absent(given.data, name):
            print(f"skipped {name}: {why}")
            continue
        begun = time.monotonic()
        result["sets"].append(found := measured(name, seeds, given, model))
        took = time.monotonic() - begun
        print(f"\n{name}, {seeds} streams of {given.length} requests, %; {took:.0f} s\n")
        print("\n\n".join(tables.told(found)), flush=True)
        if given.output:
            write(plain(result), given.output)
            given.output.with_suffix(".svg").write_text(plot.learning(plain(result)), "utf-8")


if __name__ == "__main__":
    main()
