"""A steady load from a process of its own, which checks every answer and remembers what it stored."""

import base64
import multiprocessing
import queue
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np

from bench.corpus import Corpus, Query, queries
from bench.serving import Asked

QUERIES = 500
STORES = 0.1
"""Share of requests that store."""
TIE = 5e-3
"""The answer of an entry that is as near as that to the nearest isn't wrong: number types differ by less."""
THRESHOLD = 0.65


class Told(NamedTuple):
    """What happened in a while."""

    asked: int = 0
    hits: int = 0
    stored: int = 0
    errors: int = 0
    wrong: int = 0  # another answer than the nearest entry's
    lost: int = 0  # stored, and no exact hit
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    longest_ms: float = 0.0
    why: tuple[str, ...] = ()

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.asked)


class Steady:
    """The process, seen from outside."""

    def __init__(self, told: "multiprocessing.Queue[dict[str, Any]]", wanted: Event) -> None:
        self._told, self._wanted = told, wanted

    def told_after(self, seconds: float) -> Told:
        """What happened since it was last asked, or, after a while of waiting, in that while."""
        if seconds:
            self._ask()
            time.sleep(seconds)  # what happens meanwhile is what is told
        return self._ask()

    def _ask(self) -> Told:
        self._wanted.set()
        try:
            found = self._told.get(timeout=60)
        except queue.Empty:
            raise RuntimeError("the load has died") from None
        return Told(**found | {"why": tuple(found["why"])})


@contextmanager
def steady(corpus: Corpus, service: Asked, tenant: int, per_s: float) -> Iterator[Steady]:
    """One that asks as a tenant, so many times a second."""
    near = [
        one
        for one in queries(corpus, "near", QUERIES, tenants=[tenant], seed=3)
        if one.similarity > THRESHOLD + 0.01
    ]
    exact = queries(corpus, "exact", QUERIES, tenants=[tenant], seed=4)
    absent = queries(corpus, "absent", QUERIES, tenants=[tenant], seed=5)
    answers = {one.expected: msgspec.json.decode(corpus.answer(one.expected)) for one in [*near, *exact]}
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[dict[str, Any]] = context.Queue()
    wanted, over = context.Event(), context.Event()
    address = f"http://127.0.0.1:{service.port}"
    headers = dict(line.split(": ", 1) for line in service.headers)
    arguments = (
        address,
        headers,
        corpus.agent_type(tenant),
        near,
        exact,
        absent,
        answers,
        per_s,
        told,
        wanted,
        over,
    )
    process = context.Process(target=_run, args=arguments, daemon=True)
    process.start()
    try:
        yield Steady(told, wanted)
    finally:
        over.set()
        process.join(10)
        process.kill()


class _Load:
    def __init__(self, http: httpx.Client, agent_type: str, answers: dict[int, Any]) -> None:
        self._http, self._agent_type, self._answers = http, agent_type, answers
        self._kept: list[tuple[str, str, str]] = []
        self._number = 0
        self._random = random.Random(1)  # noqa: S311 - a load, no secret
        self.clear()

    def clear(self) -> None:
        self._counts = {"asked": 0, "hits": 0, "stored": 0, "errors": 0, "wrong": 0, "lost": 0}
        self._took: list[float] = []
        self._why: list[str] = []

    def told(self) -> dict[str, Any]:
        """Since `clear`; a p99 of lookups."""
        took = np.array(self._took or [0.0]) * 1000
        found = self._counts | {
            "p50_ms": float(np.percentile(took, 50)),
            "p99_ms": float(np.percentile(took, 99)),
        }
        return found | {"longest_ms": float(took.max()), "why": self._why[:5]}

    def turn(self, near: list[Query], exact: list[Query], absent: list[Query]) -> None:
        """One request."""
        chance = self._random.random()
        try:
            if chance < STORES:
                self._store(self._random.choice(absent))
            elif chance < 2 * STORES and self._kept:
                self._again()
            else:
                self._look(*self._random.choice([(near, "semantic"), (exact, "exact")]))
        except (httpx.HTTPError, KeyError) as error:
            self._bad("errors", repr(error))

    def _bad(self, kind: str, why: str) -> None:
        self._counts[kind] += 1
        self._why.append(f"{kind}: {why}"[:300])

    def _post(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(f"/v1/cache/{call}", json=body | {"agent_type": self._agent_type})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _asked(self, body: dict[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        found = self._post("lookup", body)
        self._took.append(time.perf_counter() - begun)
        self._counts["asked"] += 1
        self._counts["hits"] += found["outcome"] == "hit"
        if found.get("reason") == "degraded":
            self._bad("errors", "degraded")
        return found

    def _look(self, some: list[Query], kind: str) -> None:
        one = self._random.choice(some)
        self._number += 1
        words = one.text if kind == "exact" else f"{one.text} {self._number}"
        found = self._asked({"prompt": words, "embedding": encoded(one), "tiers": [kind]})
        expected = self._answers[one.expected]
        if found["outcome"] == "hit":
            is_right = found["response"] == expected or (
                kind == "semantic" and found["similarity"] >= one.similarity - TIE
            )
            if not is_right:
                self._bad("wrong", f"{kind} {found['similarity']} for {one.similarity}")
        elif kind == "exact":
            self._bad("lost", f"exact {found['reason']}")

    def _store(self, one: Query) -> None:
        self._number += 1
        words, answer = f"{one.text} ({self._number})", f"an answer, number {self._number}"
        body = {"prompt": words, "embedding": encoded(one), "response": answer}
        if self._post("store", body)["stored"]:
            self._kept.append((words, answer, encoded(one)))
            self._counts["stored"] += 1

    def _again(self) -> None:
        words, answer, vector = self._random.choice(self._kept)
        found = self._asked({"prompt": words, "embedding": vector, "tiers": ["exact"]})
        if found["outcome"] != "hit":
            self._bad("lost", f"stored, then {found['reason']}")
        elif found["response"] != answer:
            self._bad("wrong", "another answer than was stored")


def encoded(one: Query) -> str:
    return base64.b64encode(one.vector.astype("<f4").tobytes()).decode()


def _run(  # noqa: PLR0917 - a process takes no keywords
    address: str,
    headers: dict[str, str],
    agent_type: str,
    near: list[Query],
    exact: list[Query],
    absent: list[Query],
    answers: dict[int, Any],
    per_s: float,
    told: "multiprocessing.Queue[dict[str, Any]]",
    wanted: Event,
    over: Event,
) -> None:
    with httpx.Client(base_url=address, headers=headers, timeout=10) as http:
        load, due = _Load(http, agent_type, answers), time.perf_counter()
        while not over.is_set():
            load.turn(near, exact, absent)
            if wanted.is_set():
                wanted.clear()
                told.put(load.told())
                load.clear()
            due = max(due + 1 / per_s, time.perf_counter() - 1)
            time.sleep(max(0, due - time.perf_counter()))  # the load's own pace
