"""What does a text's vector cost by the local model: alone and among concurrent callers, by setting?

    python -m bench.embedding [--rounds N] [--texts N] [--output FILE.json]

All settings live in one process and take turns with the same texts (Banking77's questions), so that what the
machine does besides meets each. CPU is the process', all threads. `over_ms` is what a call takes beyond the
model's run of the same text, which is measured right before or after it; `lag_ms` is how late a timer on the
event loop comes, 99th percentile. `model` is what a run costs by its word pieces. Ratios are medians
of the rounds', against `chosen`.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.embedders.batching import BATCH, PADDING_CHARS, BatchingEmbedder
from service.embedders.local import MiniLM, _weights

UTTERANCES = Path(__file__).parent / "data" / "banking77" / "utterances.tsv.gz"
CALLERS = (1, 4, 16)
TICK_S = 0.002
ANY = 10**9


class Setting(NamedTuple):
    """How the model is run."""

    threads: int = 0  # of one session; 0: one per core
    spinning: bool = False  # whether they spin between runs
    arena: bool = False  # whether the session keeps the memory of the largest run
    batch: int = BATCH  # texts per run at most
    padding: int = PADDING_CHARS
    sessions: int = 1


SETTINGS = {
    "chosen": Setting(),
    "unbatched": Setting(batch=1),
    "any padding": Setting(padding=ANY),
    "padding 160": Setting(padding=160),
    "batch 8": Setting(batch=8),
    "batch 32": Setting(batch=32),
    "1 thread": Setting(threads=1),
    "2 sessions of 1 thread": Setting(threads=1, sessions=2),
    "arena": Setting(arena=True),
    "spinning": Setting(spinning=True),
}


def model_of(setting: Setting) -> MiniLM:
    """The service's own, with another session where the setting asks for one."""
    one = MiniLM(setting.threads)
    if setting.spinning or setting.arena:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setting.threads
        options.enable_cpu_mem_arena = setting.arena
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spinning)))
        session = onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])
        one._session = session  # noqa: SLF001 - the service has no such settings
    return one


class Noted:
    """A model that remembers how many texts each run had."""

    def __init__(self, model: MiniLM) -> None:
        self.model, self.revision, self.dim = model.model, model.revision, model.dim
        self.unfit, self.tokens = model.unfit, model.tokens
        self._model = model
        self.runs: list[int] = []

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.runs.append(len(texts))
        return self._model.run(texts)


class Arm:
    """A setting at work: as many embedders as it has sessions, each text to the next."""

    def __init__(self, setting: Setting, models: list[MiniLM]) -> None:
        self.noted = [Noted(model) for model in models]
        made = [BatchingEmbedder(one, batch=setting.batch, padding=setting.padding) for one in self.noted]
        self.embedders, self._turn = made, itertools.cycle(made)

    async def embed(self, text: str) -> None:
        """As a lookup does."""
        if self.embedders[0].unfit(text) is None:
            await next(self._turn).embed([text])


class Spent(NamedTuple):
    """What one round of one arm took, per text."""

    wall_ms: float
    cpu_ms: float
    p50_ms: float
    lag_ms: float
    texts_per_run: float


async def crowd(arm: Arm, texts: Sequence[str], callers: int) -> Spent:
    """That many callers ask one text after the other."""
    left, took, late = iter(texts), list[float](), list[float]()

    async def caller() -> None:
        for text in left:
            begun = time.perf_counter()
            await arm.embed(text)
            took.append(time.perf_counter() - begun)

    async def ticks() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - begun - TICK_S)

    for one in arm.noted:
        one.runs.clear()
    ticking = asyncio.create_task(ticks())
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    ticking.cancel()
    runs = [size for one in arm.noted for size in one.runs]
    return Spent(
        wall * 1e3 / len(texts),
        cpu * 1e3 / len(texts),
        statistics.median(took) * 1e3,
        float(np.percentile(late or [0], 99)) * 1e3,
        statistics.mean(runs),
    )


async def over(arm: Arm, texts: Sequence[str]) -> float:
    """p50 of a call less p50 of the model's run of the same texts, ms; which comes first alternates."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for at, text in enumerate(texts):
        for called in (at % 2 == 0, at % 2 == 1):
            begun = time.perf_counter()
            if called:
                await arm.embed(text)
            else:
                arm.noted[0].run([text])
            took[called].append(time.perf_counter() - begun)
    return (statistics.median(took[True]) - statistics.median(took[False])) * 1e3


def run_costs(model: MiniLM) -> Iterator[tuple[int, float]]:
    """Pieces of a run, its padding included, and the CPU that it takes, ms."""
    for count, words in itertools.product((1, 4, 16), (4, 8, 16)):
        begun = time.process_time()
        model.run([" ".join(["word"] * words)] * count)
        yield count * (words + 2), (time.process_time() - begun) * 1e3


def fitted(costs: Sequence[tuple[int, float]]) -> dict[str, float]:
    """What a run costs before its first piece, and each piece: a line through the medians."""
    by_size: dict[int, list[float]] = {}
    for size, took in costs:
        by_size.setdefault(size, []).append(took)
    sizes, medians = list(by_size), [statistics.median(took) for took in by_size.values()]
    piece, fixed = np.polyfit(sizes, medians, 1)
    return {"cpu_ms_of_a_run": round(float(fixed), 2), "cpu_ms_of_a_piece": round(float(piece), 3)}


def questions(seed: int) -> Iterator[str]:
    """Without end, in an order of their own."""
    with gzip.open(UTTERANCES, "rt", encoding="utf-8", newline="") as file:
        texts = [line.split("\t")[2] for line in file][1:]
    random.Random(seed).shuffle(texts)  # noqa: S311 - the same order each time
    return itertools.cycle(dict.fromkeys(texts))


def summary(found: dict[str, list[Spent]], name: str, get: Callable[[Spent], float]) -> dict[str, float]:
    """Median of an arm's rounds, and of their ratios to the chosen setting's."""
    own, chosen = [get(one) for one in found[name]], [get(one) for one in found["chosen"]]
    ratios = [a / b for a, b in zip(own, chosen, strict=True) if b > 0]
    return {
        "median": round(statistics.median(own), 2),
        "ratio": round(statistics.median(ratios or [1]), 2),
        "least_ratio": round(min(ratios, default=1), 2),
        "greatest_ratio": round(max(ratios, default=1), 2),
    }


async def measured(rounds: int, count: int) -> dict[str, Any]:
    """All settings, in turns."""
    texts = questions(1)
    async with AsyncExitStack() as stack:
        arms: dict[str, Arm] = {}
        for name, setting in SETTINGS.items():
            arms[name] = Arm(setting, [model_of(setting) for _ in range(setting.sessions)])
            for embedder in arms[name].embedders:
                stack.push_async_callback(embedder.close)
                await embedder.embed(["warm up"])
        found: dict[int, dict[str, list[Spent]]] = {n: {name: [] for name in arms} for n in CALLERS}
        beyond: dict[str, list[float]] = {name: [] for name in arms}
        costs: list[tuple[int, float]] = []
        plain = model_of(Setting())
        for turn in range(rounds):
            costs += run_costs(plain)
            some = list(itertools.islice(texts, max(count, *CALLERS)))
            for callers in CALLERS:
                for name in list(arms)[:: 1 if turn % 2 else -1]:
                    found[callers][name].append(await crowd(arms[name], some, callers))
            for name, arm in arms.items():
                beyond[name].append(await over(arm, some[: max(count // 4, 2)]))
    reports = {name: report(name, found, beyond[name]) for name in SETTINGS}
    return {"model": fitted(costs), "settings": reports}


def report(name: str, found: dict[int, dict[str, list[Spent]]], beyond: list[float]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "setting": SETTINGS[name]._asdict(),
        "over_ms": round(statistics.median(beyond), 2),
    }
    for callers, by_name in found.items():
        told[f"{callers} callers"] = {
            field: summary(by_name, name, lambda one, field=field: getattr(one, field))  # type: ignore[misc] # bound now
            for field in Spent._fields
        }
    return told


def line(told: dict[str, Any], callers: int) -> str:
    """For reading along."""
    wall, cpu = (told[f"{callers} callers"][field] for field in ("wall_ms", "cpu_ms"))
    return f"{callers}: {wall['median']} ms (x{wall['ratio']}), CPU {cpu['median']} (x{cpu['ratio']})"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--texts", type=int, default=64, help="per round, setting and number of callers")
    arguments.add_argument("--output", type=Path, default=Path("bench/results/embedding.json"))
    given = arguments.parse_args()
    found = asyncio.run(measured(given.rounds, given.texts))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    head = {"machine": machine, "rounds": given.rounds, "texts": given.texts}
    given.output.write_text(json.dumps(head | found, indent=1) + "\n")
    print(found["model"])
    for name, one in found["settings"].items():
        print(f"{name:24}", *(line(one, n) for n in CALLERS), f"over {one['over_ms']}", sep=" | ")


if __name__ == "__main__":
    main()
