"""Latency while something else goes on: stores, KNN queries, an index's build, the model, more workers."""

import time
from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from bench.load import NUMBER, Job, Sample, percentile
from bench.paired import (
    Contender,
    Goal,
    Slice,
    Slices,
    at_least,
    at_most,
    difference,
    ratio,
    slice_of,
    slices_table,
    told,
)
from bench.serving import GUARDS_OFF, Op, asked, memory_off
from service.embedders.local import MiniLM
from service.settings import CHECKOUT
from service.store.index import _create_command, load_schema

if TYPE_CHECKING:
    from bench.latency import Bench

Section = tuple[dict[str, Any], list[Goal]]
Around = Callable[[Callable[[], Slice]], Slice]

LEAD_S = 0.3
"""What is beside begins so much earlier, and ends so much later."""
STORES = 200
SATURATING = 8
"""KNN queries under way at a time."""
FEW, MANY = 1, 4
BUILT = "bench:index"


def stores(bench: "Bench") -> Section:
    """Semantic lookups with stores beside."""
    job = bench.plain.job(bench.op("store"), 16, bench.seconds + 2 * LEAD_S)
    beside = msgspec.structs.replace(job, rate=STORES)
    unsent: list[float] = []
    found, goals = both(bench, "semantic", f"{STORES} stores/s", with_job(bench, beside, unsent), 3)
    found["stores on time"] = round(1 - sum(unsent) / max(1, len(unsent)), 3)
    return found, goals


def building(bench: "Bench") -> Section:
    """Semantic lookups while RediSearch builds a second index over the same documents."""
    within: list[bool] = []
    found, goals = both(bench, "semantic", "an index being built", while_building(bench, within), 3)
    found["slices within the build"] = sum(within)
    found["slices"] = len(within)
    return found, goals


def saturated(bench: "Bench") -> Section:
    """Exact lookups, and raw GET, while KNN queries keep Redis busy."""
    from bench.latency import raw_exact, raw_semantic  # noqa: PLC0415 - it imports this module

    knn = bench.raw("knn", raw_semantic(bench), SATURATING, joined=False).job
    around = with_job(bench, msgspec.structs.replace(knn, seconds=bench.seconds + 2 * LEAD_S), [])
    op = bench.op("exact")
    ours = bench.plain.contender("semcached", op, MANY, bench.seconds)
    raw = bench.raw("raw GET", raw_exact(bench), MANY, joined=False)
    found = bench.rounds([ours, raw], "saturated", around={"semcached": around, "raw GET": around})
    print(slices_table(f"exact, {MANY} at a time, KNN saturates Redis", found), "\n", flush=True)
    goal = at_most(
        "exact p99 while KNN saturates Redis ÷ raw GET's", 2, ratio(found, "semcached", "raw GET", "p99_us")
    )
    return {"exact": told(found)}, [goal]


def text(bench: "Bench") -> Section:
    """Lookups from texts that were never seen, which the local model embeds."""
    bench.plain.put_policy("texts", guards=GUARDS_OFF, threshold=-1)
    texts = [one["prompt"] for one in bench.kept[:256]]
    for one in texts[:16]:
        bench.plain.post("/v1/cache/store", {"agent_type": "texts", "prompt": one, "response": "x"})
    bodies = [{"agent_type": "texts", "prompt": f"{one} {NUMBER.decode()}"} for one in texts]
    op = Op("text", "/v1/cache/lookup", bodies, ['"tier":"semantic"'])
    model = MiniLM()
    plain: Around = lambda _: model_alone(model, texts, bench.seconds)  # noqa: E731 - as with_job's
    results, slices = {}, {}
    for callers in (1, 16):
        ours = bench.plain.contender("semcached", op, callers, bench.seconds)
        one_run = Contender("one model run at a time", ours.job)
        slices[callers] = bench.rounds([ours, one_run], "text", around={one_run.name: plain})
        print(slices_table(f"from text, {callers} at a time", slices[callers]), "\n", flush=True)
        results[str(callers)] = told(slices[callers])
    apart = difference(slices[1], "semcached", "one model run at a time", "p50_us")
    batched = ratio(slices[16], "semcached", "one model run at a time", "per_s")
    return results, [
        at_most(
            "semantic from text: p50 - p50 of one model run",
            1.5,
            type(apart)(*(one / 1000 for one in apart)),
            " ms",
        ),
        at_least("semantic from text, 16 at a time: throughput ÷ unbatched", 1.5, batched),
    ]


def workers(bench: "Bench") -> Section:
    """Exact lookups of two worker processes beside one."""
    op = bench.op("exact")
    with asked(
        bench.folder / "two", bench.url, bench.key, workers="2", **bench.settings, **memory_off()
    ) as two:
        contenders = [
            bench.plain.contender("one worker", op, 16, bench.seconds),
            two.contender("two workers", op, 16, bench.seconds),
        ]
        found = bench.rounds(contenders, "workers")
    print(slices_table("exact, 16 at a time", found), "\n", flush=True)
    gain = ratio(found, "two workers", "one worker", "per_s")
    return {"exact": told(found), "throughput, two ÷ one": [round(one, 3) for one in gain]}, []


def both(
    bench: "Bench", name: str, what: str, around: Around, limit: float
) -> tuple[dict[str, Any], list[Goal]]:
    """An operation idle and beside something, round by round; a goal for one connection, and for some."""
    results: dict[str, Any] = {}
    goals = []
    for callers in (FEW, MANY):
        idle = bench.plain.contender("idle", bench.op(name), callers, bench.seconds)
        loaded = idle._replace(name=what)
        found: Slices = bench.rounds([idle, loaded], what, around={what: around})
        print(slices_table(f"{name}, {callers} at a time", found), "\n", flush=True)
        results[str(callers)] = told(found)
        plural = "s" * (callers > 1)
        goals.append(
            at_most(
                f"{name} p99 beside {what} ÷ idle, {callers} connection{plural}",
                limit,
                ratio(found, what, "idle", "p99_us"),
            )
        )
    return results, goals


def with_job(bench: "Bench", job: Job, unsent: list[float]) -> Around:
    """A slice while another generator does a job; `unsent` gets the share that was not sent on time."""

    def around(run: Callable[[], Slice]) -> Slice:
        bench.second.start(job)
        time.sleep(LEAD_S)  # until the other load is under way
        found = run()
        sample = bench.second.result()
        unsent.append(sample.unsent / max(1, sample.unsent + sample.sent))
        return found

    return around


def while_building(bench: "Bench", within: list[bool]) -> Around:
    """A slice while an index is built; `within` says for each whether the build outlasted it."""
    redis: Any = bench.redis.redis
    name = next(one for one in redis.execute_command("FT._LIST") if b":responses:" in one)
    definition = info(redis, name)[b"index_definition"]
    (prefix,) = definition[definition.index(b"prefixes") + 1]
    schema = load_schema(CHECKOUT / "index_schemas" / "responses.yaml")
    create = _create_command(schema, BUILT, prefix.decode())

    def around(run: Callable[[], Slice]) -> Slice:
        redis.execute_command(*create)
        try:
            found = run()
            within.append(int(info(redis, BUILT)[b"indexing"]) == 1)
        finally:
            redis.execute_command("FT.DROPINDEX", BUILT)
        return found

    return around


def info(redis: Any, name: str | bytes) -> dict[bytes, Any]:
    """FT.INFO."""
    flat = redis.execute_command("FT.INFO", name)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def model_alone(model: MiniLM, texts: list[str], seconds: float) -> Slice:
    """Runs of one text each, one after the other, in this process with as many threads."""
    took = array("q")
    begun = now = time.perf_counter_ns()
    cpu = time.process_time()
    for at in range(10**9):
        model.run([f"{texts[at % len(texts)]} {at:09}"])
        before, now = now, time.perf_counter_ns()
        took.append(now - before)
        if now - begun > seconds * 1e9:
            break
    cpu = time.process_time() - cpu
    sample = Sample(
        answers=len(took),
        p50_us=percentile(took, 50),
        p99_us=percentile(took, 99),
        wall_s=(now - begun) / 1e9,
        cpu_s=0,
        sent=len(took),
    )
    return slice_of(sample, cpu=int(cpu * 1e9))


SECTIONS: Mapping[str, Callable[["Bench"], Section]] = {
    "stores beside": stores,
    "index being built": building,
    "KNN saturates Redis": saturated,
    "from text": text,
    "workers": workers,
}
