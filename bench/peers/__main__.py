"""What does a lookup take beside our peers: the same vectors, the same threshold, the same kind of Redis?

    python -m bench.peers [--sizes 10000,100000] [--peers redisvl,gptcache,langchain,scan] [--data FOLDER]

Ours is asked over HTTP, theirs in their own process, each in a process and over a Redis of its own; one is
asked at a time, in rounds of a random order, so that what the machine does besides meets all.
docs/benchmarks.md says what is measured and what isn't. `--here`: peers run in this Python, instead of in the
environment that is otherwise made in --cache; who isn't installed here is left out.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.peers import plot, tables
from bench.peers.contenders import ALL, FAMILIES, OURS, ROOT, Contender, Field, Running, pythons
from bench.peers.environment import Absent
from bench.peers.figures import Found, Round, result
from bench.peers.source import source
from bench.peers.work import KINDS, Work, written

THRESHOLD = 0.85


def arguments() -> argparse.Namespace:
    given = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    given.add_argument("--sizes", type=numbers, default=[10_000, 100_000], help="entries, joined by commas")
    given.add_argument("--peers", type=families, default=FAMILIES, help=f"of {','.join(FAMILIES)}; all")
    given.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the corpus' texts"
    )
    given.add_argument("--cache", type=Path, default=Path(".bench"), help="vectors, the peers' environment")
    given.add_argument("--tenants", type=int, default=1, help="whose entries they are, the k-th has 1/k")
    given.add_argument("--rounds", type=int, default=10)
    given.add_argument("--lookups", type=int, default=100, help="of each kind, per round")
    given.add_argument("--stores", type=int, default=20, help="per round")
    given.add_argument(
        "--longest", type=float, default=4, help="s that a round's lookups may take a contender"
    )
    given.add_argument("--here", action="store_true", help="in this Python, without the peers' environment")
    given.add_argument("--output", type=Path, help="JSON file; the plot goes beside it as .svg")
    return given.parse_args()


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def families(text: str) -> list[str]:
    named = text.split(",")
    unknown = [one for one in named if one not in FAMILIES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {','.join(FAMILIES)}")
    return named


def measured(given: argparse.Namespace, size: int) -> dict[str, Any]:
    """All contenders at one size."""
    asked = given.rounds * max(given.lookups, given.stores)
    vectors = source(given.data, given.cache, size)
    python = pythons(given.cache, here=given.here)
    wanted = [one for one in ALL if one.family in (OURS, *given.peers)]
    with tempfile.TemporaryDirectory(prefix="peers-") as name, ExitStack() as stack:
        work = written(
            vectors,
            Path(name) / "work",
            size=size,
            tenants=given.tenants,
            lookups=asked,
            threshold=THRESHOLD,
        )
        field = Field(stack, work, Path(name), THRESHOLD)
        started = {one.name: started_one(field, one, python(one)) for one in wanted}
        ready = {name: filled(one, size) for name, one in started.items()}
        found = [one for one in ready.values() if isinstance(one, Found)]
        for turn in range(given.rounds):
            lookups(found, work, given, turn)
        for turn in range(given.rounds):
            stores(found, given, turn)
    absent = {name: one.why for name, one in ready.items() if isinstance(one, Absent)}
    return result(vectors.name, work, found, absent)


def started_one(field: Field, contender: Contender, python: Path | Absent) -> Running | Absent:
    return python if isinstance(python, Absent) else field.start(contender, python)


def filled(running: Running | Absent, size: int) -> Found | Absent:
    """Who shares a cache finds it filled. A peer that can't be filled is absent, and says why."""
    if isinstance(running, Absent):
        return running
    contender = running.contender
    found = Found(running, marks=sum(one.of is not None for one in ALL[: ALL.index(contender) + 1]))
    if contender.of is None:
        try:
            before = running.used() if running.servers.redis else 0
            found.fill_s = running.do("fill", count=size)["s"]
            used = running.used()
        except RuntimeError as error:
            if contender.family == OURS:
                raise
            return Absent(str(error))
        found.bytes_per_entry = None if used is None or before is None else (used - before) / size
        print(f"{size:,}: {contender.name} filled in {found.fill_s:.1f} s", file=sys.stderr)
    return found


def lookups(found: Sequence[Found], work: Work, given: argparse.Namespace, turn: int) -> None:
    """A round: each contender once per kind, in an order by chance."""
    order = [(one, kind) for one in found for kind in KINDS]
    random.shuffle(order)
    for one, kind in order:
        begin = turn * given.lookups
        end = min(begin + one.bearable(kind, given.lookups, given.longest), len(work.right[kind]))
        if begin < end:
            mark = "" if kind == "exact" else "?" * one.marks
            beside = one.running.cpu_ms()
            told = one.running.do("lookup", **{"kind": kind, "from": begin, "to": end, "mark": mark})
            cpu_ms = {name: now - beside[name] for name, now in one.running.cpu_ms().items()}
            cpu_ms["caller"] = told["cpu_ms"]
            one.add(Round(kind, turn, told["ms"], cpu_ms), told["served"], work.right[kind][begin:end])


def stores(found: Sequence[Found], given: argparse.Namespace, turn: int) -> None:
    """The same for stores of new texts; those who share a cache don't store each other's."""
    for one in random.sample(found, len(found)):
        begin = turn * given.stores
        told = {"from": begin, "to": begin + given.stores, "mark": "?" * one.marks}
        one.add_stores(one.running.do("store", **told)["ms"])


def about() -> dict[str, Any]:
    """What was measured, where, by which command."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join(["python -m bench.peers", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": commit.stdout.strip() or None,
        "threshold": THRESHOLD,
    }


def main() -> None:
    given = arguments()
    found = about() | {"sizes": list(each(given))}
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        given.output.with_suffix(".svg").write_text(plot.drawn(found["sizes"]), "utf-8")


def each(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for size in given.sizes:
        one = measured(given, size)
        print(tables.told(one), flush=True)
        yield one


if __name__ == "__main__":
    main()
