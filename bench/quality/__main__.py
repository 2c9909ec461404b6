"""python -m bench.quality [PART …] [--data DIR] [--limit N] [--output FILE.json]

Parts: `pairs` (one entry, one question, every decider), `populate` (a filled cache over HTTP), `streams`
(look up, store on a miss); all if none is named.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.quality import baseline, decide, pairs, plot, populate, streams, tables
from bench.quality.rates import Estimate, Share
from bench.quality.sets import Absent
from bench.quality.vectors import loaded

PARTS = ("pairs", "populate", "streams")
VERSIONS = ("semcached-server", "onnxruntime", "numpy", "tokenizers")
ROOT = Path(__file__).parents[2]
ABOUT_PEERS = (
    "Peers decide by their own arithmetic and defaults, on the vectors of {model}. Their own default models "
    "are not fetched here: give one with --model FOLDER (model.onnx, tokenizer.json)."
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if absent")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public sets")
    parser.add_argument("--sets", help="only these, with commas between")
    parser.add_argument("--limit", type=int, help="pairs, entries, queries of each set; all if absent")
    parser.add_argument("--stream", type=int, default=20_000, help="length of each stream; at most --limit")
    parser.add_argument("--model", type=Path, help="folder of another embedding model, for the pairs")
    parser.add_argument("--threads", type=int, default=0, help="of the embedder; 0: one per core")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".data" / "quality", help="keeps vectors and scores"
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON; the plot beside it, as .svg")
    parser.add_argument(
        "--update-baseline", action="store_true", help="record what the small run in CI holds"
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"PART: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return given


def pair_part(given: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of the pairs."""
    model = loaded(given.model, given.threads)
    setup = pairs.Setup(given.data, model, decide.shipped_verifier(), given.cache, given.limit)
    results, absent = pairs.run(setup, given.sets.split(",") if given.sets else pairs.every())
    for one in absent:
        print(f"skipped {one.name}: {one.why}")
    means = pairs.means(results)
    print(f"\nLabel 1 / label 0 served by default, % (95 %). {ABOUT_PEERS.format(model=model.model)}")
    print("* the verifier may have learned from these rows; half read: from one text of so many pairs\n")
    print(tables.defaults(results))
    print("\nMeans over the sets, by default, % (95 %)\n\n" + tables.meant(means))
    print("\nShare of label 1 served at a share of label 0, % (95 %)\n\n" + tables.swept(results))
    print("\nBy kind, served by default, % (95 %)\n\n" + tables.by_kind(results))
    for table in tables.guarded(results):
        print("\nRejected by each guard alone, %\n\n" + table)
    return {
        "model": {"name": model.model, "revision": model.revision},
        "threshold": decide.THRESHOLD,
        "verifier": setup.verifier and {"version": setup.verifier.version, "cut": setup.verifier.cut},
        "peers": {peer.name: peer.source for peer in decide.PEERS},
        "curve_at": pairs.CURVE,
        "sets": results,
        "means": means,
        "absent": absent,
    }  # fmt: skip


def populate_part(given: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of the populated caches."""
    names = [name for name in populate.SETS if not given.sets or name in given.sets.split(",")]
    results, absent = populate.run(given.data, names, given.limit)
    for one in absent:
        print(f"skipped {one.name}: {one.why}")
    if results:
        print("\nA filled cache over HTTP, by default, % (95 %)\n\n" + tables.populated(results))
        print("\nRight answers at a share of wrong ones, % (95 %)\n\n" + tables.populated_swept(results))
    return {"sets": results, "absent": absent}


def stream_part(given: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of the streams."""
    names = [name for name in streams.SETS if not given.sets or name in given.sets.split(",")]
    results, absent = streams.run(given.data, names, min(given.stream, given.limit or given.stream))
    for one in absent:
        print(f"skipped {one.name}: {one.why}")
    if results:
        print("\nStreams, stored on every miss, % (95 %)\n\n" + tables.streamed(results))
    return {"streams": results, "absent": absent}


def plain(value: Any) -> Any:
    """Rates as objects with five decimals, so that the file says what its numbers are."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, Share | Estimate | Absent):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def about() -> dict[str, Any]:
    """What was measured, where, by which command."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join(["python -m bench.quality", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in VERSIONS},
        "commit": commit.stdout.strip() or None,
    }  # fmt: skip


def main() -> None:
    given = arguments()
    if given.update_baseline:
        baseline.update(given.cache)
        return
    run = {"pairs": pair_part, "populate": populate_part, "streams": stream_part}
    result = about()
    for name in given.parts or PARTS:
        begun = time.monotonic()
        result[name] = run[name](given)
        result[name]["took_s"] = round(time.monotonic() - begun)
        print(f"\n{name} took {result[name]['took_s']} s")
    if given.output:
        given.output.write_text(json.dumps(plain(result), indent=1) + "\n", "utf-8")
        if "pairs" in result:
            given.output.with_suffix(".svg").write_text(plot.drawn(plain(result)["pairs"]), "utf-8")


if __name__ == "__main__":
    main()
