"""What do callers notice while an index migrates, and how long does it take?

    python -m bench.migration [--entries N] [--data DIR] [--cache DIR] [--pace SHARE] [--output FILE.json]

A corpus (bench/corpus) in an embedded Redis, a service, and a process that asks and stores steadily
(bench/steady.py), checks every answer, and remembers what it stored. Meanwhile `semcached migrate` goes
through each kind: another graph, back again; float16 to float32, back again. Told are errors, wrong and lost
entries, hit rates, p99 before, during and after, and time and memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench.corpus import SECRET, Corpus, api_key, filled, made, write_keys
from bench.paired import run_of, table, write
from bench.processes import SEMCACHED
from bench.serving import GUARDS_OFF, Asked, Place, asked, memory_off, place, versions
from bench.steady import Steady, Told, steady
from service.settings import CHECKOUT
from service.store.embedded import EmbeddedRedis

CHANGES = {
    "reindex": ("m: 20", "m: 32"),
    "convert": ("datatype: float16", "datatype: float32"),
}
THRESHOLD = 0.65


class Bench(NamedTuple):
    """What a migration runs in."""

    corpus: Corpus
    redis: Place
    url: str
    folder: Path
    steady: Steady
    pace: float
    quiet_s: float


class Step(NamedTuple):
    """One migration, and what callers saw."""

    name: str
    seconds: float
    bytes_before: int
    bytes_most: int
    bytes_after: int
    before: Told
    during: Told
    after: Told
    said: list[str]


def schemas(folder: Path, *changes: tuple[str, str]) -> Path:
    """The shipped schemas, with changes to that of answers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (CHECKOUT / "index_schemas").glob("*.yaml"):
        text = path.read_text()
        for here, there in changes if path.stem == "responses" else ():
            if here not in text:
                raise ValueError(f"{path.name} has no `{here}`")
            text = text.replace(here, there)
        (folder / path.name).write_text(text)
    return folder


def migrate(bench: Bench, action: str, schema: Path) -> list[str]:
    """`semcached migrate`, as an operator calls it; what it said."""
    environment = os.environ | {
        "SEMCACHED_REDIS_URL": bench.url,
        "SEMCACHED_SECRET": SECRET,
        "SEMCACHED_SCHEMA_DIR": str(schema),
        "SEMCACHED_DATA_DIR": str(bench.folder / "migrate"),
        "SEMCACHED_VERIFIER": "off",
    }
    command = [str(SEMCACHED), "migrate", action, "--pace", str(bench.pace)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"migrate {action}: {done.stderr or done.stdout}")
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


def used(redis: Place) -> int:
    memory: Any = redis.redis.info("memory")
    return int(memory["used_memory"])


def step(bench: Bench, name: str, action: str, schema: Path) -> Step:
    """One, with a quiet time before and after."""
    before_bytes = used(bench.redis)
    before = bench.steady.told_after(bench.quiet_s)
    begun = time.perf_counter()
    said = migrate(bench, action, schema)
    seconds = time.perf_counter() - begun
    during = bench.steady.told_after(0)
    memory: Any = bench.redis.redis.info("memory")
    after = bench.steady.told_after(bench.quiet_s)
    bench.redis.redis.config_resetstat()
    found = Step(
        name,
        seconds,
        before_bytes,
        int(memory["used_memory_peak"]),
        used(bench.redis),
        before,
        during,
        after,
        said,
    )
    print(*said, sep="\n", file=sys.stderr)
    return found


def steps(bench: Bench) -> list[Step]:
    """There and back, of each kind."""
    plain, found = schemas(bench.folder / "plain"), []
    for kind, change in CHANGES.items():
        changed = schemas(bench.folder / kind, change)
        found.append(step(bench, f"{kind}: {change[1]}", "up", changed))
        found.append(step(bench, f"{kind}: rolled back", "rollback", plain))
    return found


def lines(found: Sequence[Step], entries: int) -> str:
    when = ("before", "during", "after")
    head = ("", "s", "per 100,000", "errors", "wrong", "lost", *(f"hit rate {one}" for one in when))
    head = (*head, *(f"p99 ms {one}" for one in when), "during ÷ before")
    rows: list[Sequence[str]] = [
        (*head, *(f"bytes per entry {one}" for one in ("before", "at most", "after")))
    ]
    for one in found:
        times = (one.before, one.during, one.after)
        rows.append(
            (
                one.name,
                f"{one.seconds:.0f}",
                f"{one.seconds * 1e5 / entries:.0f} s",
                *(str(sum(getattr(each, name) for each in times)) for name in ("errors", "wrong", "lost")),
                *(f"{each.hit_rate:.1%}" for each in times),
                *(f"{each.p99_ms:.1f}" for each in times),
                f"{one.during.p99_ms / max(one.before.p99_ms, 1e-9):.1f}",
                *(f"{size / entries:,.0f}" for size in (one.bytes_before, one.bytes_most, one.bytes_after)),
            )
        )
    return table(rows)


def as_told(one: Step) -> dict[str, Any]:
    """For the JSON."""
    times = {name: getattr(one, name) for name in ("before", "during", "after")}
    seen = {name: told._asdict() | {"hit_rate": round(told.hit_rate, 4)} for name, told in times.items()}
    return one._asdict() | seen


def main() -> None:
    given = options()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        corpus = made(given.entries, given.cache, data=given.data, twins=0.3)
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        filled(corpus, server.url)
        keys = folder / "keys.json"
        write_keys(keys, corpus, sorted({int(one) for one in corpus.tenants}))
        largest = int(corpus.sizes().argmax())
        some = {"secret": SECRET, "keys_file": str(keys), **memory_off()}
        service: Asked = stack.enter_context(asked(folder / "service", server.url, api_key(largest), **some))
        service.put_policy(corpus.agent_type(largest), guards=GUARDS_OFF, threshold=THRESHOLD)
        load = stack.enter_context(steady(corpus, service, largest, given.per_s))
        bench = Bench(corpus, place(server.url), server.url, folder, load, given.pace, given.seconds)
        found = steps(bench)
        result = run_of("bench.migration", versions(bench.redis.redis))
        print(lines(found, corpus.size))
        steps_told = [as_told(one) for one in found]
        result |= {"entries": corpus.size, "per_s": given.per_s, "steps": steps_told}
        write(result, given.output)
        bad = sum(
            each.errors + each.wrong + each.lost
            for one in found
            for each in (one.before, one.during, one.after)
        )
        if bad:
            sys.exit(f"{bad} errors, wrong answers or lost entries")


def options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--entries", type=int, default=50_000)
    arguments.add_argument(
        "--data", type=Path, help="the folder of the sets; else Banking77 of this checkout"
    )
    arguments.add_argument("--cache", type=Path, default=Path(".bench"), help="keeps the corpus' vectors")
    arguments.add_argument(
        "--pace", type=float, default=0.5, help="share of Redis's time that copying may take"
    )
    arguments.add_argument("--seconds", type=float, default=10.0, help="before and after each migration")
    arguments.add_argument("--per-s", type=float, default=100.0, help="requests of the steady load")
    arguments.add_argument("--output", type=Path, default=Path("bench/results/migration.json"))
    return arguments.parse_args()


if __name__ == "__main__":
    main()
