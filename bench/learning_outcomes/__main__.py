"""python -m bench.learning_outcomes [PART …] [--data DIR] [--cache DIR] [--output FILE.json]

Parts: `rates` (does the live false-hit rate's interval hold the truth?), `steady` (made-up traffic of one
accuracy), `adaptive` (real questions: where does the threshold go?); all if none is named.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.learning_outcomes import live, moving, plot, steady, tables
from bench.learning_outcomes.streams import SETS, Pairs, loaded
from bench.quality.__main__ import ROOT, about, plain
from bench.quality.sets import Absent

PARTS = ("rates", "steady", "adaptive")
SEED = 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.learning_outcomes", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if absent")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public sets")
    parser.add_argument("--sets", default=",".join(SETS), help="only these, with commas between")
    parser.add_argument("--streams", type=int, default=200, help="simulated streams of each kind")
    parser.add_argument("--verdicts", type=int, default=3000, help="of each steady stream")
    parser.add_argument("--length", type=int, default=20_000, help="questions of each real stream")
    parser.add_argument("--seeds", type=int, default=2, help="how often who gives feedback is drawn")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench", help="keeps vectors and scores")
    parser.add_argument(
        "--output", type=Path, help="write the figures as JSON, the plot beside it; parts not run stay"
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"PART: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    return given


def rates_part(given: argparse.Namespace) -> dict[str, Any]:
    """Coverage and width of the live rate's interval, beside other ways to make one."""
    found = [live.measured(kind, given.streams, SEED) for kind in live.kinds()]
    print(f"\nThe truth within the 95 % interval in % of {given.streams} streams, and its mean width\n")
    print(tables.covered(found))
    return {"streams": given.streams, "kinds": found}


def steady_part(given: argparse.Namespace) -> dict[str, Any]:
    """How often the threshold moves though nothing changes."""
    streams = max(1, given.streams // 10)
    found = [
        steady.measured(accuracy, cliff, streams, given.verdicts, SEED)
        for cliff in (None, steady.CLIFF)
        for accuracy in (steady.ACCURACIES if cliff is None else steady.ACCURACIES[-2:])
    ]
    print(
        f"\n{streams} streams of {given.verdicts} verdicts, from {steady.START}\n\n{tables.steadied(found)}"
    )
    return {"streams": streams, "verdicts": given.verdicts, "kinds": found}


def adaptive_part(given: argparse.Namespace) -> dict[str, Any]:
    """Where the threshold goes on real questions, and what is served wrong on the way."""
    results, absent = [], []
    for name in given.sets.split(","):
        if not (given.data / "tools" / "replay.py").exists() or not (given.data / name / "public").is_dir():
            absent.append(
                Absent(name, f"{given.data} has no {name}: give the folder of the sets with --data")
            )
            print(f"skipped {name}: {absent[-1].why}")
            continue
        one = loaded(given.data, name, given.length, given.cache)
        pairs = Pairs(one, given.cache)
        results.append(
            {"set": name, "arms": [moving.arm(one, pairs, arm, given.seeds) for arm in moving.ARMS]}
        )
        pairs.keep()
    for result in results:
        print(f"\n{result['set']}, {given.length:,} questions\n\n{tables.went(result)}")
    return {"length": given.length, "seeds": given.seeds, "sets": results, "absent": absent}


def main() -> None:
    given = arguments()
    run = {"rates": rates_part, "steady": steady_part, "adaptive": adaptive_part}
    kept = given.output is not None and given.output.exists()
    result = json.loads(given.output.read_text("utf-8")) if kept else {}
    result |= about()
    command = " ".join(["python -m bench.learning_outcomes", *sys.argv[1:]])
    del result["command"]
    for name in given.parts or PARTS:
        begun = time.monotonic()
        result[name] = {"command": command, **run[name](given)}
        result[name]["took_s"] = round(time.monotonic() - begun)
    if given.output:
        found = plain(result)
        given.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        given.output.with_suffix(".svg").write_text(plot.drawn(found), "utf-8")


if __name__ == "__main__":
    main()
