"""What do callers notice while an index migrates, and how long does it take?

    python -m bench.migration [--entries N] [--kinds reindex,convert,reembed] [--data DIR] [--cache DIR]
        [--pace SHARE] [--output FILE.json]

A corpus (bench/corpus) in an embedded Redis, services, and a process that asks and stores steadily
(bench/steady.py), checks every answer, and remembers what it stored. Meanwhile `semcached migrate` goes
through each kind: another graph, back again; float16 to float32, back again; the local model to one of 256
values behind an API (bench/models.py), back again, for which the services are replaced one after the other.
Told are errors, wrong and lost entries, hit rates, p99 before, during and after, time and memory; after each
step, with the load at rest, what lies in Redis is counted (bench/keyspace.py).

The other model's vectors of the corpus' texts are made of those in --cache, so embedding takes hardly any
time: what a real model takes for each text comes on top.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.corpus import SECRET, Corpus, api_key, filled, made, write_keys
from bench.fleet import Fleet, fleet
from bench.keyspace import Keyspace
from bench.models import DIM, PROJECTED, behind, projected, projected_of
from bench.paired import names, run_of, table, write
from bench.processes import SEMCACHED, environment
from bench.serving import GUARDS_OFF, Asked, Place, asked, memory_off, place, versions
from bench.steady import Steady, Told, steady
from service.settings import CHECKOUT
from service.store.embedded import EmbeddedRedis

CHANGES = {
    "reindex": ("m: 20", "m: 32"),
    "convert": ("datatype: float16", "datatype: float32"),
}
THRESHOLD = 0.65
LOOK_S = 0.1
REPLACED = "services replaced"
"""What an operator does between two commands; it isn't the migrator's time."""


class Bench(NamedTuple):
    """What a migration runs in."""

    redis: Place
    url: str
    folder: Path
    fleet: Fleet
    steady: Steady
    models: Sequence[Mapping[str, str]]
    """Settings by the number of a model."""
    entries: set[str]
    """Ids of those that were there at the beginning."""
    pace: float
    quiet_s: float


class Done(NamedTuple):
    """A command, or what an operator does besides."""

    what: str
    seconds: float
    said: Sequence[str] = ()


class Step(NamedTuple):
    """One migration, and what callers saw."""

    name: str
    done: list[Done]
    entries_before: int
    entries_after: int
    bytes_before: int
    bytes_most: int
    bytes_after: int
    before: Told
    during: Told
    after: Told
    gone: int
    flaws: list[str]

    @property
    def seconds(self) -> float:
        """That migrators worked."""
        return sum(one.seconds for one in self.done if one.what != REPLACED)

    @property
    def bad(self) -> int:
        """What must not be."""
        times = (self.before, self.during, self.after)
        return sum(one.errors + one.wrong + one.lost for one in times) + self.gone + len(self.flaws)


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


def migrate(bench: Bench, *action: str, schema: Path, model: int = 0) -> Done:
    """`semcached migrate`, as an operator calls it."""
    settings = {"redis_url": bench.url, "secret": SECRET, "schema_dir": str(schema), "verifier": "off"}
    command = [str(SEMCACHED), "migrate", *action, "--pace", str(bench.pace)]
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment(bench.folder / "migrate", **settings, **bench.models[model]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"migrate {action}: {done.stderr or done.stdout}")
    said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    print(*said, sep="\n", file=sys.stderr)
    return Done(f"migrate {' '.join(action)}", time.perf_counter() - begun, said)


def replaced(bench: Bench, model: int) -> Done:
    begun = time.perf_counter()
    bench.fleet.replace(bench.steady, model)
    return Done(REPLACED, time.perf_counter() - begun)


def used(redis: Place) -> int:
    memory: Any = redis.redis.info("memory")
    return int(memory["used_memory"])


@contextmanager
def watched(redis: Place) -> Iterator[list[int]]:
    """The most that Redis used meanwhile, alone in a list: its own peak is that of its whole life."""
    most, over = [used(redis)], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            most[0] = max(most[0], used(redis))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def step(bench: Bench, name: str, work: Iterator[Done]) -> Step:
    """One, with a quiet time before and after; then the load rests, and what is there is counted."""
    keyspace = Keyspace(bench.redis.redis)
    entries_before, bytes_before = len(keyspace.records()), used(bench.redis)
    before = bench.steady.told_after(bench.quiet_s)
    with watched(bench.redis) as most:
        done = list(work)
    during = bench.steady.told_after(0)
    after = bench.steady.told_after(bench.quiet_s)
    bench.steady.ask([])
    entries, flaws = keyspace.records().keys(), list(keyspace.flaws())
    bytes_after = used(bench.redis)
    bench.steady.ask(bench.fleet.services)
    return Step(
        name,
        done,
        entries_before,
        len(entries),
        bytes_before,
        most[0],
        bytes_after,
        before,
        during,
        after,
        len(bench.entries - entries),
        flaws,
    )


def steps(bench: Bench, kinds: Sequence[str]) -> Iterator[Step]:
    """There and back, of each kind."""
    plain = schemas(bench.folder / "plain")
    for kind, change in CHANGES.items():
        if kind in kinds:
            changed = schemas(bench.folder / kind, change)
            yield step(bench, f"{kind}: {change[1]}", alone(bench, "up", changed))
            yield step(bench, f"{kind}: back", alone(bench, "rollback", plain))
    if "reembed" in kinds:
        bench.fleet.add(0)
        bench.steady.ask(bench.fleet.services)
        yield step(bench, f"reembed: {DIM} values", other_model(bench, "up", plain, 1))
        yield step(bench, "reembed: back", other_model(bench, "rollback", plain, 0))


def alone(bench: Bench, action: str, schema: Path) -> Iterator[Done]:
    """One command is all."""
    yield migrate(bench, action, schema=schema)


def other_model(bench: Bench, action: str, schema: Path, model: int) -> Iterator[Done]:
    """As docs/migrations.md tells operators to."""
    yield migrate(bench, action, schema=schema, model=model)
    yield replaced(bench, model)
    yield migrate(bench, "up", "--finish", schema=schema, model=model)


def lines(found: Sequence[Step]) -> str:
    """A column for each step."""
    rows: list[Sequence[str]] = [("", *(one.name for one in found))]

    def row(name: str, values: Sequence[str]) -> None:
        rows.append((name, *values))

    row("migrators' time, s", [f"{one.seconds:.0f}" for one in found])
    row("for 100,000 entries, s", [f"{one.seconds * 1e5 / one.entries_after:.0f}" for one in found])
    times = [(one.before, one.during, one.after) for one in found]
    for name in ("errors", "wrong", "lost"):
        row(name, [str(sum(getattr(each, name) for each in three)) for three in times])
    row("entries gone", [str(one.gone) for one in found])
    row("flaws in Redis", ["; ".join(one.flaws) or "0" for one in found])
    for at, when in enumerate(("before", "during", "after")):
        row(f"hit rate {when}", [f"{three[at].hit_rate:.1%}" for three in times])
    for at, when in enumerate(("before", "during", "after")):
        row(f"in other words {when}", [f"{three[at].reworded_rate:.1%}" for three in times])
    for at, when in enumerate(("before", "during", "after")):
        row(f"p99 {when}, ms", [f"{three[at].p99_ms:.1f}" for three in times])
    row("p99 during ÷ before", [f"{d.p99_ms / max(b.p99_ms, 1e-9):.1f}" for b, d, _ in times])
    row("bytes per entry before", [f"{one.bytes_before / one.entries_before:,.0f}" for one in found])
    row("bytes per entry at most", [f"{one.bytes_most / one.entries_after:,.0f}" for one in found])
    row("bytes per entry after", [f"{one.bytes_after / one.entries_after:,.0f}" for one in found])
    return table(rows)


def as_told(one: Step) -> dict[str, Any]:
    """For the JSON."""
    times = {name: getattr(one, name) for name in ("before", "during", "after")}
    seen = {
        name: told._asdict()
        | {"hit_rate": round(told.hit_rate, 4), "reworded_rate": round(told.reworded_rate, 4)}
        for name, told in times.items()
    }
    done = [each._asdict() for each in one.done]
    return one._asdict() | seen | {"done": done, "seconds": round(one.seconds, 2)}


def main() -> None:
    given = options()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        corpus = made(given.entries, given.cache, data=given.data, twins=0.3)
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        filled(corpus, server.url)
        bench = prepared(stack, given, corpus, server.url, folder)
        found = list(steps(bench, given.kinds))
        result = run_of("bench.migration", versions(bench.redis.redis))
        print(lines(found))
        steps_told = [as_told(one) for one in found]
        result |= {"entries": corpus.size, "per_s": given.per_s, "steps": steps_told}
        result |= {"embedding": "the other model's vectors of the corpus' texts come from a file"}
        write(result, given.output)
        if bad := sum(one.bad for one in found):
            sys.exit(f"{bad} errors, wrong answers, lost entries or flaws in Redis")


def prepared(stack: ExitStack, given: argparse.Namespace, corpus: Corpus, url: str, folder: Path) -> Bench:
    """A service, asked by the steady load as the largest tenant."""
    keys = folder / "keys.json"
    write_keys(keys, corpus, sorted({int(one) for one in corpus.tenants}))
    largest = int(corpus.sizes().argmax())
    models: list[dict[str, str]] = [{}]
    if "reembed" in given.kinds:
        api = stack.enter_context(behind(projected_of(corpus)))
        models.append(
            {"embedder": "openai", "openai_base_url": api, "openai_model": PROJECTED}
            | {"openai_dimensions": str(DIM)}
        )

    def start(model: int) -> AbstractContextManager[Asked]:
        place_of_its_own = Path(tempfile.mkdtemp(dir=folder))
        settings = {"secret": SECRET, "keys_file": str(keys), **memory_off(), **models[model]}
        return asked(place_of_its_own, url, api_key(largest), **settings)

    services = stack.enter_context(fleet(start))
    first = services.add(0)
    first.put_policy(corpus.agent_type(largest), guards=GUARDS_OFF, threshold=THRESHOLD)
    load = stack.enter_context(steady(corpus, first, largest, given.per_s, projected))
    redis = place(url)
    entries = set(Keyspace(redis.redis).records())
    return Bench(redis, url, folder, services, load, models, entries, given.pace, given.seconds)


def options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--entries", type=int, default=50_000)
    arguments.add_argument("--kinds", type=names, default=[*CHANGES, "reembed"], help="of migrations")
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
