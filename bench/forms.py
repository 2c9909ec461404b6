"""How the form of a KNN query, and places of scopes, serve scopes of every size.

    python bench/forms.py [--entries N] [--queries N] [--vectors FILE.npy] [--output FILE.json]

Fills a Redis of its own with N index documents, once in a generation with places and once without, in
scopes of 10 to 500,000 per million, of which each has questions that everybody asks, word for word.
Then asks for entries of a scope at cosines of 0.65 to 1, in each form, in random order, with the commands
that the service sends. Told are Redis's CPU time per query, and how often the nearest entry by exact
search, if it is at 0.65 (at 0.9) or above, was the nearest by Redis. FILE has unit rows, float32; without
it, clusters as in sizing.py.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from bench.lookups import cpu_ns
from bench.sizing import index as index_info
from bench.sizing import vectors
from service.cache.canonical import Identity
from service.cache.digests import DigestKey
from service.cache.ports import Search
from service.model import Generation
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.store.forms import READ_ALL, UNKNOWN, WALK, Forms, count
from service.store.index import _create_command, as_kept, load_schema
from service.store.keys import Keys
from service.store.responses import TAGS
from service.store.searches import candidates, search_command
from service.store.vectors import packed

SHARES = (500_000, 100_000, 50_000, 20_000, 20_000, *[10_000] * 5, *[3_000] * 10, *[1_000] * 60, *[100] * 500)
"""Sizes of scopes per million; what is left goes to scopes of ten."""
TINY, COMMON, FEW = 10, 500, 6
"""Size of the least scopes; how many questions everybody asks; scopes that are measured of a size."""
DIM, FARTHEST, NEAREST = 384, 0.65, 0.999
THRESHOLDS = (0.65, 0.9)
LOST = 3e-3
"""A similarity that the index rounds by less is the nearest's."""
Rows = NDArray[np.float32]


class Corpus(NamedTuple):
    """Unit rows; those of a scope stand together."""

    rows: Rows
    starts: list[int]
    sizes: list[int]


class Asked(NamedTuple):
    """One query's cost, and whether it found the nearest, by threshold; None: there is none so near."""

    cpu_us: float
    found: tuple[bool | None, ...]


def unit(rows: Any) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def corpus(total: int, given: Rows | None, rng: np.random.Generator) -> Corpus:
    rows = np.array(list(vectors(total, rng)) if given is None else given[:total])
    while len(rows) < total:  # beyond what was given: near neighbours of it, apart as rows are
        some = rng.integers(0, len(rows), min(total - len(rows), 50_000))
        rows = np.concatenate([rows, turned(rows[some], rng.uniform(0.6, 0.95, len(some)), rows, rng)])
    rows = rows[rng.permutation(total)]
    sizes = [size * total // 10**6 for size in SHARES if size * total // 10**6 > TINY]
    sizes += [TINY] * ((total - sum(sizes)) // TINY)
    starts = [0, *np.cumsum(sizes)[:-1].tolist()]
    common = rows[rng.permutation(total)[:COMMON]].copy()
    for start, size in zip(starts, sizes, strict=True):
        several = max(1, min(COMMON, size * 3 // 10))
        rows[start : start + several] = common[:several]
    return Corpus(rows, starts, sizes)


def turned(rows: Rows, cosines: Any, towards: Rows, rng: np.random.Generator) -> Rows:
    """At that cosine from each, in the direction of some other row."""
    others = towards[rng.integers(0, len(towards), len(rows))]
    aside = unit(others - rows * np.sum(rows * others, axis=1, keepdims=True) + 1e-9)
    cosines = np.asarray(cosines)[:, None]
    return unit(rows * cosines + aside * np.sqrt(1 - cosines**2))


def identity(scope: int) -> Identity:
    """A third of the scopes is one tenant's, each other has a tenant of its own."""
    tenant = DigestKey(b"bench", str(0 if scope % 3 == 0 else scope))
    return Identity(
        tenant=tenant.tenant,
        agent_type=tenant.digest("agent_type", b""),
        scope=tenant.digest("scope", b"%d" % scope),
        history=tenant.digest("history", b""),
        entry_id="",
    )


def fill(redis: Redis, found: Corpus, keys: Keys, generation: Generation, rng: np.random.Generator) -> None:
    schema = load_schema(Settings().schema_dir / "responses.yaml", DIM)
    prefix = keys.documents(0, generation)
    redis.execute_command(*_create_command(as_kept(schema, generation), keys.index(0, generation), prefix))
    scopes = np.repeat(np.arange(len(found.sizes)), found.sizes)
    identities = [identity(at) for at in range(len(found.sizes))]
    order = rng.permutation(len(scopes))
    for page in np.array_split(order, max(1, len(order) // 100)):
        with redis.pipeline(transaction=False) as pipe:
            for at in page:
                own = identities[scopes[at]]
                times = ("stored_at", 1_700_000_000_000 + int(at), "expires_at", 1_800_000_000_000 + int(at))
                tags = [part for name in TAGS for part in (name, getattr(own, name))]
                raw = packed(found.rows[at], own.scope, generation)
                pipe.execute_command("HSET", prefix + f"{at:032x}", *tags, *times, "vector", raw)
            pipe.execute()


def forms_of(known: Forms, index: str, search: Search) -> dict[str, str]:
    return {"ours": known.form(index, search), "RediSearch's": UNKNOWN, "read all": READ_ALL, "walk": WALK}


class Server(NamedTuple):
    """A filled one."""

    redis: Redis
    pid: int
    generation: Generation

    def ask(self, command: Sequence[Any], nearest: float) -> Asked:
        before = cpu_ns(self.pid)
        reply = self.redis.execute_command(*command)
        took = (cpu_ns(self.pid) - before) / 1000
        near = candidates([reply], self.generation)
        if isinstance(near, Exception):
            raise near
        best = near[0].similarity if near else -1.0
        return Asked(took, tuple(best >= nearest - LOST if nearest >= one else None for one in THRESHOLDS))


def queries(
    found: Corpus, size: int, many: int, rng: np.random.Generator
) -> Iterator[tuple[int, Rows, float]]:
    """Scope, vector, similarity of the nearest in it; one of eight is a question that everybody asks."""
    scopes = [at for at, one in enumerate(found.sizes) if one == size][:FEW]
    for at in range(many):
        scope = scopes[at % len(scopes)]
        rows = found.rows[found.starts[scope] : found.starts[scope] + size]
        if at % 8 == 0:
            vector = rows[0]
        else:
            vector = turned(
                rows[rng.integers(0, size, 1)], [rng.uniform(FARTHEST, NEAREST)], found.rows, rng
            )[0]
        yield scope, vector, float((rows @ vector).max())


def measure(server: Server, found: Corpus, many: int, rng: np.random.Generator) -> dict[str, Any]:
    index, known = Keys("bench").index(0, server.generation), Forms()
    told: dict[str, Any] = {}
    for size in sorted(set(found.sizes)):
        asked: dict[str, list[Asked]] = {}
        for scope, vector, nearest in queries(found, size, many, rng):
            search = Search((identity(scope),), vector)
            stale = known.stale(index, [search]) if server.generation.placed else []
            known.learn(stale, [server.redis.execute_command(*count(one)) for one in stale])
            named = forms_of(known, index, search)
            for name in rng.permutation(list(named)):
                if (name, size > 2 * TINY) != ("walk", False):  # it would walk the whole graph for ten
                    command = search_command(index, search, named[name], server.generation)
                    asked.setdefault(str(name), []).append(server.ask(command, nearest))
        told[str(size)] = {name: report(one) for name, one in sorted(asked.items())}
    return told | {"all": {"no filter": report(unfiltered(server, found, many, rng))}}


def unfiltered(server: Server, found: Corpus, many: int, rng: np.random.Generator) -> list[Asked]:
    """The yardstick: a KNN over everything."""
    asked = []
    for at in rng.integers(0, len(found.rows), many):
        vector = turned(found.rows[at : at + 1], [rng.uniform(FARTHEST, NEAREST)], found.rows, rng)[0]
        raw = packed(vector, identity(0).scope, server.generation)
        query = ("*=>[KNN 10 @vector $vector AS distance]", "PARAMS", 2, "vector", raw)
        rest = ("RETURN", 1, "distance", "LIMIT", 0, 10, "DIALECT", 2)
        index = Keys("bench").index(0, server.generation)
        asked.append(server.ask(("FT.SEARCH", index, *query, *rest), 1.0))
    return [one._replace(found=(None, None)) for one in asked]


def report(asked: Sequence[Asked]) -> dict[str, Any]:
    times = np.array([one.cpu_us for one in asked])
    told: dict[str, Any] = {f"p{at}": round(float(np.percentile(times, at)), 1) for at in (50, 99)}
    for at, threshold in enumerate(THRESHOLDS):
        found = [one.found[at] for one in asked if one.found[at] is not None]
        if found:
            told[f"recall {threshold}"] = [sum(map(bool, found)), len(found)]
    return told


def one_run(total: int, many: int, given: Rows | None, *, placed: bool) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    found = corpus(total, given, rng)
    generation = Generation(
        number=1, index="1", space="1", model="m", revision="1", dim=DIM, datatype="float16", threshold=0.65,
        placed=placed,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedRedis(Path(folder), options=["--appendonly", "no"]) as server,
    ):
        redis, pid = Redis.from_url(server.url, protocol=2), server.pid or 0
        empty, before = redis.info("memory")["used_memory"], cpu_ns(pid)
        fill(redis, found, Keys("bench"), generation, rng)
        built = (cpu_ns(pid) - before) / 1000 / total
        memory = (redis.info("memory")["used_memory"] - empty) / total
        graph = float(index_info(redis)["vector_index_sz_mb"]) * 2**20 / total
        sizes = measure(Server(redis, pid, generation), found, many, rng)
    return {
        "build_cpu_us": round(built),
        "bytes_per_entry": round(memory),
        "graph_bytes": round(graph),
        "sizes": sizes,
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--entries", type=int, default=200_000)
    arguments.add_argument("--queries", type=int, default=200, help="of each size")
    arguments.add_argument("--vectors", type=Path)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/forms.json"))
    given = arguments.parse_args()
    rows = None if given.vectors is None else np.load(given.vectors, mmap_mode="r")
    told = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "entries": given.entries,
        "queries": given.queries,
        "vectors": "synthetic" if rows is None else "real texts'",
    }
    for name, placed in (("with places", True), ("without", False)):
        told[name] = one_run(given.entries, given.queries, rows, placed=placed)
    given.output.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
