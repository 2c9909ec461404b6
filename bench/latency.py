"""How long does a request take, and what does it cost, beside a server that does nothing and Redis alone?

    python -m bench.latency [--entries N] [--rounds N] [--seconds S] [--connections 1,4,16,64] [--only OP,…]
                            [--output FILE.json]

One service over an embedded Redis with N entries (texts of Banking77 made distinct, a vector each). Each
operation is asked over HTTP at several connections, and in the same rounds the same bytes go to a no-op
handler of Litestar and a bare ASGI app under the service's own server settings, and a client of Redis sends
what the service sends: GET of the record, or the very FT.SEARCH. Then what is beside: stores, KNN queries
that saturate Redis, an index that is being built, two workers, the local model (bench/beside.py).
"""

import argparse
import base64
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import beside, plot
from bench.captured import commands_of, record_key, searches
from bench.load import NUMBER, Generator, Job, generator, redis_request
from bench.paired import (
    Contender,
    Goal,
    Slice,
    as_json,
    at_least,
    at_most,
    goals_table,
    names,
    numbers,
    ratio,
    rounds,
    run_of,
    slices_table,
    told,
    warm,
    write,
)
from bench.serving import GUARDS_OFF, Asked, Op, Place, asked, doing, memory_off, noops, place, versions
from bench.sizing import AGENT_TYPE, BATCH, DIM, entries
from service.api.auth import Role, create_key
from service.store.embedded import EmbeddedRedis

TENANT = "bench"
SECRET = "the benches' own, of 16 bytes or more"  # noqa: S105 - of a Redis that lives for a run
ASKED, HOT = 2000, 64
"""How many entries are asked for in turn; how many of them for the process-local tier."""
OTHERS = 0.1
"""Share of answers that may come from Redis where the process-local tier is measured: it may be in doubt."""
NEAR = 0.3
"""Noise in a question's vector, in lengths of its entry's: a cosine near 0.96."""
CHARS = 800
GOAL_AT = 16
"""Connections at which a goal is read that names none."""


class Vectors(NamedTuple):
    """Base64 of float32."""

    stored: list[str]
    near: list[str]  # to the stored ones, in order
    new: list[str]


@dataclass
class Bench:
    """What runs."""

    redis: Place
    url: str
    folder: Path
    key: str
    settings: dict[str, str]  # of every service here
    service: Asked  # as it is shipped, but for the verifier
    plain: Asked  # without a process-local tier
    idle: dict[str, Asked]  # the no-op servers
    load: Generator
    second: Generator
    count: int  # rounds
    seconds: float
    connections: list[int]
    vectors: Vectors
    kept: list[dict[str, Any]]  # what was stored

    def rounds(self, contenders: Sequence[Contender], words: str, **more: Any) -> dict[str, list[Slice]]:
        """See bench.paired."""
        here = [one._replace(redis=self.redis.pid) for one in contenders]
        warm(here, self.load)
        return rounds(here, self.load, count=self.count, words=words, **more)

    def raw(
        self, name: str, commands: Sequence[Sequence[str | bytes | float]], callers: int, *, joined: bool
    ) -> Contender:
        """A client of Redis."""
        job = Job(
            protocol="redis",
            address=self.redis.address,
            requests=[redis_request(one) for one in commands],
            callers=callers,
            joined=joined,
            seconds=self.seconds,
        )
        return Contender(name, job)

    def op(self, name: str) -> Op:
        """One of the measured operations."""
        return next(one for one in ops(self.vectors, self.kept) if one.name == name)


def coded(vector: NDArray[np.float32]) -> str:
    return base64.b64encode((vector / np.linalg.norm(vector)).astype("<f4").tobytes()).decode()


def vectors_of(kept: Sequence[dict[str, Any]]) -> Vectors:
    rng = np.random.default_rng(2)
    stored = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in kept]
    noise = NEAR / DIM**0.5
    near = [coded(one + rng.normal(size=DIM).astype("<f4") * noise) for one in stored]
    new = [coded(rng.normal(size=DIM).astype("<f4")) for _ in range(2 * ASKED)]
    return Vectors([one["embedding"] for one in kept], near, new)


def ops(vectors: Vectors, kept: Sequence[dict[str, Any]]) -> list[Op]:
    """The operations. What must be new each time has a number in it."""
    number, answer = NUMBER.decode(), kept[0]["response"]
    exact = [{"agent_type": AGENT_TYPE, "prompt": one["prompt"]} for one in kept]
    semantic = [
        {"agent_type": AGENT_TYPE, "prompt": f"{one['prompt']} {number}", "embedding": vector}
        for one, vector in zip(kept, vectors.near, strict=True)
    ]
    store = [
        {"agent_type": "stores", "prompt": f"new {number}", "response": answer, "embedding": vector}
        for vector in vectors.new
    ]
    calls = [{"agent_type": "tools", "tool": "get_weather", "arguments": {"at": at}} for at in range(4 * HOT)]
    new_call = {"agent_type": "tools", "tool": "get_weather", "arguments": {"new": number}, "result": answer}
    kept_texts = [{"model": "default", "texts": [one["prompt"]], "encoding_format": "base64"} for one in kept]
    openai = [{"model": "default", "input": one["prompt"], "encoding_format": "base64"} for one in kept]
    return [
        Op("exact", "/v1/cache/lookup", exact, ['"tier":"exact"']),
        Op("memory", "/v1/cache/lookup", exact[:HOT], ['"tier":"memory"'], OTHERS),
        Op("semantic", "/v1/cache/lookup", semantic, ['"tier":"semantic"']),
        Op("store", "/v1/cache/store", store, ['"stored":true']),
        Op("tools lookup", "/v1/tools/lookup", calls, ['"outcome":"hit"']),
        Op("tools store", "/v1/tools/store", [new_call], ['"stored":true']),
        Op("embeddings lookup", "/v1/embeddings/lookup", kept_texts[:HOT], ['{"embeddings":["']),
        Op("embeddings", "/v1/embeddings", openai[:HOT], ['"object":"list"', '"total_tokens":0']),
    ]


def fill(service: Asked, count: int) -> list[dict[str, Any]]:
    """Store entries, tool results and embeddings; the first of the entries, which are asked for."""
    for name in (AGENT_TYPE, "stores"):  # it isn't asked what is right, but what it costs
        service.put_policy(name, guards=GUARDS_OFF, threshold=0.65)
    kept: list[dict[str, Any]] = []
    items = entries(count, CHARS)
    while page := list(islice(items, BATCH)):
        answers = service.post("/v1/cache/store/batch", {"items": page}).json()["items"]
        if not all(answer.get("stored") for answer in answers):
            sys.exit(f"not stored: {next(one for one in answers if not one.get('stored'))}")
        kept += page[: max(0, ASKED - len(kept))]
    for call in ops(vectors_of(kept[:1]), kept[:1])[4].bodies:
        service.post("/v1/tools/store", call | {"result": kept[0]["response"], "ttl_s": 86_400})
    texts = [one["prompt"] for one in kept[:HOT]]
    service.post("/v1/embeddings", {"model": "default", "input": texts})
    items_kept = [{"text": one["prompt"], "embedding": one["embedding"]} for one in kept[:HOT]]
    service.post("/v1/embeddings/store", {"model": "default", "items": items_kept})
    return kept


def raw_exact(bench: Bench) -> list[tuple[bytes, ...]]:
    """GET of the records that the exact lookups read."""
    found: list[tuple[bytes, ...]] = []
    for body in bench.op("exact").bodies[:HOT]:
        seen = commands_of(bench.redis.redis, partial(bench.plain.post, "/v1/cache/lookup", body))
        found.append((b"GET", record_key(seen)))
    return found


def raw_semantic(bench: Bench) -> list[tuple[bytes, ...]]:
    """The searches that semantic lookups send."""
    found = []
    for at, body in enumerate(bench.op("semantic").bodies[: 4 * HOT]):
        asked_so = body | {"prompt": f"captured {at}"}
        seen = commands_of(bench.redis.redis, partial(bench.plain.post, "/v1/cache/lookup", asked_so))
        found += searches(seen)
    return found


RAW: dict[str, tuple[str, Callable[[Bench], list[tuple[bytes, ...]]]]] = {
    "exact": ("GET", raw_exact),
    "memory": ("GET", raw_exact),
    "semantic": ("FT.SEARCH", raw_semantic),
}


def measured(bench: Bench, name: str, op: Op) -> dict[int, dict[str, list[Slice]]]:
    """By connections, by contender."""
    raw_name, capture = RAW.get(name, ("", None))
    commands = capture(bench) if capture else []
    service = bench.service if name == "memory" else bench.plain
    found = {}
    for callers in bench.connections:
        contenders = [service.contender("semcached", op, callers, bench.seconds)]
        contenders += [doing(kind, one, op, callers, bench.seconds) for kind, one in bench.idle.items()]
        if commands:
            contenders.append(bench.raw(f"raw {raw_name}", commands, callers, joined=False))
            if callers > 1:
                contenders.append(bench.raw(f"raw {raw_name}, joined", commands, callers, joined=True))
        found[callers] = bench.rounds(contenders, f"{name} at {callers}")
        print(slices_table(f"{name}, {callers} at a time", found[callers]), "\n", flush=True)
    return found


def goals_of(name: str, found: dict[int, dict[str, list[Slice]]]) -> Iterator[Goal]:
    """The table of the issue, as far as it asks of one operation."""
    at = GOAL_AT if GOAL_AT in found else max(found)
    if name not in {"exact", "memory"}:
        return
    cpu, throughput = (1.3, 0.75) if name == "exact" else (1.1, 0.9)
    where = "from Redis" if name == "exact" else "from the process-local tier"
    slices = found[at]
    told_at = f"{where}, {at} connections"
    yield at_most(
        f"exact hit {told_at}: CPU ÷ no-op's", cpu, ratio(slices, "semcached", "no-op Litestar", "cpu_us")
    )
    yield at_least(
        f"exact hit {told_at}: throughput ÷ no-op's",
        throughput,
        ratio(slices, "semcached", "no-op Litestar", "per_s"),
    )


def hot(service: Asked, op: Op) -> bool:
    """Whether the process-local tier serves these after a few questions."""
    for _ in range(5):
        tiers = {service.post(op.path, body).json().get("tier") for body in op.bodies}
        if tiers == {"memory"}:
            return True
    return False


@contextmanager
def running(given: argparse.Namespace) -> Iterator[Bench]:
    """Everything that is measured, filled."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedRedis(folder / "redis"))
        key = create_key(folder / "keys.json", TENANT, Role.admin)
        common = {"secret": SECRET, "keys_file": str(folder / "keys.json")}
        service = stack.enter_context(asked(folder / "service", server.url, key, **common))
        plain = service
        if off := memory_off():
            plain = stack.enter_context(asked(folder / "plain", server.url, key, **common, **off))
        kept = fill(plain, given.entries)
        vectors = vectors_of(kept)
        answered = [one for one in ops(vectors, kept) if one.name != "memory"]
        idle = stack.enter_context(noops(folder, plain, answered))
        yield Bench(
            redis=place(server.url),
            url=server.url,
            folder=folder,
            key=key,
            settings=common,
            service=service,
            plain=plain,
            idle=idle,
            load=stack.enter_context(generator()),
            second=stack.enter_context(generator(500_000_000)),
            count=given.rounds,
            seconds=given.seconds,
            connections=given.connections,
            vectors=vectors,
            kept=kept,
        )


def all_measured(bench: Bench, only: Sequence[str]) -> tuple[dict[str, Any], list[Goal]]:
    found: dict[str, Any] = {}
    goals: list[Goal] = []
    for op in ops(bench.vectors, bench.kept):
        if only and op.name not in only:
            continue
        if op.name == "memory" and not (memory_off() and hot(bench.service, op)):
            print("memory: skipped, this version has no process-local tier\n")
            continue
        at = measured(bench, op.name, op._replace(name="exact") if op.name == "memory" else op)
        found[op.name] = {str(callers): told(slices) for callers, slices in at.items()}
        goals += goals_of(op.name, at)
    for name, section in beside.SECTIONS.items():
        if not only or name in only:
            slices, reached = section(bench)
            found[name] = slices
            goals += reached
    return found, goals


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--entries", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    arguments.add_argument("--connections", type=numbers, default=[1, 4, 16, 64])
    arguments.add_argument("--only", type=names, default=[], metavar="NAME,…")
    arguments.add_argument("--output", type=Path, default=Path("bench/results/latency.json"))
    given = arguments.parse_args()
    with running(given) as bench:
        result = run_of("bench.latency", versions(bench.redis.redis)) | {"entries": given.entries}
        found, goals = all_measured(bench, given.only)
    result |= {"goals": as_json(goals), "measured": found}
    write(result, given.output)
    given.output.with_suffix(".svg").write_text(plot.latency(result))
    print(goals_table(goals))


if __name__ == "__main__":
    main()
