"""Make a corpus, say what is in it, and fill a Redis with it.

    python -m bench.corpus --size 1000000 --data ../shared/data --cache .bench
        [--twins 0.3] [--redis-url URL | --redis-dir DIR [--no-aof]] [--output FILE.json]

May be killed at any time, and started again: it goes on where it was. 1,000,000 entries take 1.5 GB of disk,
and 5 GB of Redis's memory.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpus.entries import Corpus, made
from bench.corpus.filling import filled, write_keys
from bench.corpus.likeness import SAMPLE, likeness, quantiles
from bench.corpus.tenants import MOST
from service.store.embedded import EmbeddedRedis

BOUNDS = (1_000, 10_000, 100_000, MOST)


def described(corpus: Corpus) -> dict[str, Any]:
    """What is in it."""
    sizes = np.sort(corpus.sizes())[::-1]
    sizes = sizes[sizes > 0]
    questions = len(np.unique(corpus.questions))
    real = len(np.unique(corpus.questions[corpus.questions < len(corpus.texts.real)]))
    used = np.unique(corpus.questions)
    sample = np.sort(np.random.default_rng(3).choice(len(used), min(SAMPLE, len(used)), replace=False))
    return {
        "entries": corpus.size,
        "source": corpus.texts.source,
        "questions": questions,
        "real_questions": real,
        "in_several_tenants": round(corpus.shared(), 3),
        "tenants": len(sizes),
        "largest": sizes[:5].tolist(),
        "tenants_below": {str(bound): int((sizes < bound).sum()) for bound in BOUNDS},
        "similarities": quantiles(corpus.rows[: int(used[-1]) + 1], used[sample]),
    }


def table(found: dict[str, Any]) -> str:
    """The figures as lines."""
    lines = [
        f"{found['entries']:,} entries of {found['tenants']:,} tenants, the largest "
        + ", ".join(f"{one:,}" for one in found["largest"]),
        f"{found['questions']:,} questions, {found['real_questions']:,} of them real ({found['source']})",
        f"{100 * found['in_several_tenants']:.0f} % of the entries ask what another tenant asks, too",
    ]
    near = [f"similarity to the {name}: {_spread(one)}" for name, one in found["similarities"].items()]
    return "\n".join([*lines, *near])


def compared(found: dict[str, Any]) -> str:
    """Real, grown and noise beside each other."""
    lines = [
        f"similarities at {found['rows']:,} rows, of which the grown ones come from {found['grown_from']:,}"
    ]
    for kind in ("real", "grown", "noise"):
        lines += [f"  {kind:5} {name:8} {_spread(found[kind][name])}" for name in ("nearest", "tenth")]
    return "\n".join([*lines, f"  grown is off by {found['furthest']} at most"])


def _spread(values: list[float]) -> str:
    return " ".join(f"{one:.3f}" for one in values) + " (5, 25, 50, 75, 95 %)"


@contextmanager
def redis_of(arguments: argparse.Namespace) -> Iterator[str | None]:
    """The one that is named, one of our own, or none."""
    if arguments.redis_dir is None:
        yield arguments.redis_url
        return
    options = ("--appendonly", "no", "--save", "") if arguments.no_aof else ()
    with EmbeddedRedis(arguments.redis_dir, options=options) as server:
        yield server.url


def stored(corpus: Corpus, url: str, keys: Path) -> dict[str, Any]:
    """Fill it; all tenants' keys beside."""
    found = filled(corpus, url)
    write_keys(keys, corpus, np.unique(corpus.tenants).tolist())
    figures = found._asdict() | {
        "entries_per_s": round(found.entries_per_s),
        "bytes_per_entry": round(found.bytes_per_entry),
    }
    print(
        f"stored {found.stored:,} in {found.seconds:.0f} s ({found.entries_per_s:,.0f}/s), "
        f"{found.bytes_per_entry:,.0f} bytes each; keys: {keys}"
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.corpus", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--size", type=int, default=10_000, help=f"entries, at most {MOST:,}")
    parser.add_argument("--data", type=Path, help="the folder of the sets; else Banking77 of this checkout")
    parser.add_argument("--cache", type=Path, default=Path(".bench"), help="keeps the vectors")
    parser.add_argument("--twins", type=float, default=0.0, metavar="SHARE", help="ask what many tenants ask")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--redis-url", help="a Redis with search to fill")
    where.add_argument("--redis-dir", type=Path, help="the folder of an embedded one to start, fill and stop")
    parser.add_argument("--no-aof", action="store_true", help="the embedded one keeps nothing on disk")
    parser.add_argument("--likeness", action="store_true", help="hold grown vectors against real ones")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.data is not None and not (arguments.data / "query_stream" / "public").is_dir():
        print(f"skipped query_stream: {arguments.data}/query_stream is absent; Banking77 instead")
    begun = time.perf_counter()
    try:
        corpus = made(arguments.size, arguments.cache, data=arguments.data, twins=arguments.twins)
    except ValueError as error:
        sys.exit(f"--{error}")
    result: dict[str, Any] = {
        "command": f"python -m bench.corpus {' '.join(sys.argv[1:])}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "made_s": round(time.perf_counter() - begun, 1),
        "corpus": described(corpus),
    }
    print(table(result["corpus"]))
    if arguments.likeness:
        result["likeness"] = likeness(corpus.rows[: corpus.real])
        print(compared(result["likeness"]))
    with redis_of(arguments) as url:
        if url is not None:
            result["filled"] = stored(corpus, url, arguments.cache / "keys.json")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
