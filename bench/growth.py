"""How do latency, recall and memory grow with the entries, and with the entries of one tenant?

    python -m bench.growth [--sizes 10000,100000,1000000] [--data DIR] [--cache DIR] [--twins SHARE]
        [--redis SIZE=URL …] [--wait] [--reload] [--rounds N] [--seconds S] [--queries N] [--output FILE.json]

Each size is a corpus of bench/corpus in a Redis and a service of its own; all run side by side, so that sizes
are compared within a round. What is near to an entry is asked of tenants of every size over HTTP, with the
vector; in the same rounds a client of Redis sends the service's own FT.SEARCH, and one that has no filter.
Filling takes ten minutes for a million: `--wait` keeps the servers afterwards, and prints the options
(`--redis`) by which the next run finds them.
"""

import argparse
import base64
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import plot
from bench.captured import Command, commands_of, record_key, searches
from bench.corpus import SECRET, Corpus, Filled, Query, api_key, filled, made, queries, write_keys
from bench.corpus.queries import Kind
from bench.load import NUMBER, Generator, Job, generator, http_requests, redis_request
from bench.paired import (
    Contender,
    Goal,
    Spread,
    as_json,
    at_least,
    at_most,
    difference,
    goals_table,
    numbers,
    ratio,
    rounds,
    run_of,
    slices_table,
    table,
    told,
    warm,
    write,
)
from bench.serving import GUARDS_OFF, Asked, Op, Place, asked, memory_off, noops, place, versions
from bench.sizing import Room, index, room
from service.store.embedded import EmbeddedRedis

TENANT_SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
"""Beside the largest tenant, those that come nearest to these sizes."""
THRESHOLD = 0.65
TIE = 1e-4
"""An entry as near as that to the nearest is as good."""
LOST = 0.1
"""Share of answers that may miss: a walk over a graph doesn't find all."""
EACH = 128
"""Queries of a tenant that are asked in turn."""
MANY = 16
KINDS: Sequence[tuple[str, str, Kind]] = (
    ("semantic", "raw FT.SEARCH", "near"),
    ("exact", "raw GET", "exact"),
)
"""The tier that answers, what is sent raw, which queries of the corpus."""
PATH = "/v1/cache/lookup"
UNFILTERED = "*=>[KNN 1 @vector $vector AS distance]"
VECTOR_BYTES = 1536
FLAT = 1.1


class Sized(NamedTuple):
    """A corpus that is served."""

    size: int
    corpus: Corpus
    redis: Place
    url: str
    service: Asked
    filled: Filled
    server: EmbeddedRedis | None  # None: it was there before
    tenants: list[int]  # the measured ones, the smallest first
    rss_before: int  # of the service, bytes, before anything was asked

    def contender(self, name: str, job: Job) -> Contender:
        pids = self.service.pids if job.protocol == "http" else ()
        return Contender(name, job, pids, self.redis.pid)


class Recalled(NamedTuple):
    """Of the queries of one tenant whose nearest entry is at or above the threshold."""

    asked: int
    found: int
    same: int  # the very entry, not one that is as near

    @property
    def share(self) -> float:
        return self.found / max(1, self.asked)


def measured_tenants(corpus: Corpus) -> list[int]:
    """The smallest first, the largest last; none twice."""
    sizes = corpus.sizes()
    near = {corpus.near_size(size) for size in TENANT_SIZES if size < corpus.size / 2} | {int(sizes.argmax())}
    return sorted((one for one in near if sizes[one]), key=lambda one: int(sizes[one]))


def lookup(corpus: Corpus, query: Query, *, kind: str, number: str = "") -> dict[str, Any]:
    """The body that asks it: by its words, or by its vector with other words each time."""
    asked = {"agent_type": corpus.agent_type(query.tenant)}
    if kind == "exact":
        return asked | {"prompt": query.text}
    vector = base64.b64encode(query.vector.astype("<f4").tobytes()).decode()
    return asked | {"prompt": f"{query.text} {number}", "embedding": vector}


def of_tenant(service: Asked, tenant: int) -> Asked:
    return service._replace(headers=(f"authorization: Bearer {api_key(tenant)}",))


def http_job(one: Sized, wanted: Sequence[Query], kind: str, callers: int, seconds: float) -> Job:
    """Each query as its tenant asks it."""
    requests = [
        http_requests(
            PATH,
            [lookup(one.corpus, query, kind=kind, number=NUMBER.decode())],
            of_tenant(one.service, query.tenant).headers,
        )[0]
        for query in wanted
    ]
    return Job(
        protocol="http",
        address=f"127.0.0.1:{one.service.port}",
        requests=requests,
        expected=[b"HTTP/1.1 200", f'"tier":"{kind}"'.encode()],
        callers=callers,
        seconds=seconds,
        tolerated=LOST,
    )


def captured(one: Sized, wanted: Sequence[Query], kind: str) -> list[Command]:
    """What the service sends to Redis for them: searches, or GET of the record."""
    found: list[Command] = []
    for query in wanted:
        body = lookup(one.corpus, query, kind=kind, number=f"captured {os.getpid()}")
        service = of_tenant(one.service, query.tenant)
        seen = commands_of(one.redis.redis, lambda: service.post(PATH, body))  # noqa: B023 - called at once
        found += searches(seen) if kind == "semantic" else [(b"GET", record_key(seen))]
    return found


def redis_job(
    one: Sized,
    commands: Sequence[Sequence[str | bytes | int]],
    callers: int,
    seconds: float,
    *,
    joined: bool = False,
) -> Job:
    return Job(
        protocol="redis",
        address=one.redis.address,
        requests=[redis_request(command) for command in commands],
        callers=callers,
        seconds=seconds,
        joined=joined,
    )


def unfiltered(command: Command) -> tuple[str | bytes | int, ...]:
    """The same question of the whole index."""
    at = command.index(b"PARAMS")
    vector = max(command[at + 2 : at + 2 + int(command[at + 1])], key=len)
    rest = ("RETURN", 1, "distance", "LIMIT", 0, 1, "DIALECT", 2)
    return ("FT.SEARCH", command[1], UNFILTERED, "PARAMS", 2, "vector", vector, *rest)


@contextmanager
def no_op(one: Sized, folder: Path) -> Iterator[Asked]:
    """A server that does nothing, and answers as much as the service."""
    tenant, ops = one.tenants[-1], []
    for kind, _, asked_as in KINDS:
        query = served_queries(one.corpus, asked_as, 8, [tenant])[0]
        body = lookup(one.corpus, query, kind=kind, number=NUMBER.decode())
        ops.append(Op(kind, PATH, [body], ()))
    with noops(folder, of_tenant(one.service, tenant), ops) as found:
        yield found["no-op Litestar"]


def doing_nothing(idle: Asked, ours: Contender, kind: str) -> Contender:
    """What `ours` is sent, to the no-op server."""
    requests = [one.replace(PATH.encode(), f"/{kind}".encode(), 1) for one in ours.job.requests]
    address, expected = f"127.0.0.1:{idle.port}", [b"HTTP/1.1 200"]
    job = msgspec.structs.replace(ours.job, requests=requests, address=address, expected=expected)
    return Contender(ours.name.replace("semcached", "no-op Litestar"), job, idle.pids)


def by_entries(
    all_sizes: Sequence[Sized], idle: Asked, load: Generator, given: argparse.Namespace
) -> dict[int, dict[str, dict[str, Any]]]:
    """Questions of all tenants, as they have entries: by connections, kind, contender `NAME SIZE`."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    asked_of = {
        (one.size, kind): (some, captured(one, some, kind))
        for one in all_sizes
        for kind, _, asked_as in KINDS
        for some in [served_queries(one.corpus, asked_as, given.mixed, None)]
    }
    for callers in (1, MANY):
        found[callers] = {}
        for kind, raw, _ in KINDS:
            contenders = []
            for one in all_sizes:
                wanted, commands = asked_of[one.size, kind]
                job = http_job(one, wanted, kind, callers, given.seconds)
                contenders.append(one.contender(f"semcached {one.size}", job))
                for joined in (False, True)[: 1 + (callers > 1)]:
                    name = f"{raw}{', joined' * joined} {one.size}"
                    job = redis_job(one, commands, callers, given.seconds, joined=joined)
                    contenders.append(one.contender(name, job))
            ours = next(one for one in contenders if one.name == f"semcached {all_sizes[-1].size}")
            contenders.append(doing_nothing(idle, ours, kind))
            warm(contenders, load)
            slices = rounds(contenders, load, count=given.rounds, words=f"{kind} at {callers}")
            print(slices_table(f"{kind}, {callers} at a time", slices), "\n", flush=True)
            found[callers][kind] = slices
    return found


def served_queries(corpus: Corpus, kind: Kind, count: int, tenants: list[int] | None) -> list[Query]:
    """Those whose nearest entry is near enough to be served."""
    return [one for one in queries(corpus, kind, count, tenants=tenants) if one.similarity > THRESHOLD + 0.01]


def by_tenant(one: Sized, load: Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Semantic lookups of each measured tenant at one connection, and their recall."""
    sizes, found = one.corpus.sizes(), []
    contenders: dict[int, list[Contender]] = {}
    for tenant in one.tenants:
        wanted = served_queries(one.corpus, "near", EACH, [tenant])
        commands = captured(one, wanted, "semantic")
        free = [unfiltered(command) for command in commands]
        contenders[tenant] = [
            one.contender("semcached", http_job(one, wanted, "semantic", 1, given.seconds)),
            one.contender("raw FT.SEARCH", redis_job(one, commands, 1, given.seconds)),
            one.contender("raw KNN, no filter", redis_job(one, free, 1, given.seconds)),
        ]
    for tenant in one.tenants:
        warm(contenders[tenant], load)
        slices = rounds(contenders[tenant], load, count=given.rounds)
        print(slices_table(f"{one.size} entries, a tenant of {sizes[tenant]}", slices), "\n", flush=True)
        recall = recalled(one, queries(one.corpus, "near", given.queries, tenants=[tenant], seed=2))
        found.append({"entries": int(sizes[tenant]), "slices": slices, "recall": recall})
    return found


def recalled(one: Sized, wanted: Sequence[Query]) -> Recalled:
    """Over HTTP, each once."""
    asked = hits = same = 0
    number = f"{os.getpid()}.{time.time_ns()}"
    for at, query in enumerate(wanted):
        if query.similarity < THRESHOLD:
            continue
        body = lookup(one.corpus, query, kind="semantic", number=f"{number}.{at}")
        answer = of_tenant(one.service, query.tenant).post(PATH, body).json()
        expected = msgspec.json.decode(one.corpus.answer(query.expected))
        asked += 1
        if answer["outcome"] == "hit":
            is_same = answer["response"] == expected
            same += is_same
            hits += is_same or answer["similarity"] >= query.similarity - TIE
    return Recalled(asked, hits, same)


def memory(one: Sized) -> dict[str, Any]:
    """Bytes per entry and where they are; what a caller gave of it."""
    empty = one.filled.bytes_before if one.filled.stored == one.size else 0
    found: Room = room(one.redis.redis, empty, one.size)
    some = range(0, one.size, max(1, one.size // 1000))
    payload = statistics.mean(
        len(one.corpus.text(at).encode()) + len(one.corpus.answer(at).encode()) for at in some
    )
    parts = {name: round(value) for name, value in found._asdict().items()}
    return {
        "bytes per entry": parts,
        "payload": round(payload),
        "ratio": found.all / (VECTOR_BYTES + payload),
    }


def rss(pids: Sequence[int]) -> int:
    """Bytes of memory of processes."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def reloaded(one: Sized) -> float | None:
    """Seconds until Redis serves again, from its AOF; None where it isn't ours."""
    if one.server is None:
        return None
    one.server.stop()
    begun = time.perf_counter()
    one.server.start()
    return time.perf_counter() - begun


@contextmanager
def serving(size: int, folder: Path, given: argparse.Namespace) -> Iterator[Sized]:
    """A corpus in a Redis, with a service before it."""
    corpus = made(size, given.cache, data=given.data, twins=given.twins)
    with ExitStack() as stack:
        url, server = given.redis.get(size), None
        if url is None:
            server = stack.enter_context(EmbeddedRedis(folder / f"redis{size}"))
            url = server.url
        result = filled(corpus, url) if missing(url, size) else Filled(size, 0, 0, 0, 0)
        tenants = measured_tenants(corpus)
        keys = folder / f"keys{size}.json"
        write_keys(keys, corpus, sorted({int(one) for one in corpus.tenants}))
        some = {"secret": SECRET, "keys_file": str(keys), **memory_off()}
        service = stack.enter_context(asked(folder / f"service{size}", url, api_key(tenants[0]), **some))
        before = rss(service.pids)
        for tenant in {*tenants, *(one.tenant for one in served_queries(corpus, "near", given.mixed, None))}:
            policy = {"guards": GUARDS_OFF, "threshold": THRESHOLD}
            of_tenant(service, tenant).put_policy(corpus.agent_type(tenant), **policy)
        yield Sized(size, corpus, place(url), url, service, result, server, tenants, before)


def missing(url: str, size: int) -> bool:
    """Whether the index has another number of documents."""
    redis: Any = place(url).redis
    names = [one for one in redis.execute_command("FT._LIST") if b":responses:" in one]
    return not names or int(index(redis)["num_docs"]) != size


def goals_of(
    all_sizes: Sequence[Sized], mixed: dict[int, dict[str, dict[str, Any]]], sizes: dict[int, dict[str, Any]]
) -> Iterator[Goal]:
    """The rows of the table that are about growth."""
    least, most = all_sizes[0].size, all_sizes[-1].size
    alone, many = mixed[1]["semantic"], mixed[MANY]["semantic"]
    apart = difference(alone, f"semcached {most}", f"raw FT.SEARCH {most}", "p50_us")
    at = f"{most:,} entries"
    yield at_most(f"semantic at {at}: p50 - raw p50", 0.6, Spread(*(one / 1000 for one in apart)), " ms")
    names = (f"raw FT.SEARCH {most}", f"raw FT.SEARCH, joined {most}")
    raw = max(names, key=lambda name: statistics.median(one.per_s for one in many[name]))
    yield at_least(
        f"semantic at {at}: throughput ÷ {raw.removesuffix(f' {most}')}'s",
        0.8,
        ratio(many, f"semcached {most}", raw, "per_s"),
    )
    yield from worst(at, sizes[most]["tenants"])
    recalls = [one["recall"].share * 100 for each in sizes.values() for one in each["tenants"]]
    yield at_least(
        "recall, worst tenant of any size", 99.5, Spread(min(recalls), min(recalls), max(recalls)), " %"
    )
    yield at_most(
        f"growth: semantic p50 at {at} ÷ at {least:,}",
        1.5,
        ratio(alone, f"semcached {most}", f"semcached {least}", "p50_us"),
    )
    size = sizes[most]["memory"]["ratio"]
    yield at_most(f"memory per entry at {at} ÷ (vector + payload)", 1.8, Spread(size, size, size))
    flat = sizes[most]["service bytes"]["after"] / sizes[least]["service bytes"]["after"]
    yield at_most(f"service memory at {at} ÷ at {least:,}", FLAT, Spread(flat, flat, flat))


def worst(at: str, tenants: Sequence[dict[str, Any]]) -> Iterator[Goal]:
    """p99 of the slowest tenant to that of a KNN without filter, raw and over HTTP."""
    for name in ("raw FT.SEARCH", "semcached"):
        ratios = [ratio(one["slices"], name, "raw KNN, no filter", "p99_us") for one in tenants]
        slowest = max(range(len(ratios)), key=lambda place: ratios[place].median)
        entries = tenants[slowest]["entries"]
        yield at_most(
            f"{at}: {name} p99, worst tenant ({entries:,}) ÷ raw KNN's without filter", 3, ratios[slowest]
        )


def recall_table(sizes: dict[int, dict[str, Any]]) -> str:
    rows: list[Sequence[str]] = [("entries", "of the tenant", "asked", "recall", "the very entry")]
    for size, each in sizes.items():
        for one in each["tenants"]:
            found: Recalled = one["recall"]
            same = f"{found.same / max(1, found.asked):.2%}"
            rows.append((f"{size:,}", f"{one['entries']:,}", str(found.asked), f"{found.share:.2%}", same))
    return table(rows)


def memory_table(sizes: dict[int, dict[str, Any]]) -> str:
    names = (*Room._fields, "payload", "of the service")
    rows: list[Sequence[str]] = [("entries", *names, "stored per s", "reload s")]
    for size, each in sizes.items():
        parts = [*each["memory"]["bytes per entry"].values(), each["memory"]["payload"]]
        service, others = each["service bytes"]["after"], (each["entries stored per s"], each["reload s"])
        figures = [f"{one:,}" for one in (*parts, service)]
        rows.append((f"{size:,}", *figures, *("" if one is None else f"{one:,.1f}" for one in others)))
    return "bytes per entry, and of the service\n" + table(rows)


def measured(
    all_sizes: Sequence[Sized], idle: Asked, load: Generator, given: argparse.Namespace
) -> tuple[dict[str, Any], list[Goal]]:
    """Everything; for the JSON, and as goals."""
    sizes: dict[int, dict[str, Any]] = {}
    for one in all_sizes:
        sizes[one.size] = {
            "memory": memory(one),
            "entries stored per s": round(one.filled.entries_per_s) if one.filled.stored else None,
            "tenants": by_tenant(one, load, given),
        }
    mixed = by_entries(all_sizes, idle, load, given)
    for one in all_sizes:
        sizes[one.size]["service bytes"] = {"before": one.rss_before, "after": rss(one.service.pids)}
        sizes[one.size]["reload s"] = reloaded(one) if given.reload else None
    print(recall_table(sizes), "\n")
    print(memory_table(sizes), "\n")
    goals = list(goals_of(all_sizes, mixed, sizes))
    return {str(size): as_told(size, each, mixed) for size, each in sizes.items()}, goals


def as_told(size: int, each: dict[str, Any], mixed: dict[int, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """One size, for the JSON."""
    tenants = [
        {
            "entries": one["entries"],
            "semantic": told(one["slices"]),
            "recall": one["recall"]._asdict() | {"share": round(one["recall"].share, 5)},
        }
        for one in each["tenants"]
    ]
    suffix = f" {size}"
    latency = {
        callers: {
            kind: told(
                {name.removesuffix(suffix): one for name, one in slices.items() if name.endswith(suffix)}
            )
            for kind, slices in kinds.items()
        }
        for callers, kinds in mixed.items()
    }
    return each | {"tenants": tenants, "latency": latency[1], f"latency at {MANY}": latency[MANY]}


def main() -> None:
    given = options()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        all_sizes = [stack.enter_context(serving(size, Path(name), given)) for size in given.sizes]
        load = stack.enter_context(generator(int(time.time()) % 10_000 * 50_000))
        result = run_of("bench.growth", versions(all_sizes[0].redis.redis))
        idle = stack.enter_context(no_op(all_sizes[-1], Path(name)))
        sizes, goals = measured(all_sizes, idle, load, given)
        result |= {"goals": as_json(goals), "sizes": sizes}
        write(result, given.output)
        given.output.with_suffix(".svg").write_text(plot.growth(result))
        print(goals_table(goals))
        if given.wait:
            wait(all_sizes)


def wait(all_sizes: Sequence[Sized]) -> None:
    """Keep the servers until somebody presses Enter."""
    print("kept:", *(f"--redis {one.size}={one.url}" for one in all_sizes), flush=True)
    sys.stdin.readline()


def options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--sizes", type=numbers, default=[10_000, 100_000, 1_000_000])
    arguments.add_argument(
        "--data", type=Path, help="the folder of the sets; else Banking77 of this checkout"
    )
    arguments.add_argument("--cache", type=Path, default=Path(".bench"), help="keeps the corpus' vectors")
    arguments.add_argument("--twins", type=float, default=0.3, help="share of entries that many tenants ask")
    arguments.add_argument("--redis", action="append", default=[], metavar="SIZE=URL", help="filled already")
    arguments.add_argument("--wait", action="store_true", help="keep the servers until Enter")
    arguments.add_argument("--reload", action="store_true", help="also restart each Redis, from its AOF")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    arguments.add_argument("--queries", type=int, default=400, help="per tenant, for the recall")
    arguments.add_argument("--mixed", type=int, default=512, help="queries of all tenants, for latency")
    arguments.add_argument("--output", type=Path, default=Path("bench/results/growth.json"))
    given = arguments.parse_args()
    given.redis = {int(size): url for size, _, url in (one.partition("=") for one in given.redis)}
    return given


if __name__ == "__main__":
    main()
