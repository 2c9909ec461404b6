"""A steady load from a process of its own, which checks every answer and remembers what it stored.

It may be moved from services to others, of another model too: each is asked with its own model's vectors.
"""

import base64
import multiprocessing
import queue
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np

from bench.corpus import Corpus, Query, queries
from bench.corpus.neighbours import Floats
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
    reworded: int = 0  # asked in other words
    reworded_hits: int = 0
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

    @property
    def reworded_rate(self) -> float:
        """Of what was asked in other words."""
        return self.reworded_hits / max(1, self.reworded)


class Questions(NamedTuple):
    """What is asked, with one model's vectors; of each model in the same order."""

    near: list[Query]
    exact: list[Query]
    absent: list[Query]


class Side(NamedTuple):
    """A service that is asked."""

    address: str
    headers: dict[str, str]
    model: int  # whose vectors it takes: the number of its Questions


class Steady:
    """The process, seen from outside."""

    def __init__(
        self,
        told: "multiprocessing.Queue[dict[str, Any]]",
        orders: "multiprocessing.Queue[list[Side] | None]",
    ) -> None:
        self._told, self._orders = told, orders

    def ask(self, services: Sequence[tuple[Asked, int]]) -> None:
        """From now on ask these, each as often, with that model's vectors; when it returns nobody else is."""
        self._ordered([side_of(one, model) for one, model in services])

    def told_after(self, seconds: float) -> Told:
        """What happened since it was last asked, or, after a while of waiting, in that while."""
        if seconds:
            self._ordered(None)
            time.sleep(seconds)  # what happens meanwhile is what is told
        found = self._ordered(None)
        return Told(**found | {"why": tuple(found["why"])})

    def _ordered(self, sides: list[Side] | None) -> dict[str, Any]:
        self._orders.put(sides)
        try:
            return self._told.get(timeout=60)
        except queue.Empty:
            raise RuntimeError("the load has died") from None


def side_of(service: Asked, model: int) -> Side:
    headers = dict(line.split(": ", 1) for line in service.headers)
    return Side(f"http://127.0.0.1:{service.port}", headers, model)


@contextmanager
def steady(
    corpus: Corpus, service: Asked, tenant: int, per_s: float, other: Callable[[Floats], Floats] | None = None
) -> Iterator[Steady]:
    """One that asks as a tenant, so many times a second; `other` makes vectors of another model, number 1."""
    asked = [questions(corpus, tenant)]
    if other is not None:
        asked.append(_with(asked[0], corpus, other))
    answers = {
        one.expected: msgspec.json.decode(corpus.answer(one.expected))
        for one in [*asked[0].near, *asked[0].exact]
    }
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[dict[str, Any]] = context.Queue()
    orders: multiprocessing.Queue[list[Side] | None] = context.Queue()
    over = context.Event()
    load = _Load(corpus.agent_type(tenant), asked, answers)
    process = context.Process(
        target=_run, args=(load, side_of(service, 0), per_s, told, orders, over), daemon=True
    )
    process.start()
    try:
        yield Steady(told, orders)
    finally:
        over.set()
        process.join(10)
        process.kill()


def questions(corpus: Corpus, tenant: int) -> Questions:
    """Of a tenant, with the corpus' own vectors."""
    near = queries(corpus, "near", QUERIES, tenants=[tenant], seed=3)
    exact = queries(corpus, "exact", QUERIES, tenants=[tenant], seed=4)
    absent = queries(corpus, "absent", QUERIES, tenants=[tenant], seed=5)
    return Questions([one for one in near if one.similarity > THRESHOLD + 0.01], exact, absent)


def _with(asked: Questions, corpus: Corpus, other: Callable[[Floats], Floats]) -> Questions:
    """The same with another model's vectors, and how near it finds the entries that are expected."""

    def turned(one: Query) -> Query:
        vector = other(one.vector)
        return one._replace(vector=vector, similarity=float(vector @ other(corpus.vector(one.expected))))

    return Questions(*([turned(one) for one in some] for some in asked))


class _Load:
    def __init__(self, agent_type: str, asked: Sequence[Questions], answers: dict[int, Any]) -> None:
        self._agent_type, self._questions, self._answers = agent_type, asked, answers
        self._sides: list[tuple[httpx.Client, int]] = []
        self._kept: list[tuple[str, str, int]] = []  # words, answer, the number of the absent question
        self._number = 0
        self._random = random.Random(1)  # noqa: S311 - a load, no secret
        self.clear()

    def move(self, sides: Sequence[Side]) -> None:
        """Ask these."""
        for http, _ in self._sides:
            http.close()
        self._sides = [
            (httpx.Client(base_url=one.address, headers=one.headers, timeout=10), one.model) for one in sides
        ]

    @property
    def is_asking(self) -> bool:
        """Whether there is anybody to be asked."""
        return bool(self._sides)

    def clear(self) -> None:
        self._counts = dict.fromkeys(
            ("asked", "hits", "reworded", "reworded_hits", "stored", "errors", "wrong", "lost"), 0
        )
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

    def turn(self) -> None:
        """One request."""
        http, model = self._random.choice(self._sides)
        asked, chance = self._questions[model], self._random.random()
        self._http = http
        try:
            if chance < STORES:
                self._store(asked)
            elif chance < 2 * STORES and self._kept:
                self._again(asked)
            else:
                self._look(*self._random.choice([(asked.near, "semantic"), (asked.exact, "exact")]))
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
        found = self._post("lookup", body | {"threshold": THRESHOLD})  # the policy's counts less meanwhile
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
        if kind == "semantic":
            self._counts["reworded"] += 1
            self._counts["reworded_hits"] += found["outcome"] == "hit"
        if found["outcome"] == "hit":
            is_right = found["response"] == expected or (
                kind == "semantic" and found["similarity"] >= one.similarity - TIE
            )
            if not is_right:
                self._bad("wrong", f"{kind} {found['similarity']} for {one.similarity}")
        elif kind == "exact":
            self._bad("lost", f"exact {found['reason']}")

    def _store(self, asked: Questions) -> None:
        self._number += 1
        at = self._random.randrange(len(asked.absent))
        one = asked.absent[at]
        words, answer = f"{one.text} ({self._number})", f"an answer, number {self._number}"
        body = {"prompt": words, "embedding": encoded(one), "response": answer}
        if self._post("store", body)["stored"]:
            self._kept.append((words, answer, at))
            self._counts["stored"] += 1

    def _again(self, asked: Questions) -> None:
        words, answer, at = self._random.choice(self._kept)
        found = self._asked({"prompt": words, "embedding": encoded(asked.absent[at]), "tiers": ["exact"]})
        if found["outcome"] != "hit":
            self._bad("lost", f"stored, then {found['reason']}")
        elif found["response"] != answer:
            self._bad("wrong", "another answer than was stored")


def encoded(one: Query) -> str:
    return base64.b64encode(one.vector.astype("<f4").tobytes()).decode()


def _run(  # noqa: PLR0917 - a process takes no keywords
    load: _Load,
    first: Side,
    per_s: float,
    told: "multiprocessing.Queue[dict[str, Any]]",
    orders: "multiprocessing.Queue[list[Side] | None]",
    over: Event,
) -> None:
    """Asks; an order of None is a question for what happened, which is begun anew then."""
    load.move([first])
    due = time.perf_counter()
    while not over.is_set():
        if load.is_asking:
            load.turn()
        with suppress(queue.Empty):
            sides = orders.get_nowait()
            if sides is None:
                told.put(load.told())
                load.clear()
            else:
                load.move(sides)
                told.put({})
        due = max(due + 1 / per_s, time.perf_counter() - 1)
        time.sleep(max(0, due - time.perf_counter()))  # the load's own pace
    load.move([])
