"""Entries whose answers are known, changed and deleted through services while something else goes on."""

import random
import re
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from bench.corpus.neighbours import Floats
from bench.serving import GUARDS_OFF

AGENT_TYPE, THRESHOLD = "a", 0.8
NEAR = 0.93
PAGE = 250
EVERY_S = 0.05
DRAINED_S = 10.0
"""By then a service has made what another model's left to it."""
NUMBER = re.compile(r"\d+")


class Drawers:
    """A model: a question's vector is that of the number in it; of other words than the first, nearby."""

    def rows(self, texts: Sequence[str], model: str, dim: int) -> Floats:
        """[n, dim], of norm 1."""
        return np.stack([self._row(one, model, dim) for one in texts])

    def _row(self, text: str, model: str, dim: int) -> Floats:
        found = NUMBER.search(text)
        if found is None:
            return _drawn(text, model, dim)
        number = int(found[0])
        own = _drawn(str(number), model, dim)
        if text == question(number):
            return own
        aside = _drawn(text, model, dim)
        aside -= (aside @ own) * own
        return NEAR * own + np.float32(np.sqrt(1 - NEAR**2)) * aside / np.linalg.norm(aside)


def _drawn(text: str, model: str, dim: int) -> Floats:
    row = np.random.default_rng([zlib.crc32(text.encode()), zlib.crc32(model.encode())]).normal(size=dim)
    return (row / np.linalg.norm(row)).astype(np.float32)


def question(number: int) -> str:
    return f"What is kept in drawer {number}?"


def reworded(number: int) -> str:
    return f"Tell me what drawer {number} holds, please."


class Doors:
    """Services that may be asked; who changes which these are waits until nobody is being asked."""

    def __init__(self) -> None:
        self._open: list[httpx.Client] = []
        self._lock = threading.Lock()

    def set(self, some: Sequence[httpx.Client]) -> None:
        """From now on these; when it returns nobody else is being asked."""
        with self._lock:
            self._open = list(some)

    @contextmanager
    def one(self, number: int) -> Iterator[httpx.Client | None]:
        """Each in turn, by a number that counts up; None where there is none."""
        with self._lock:
            yield self._open[number % len(self._open)] if self._open else None


class Stock:
    """What must be there, and what must not."""

    def __init__(self, entries: int, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a load, no secret
        self._numbers = entries
        self.answers: dict[int, str] = {}
        self.ids: dict[int, str] = {}
        self.deleted: set[int] = set()
        self.touched: set[int] = set()
        """Since it was last cleared."""
        self.unsure: set[int] = set()
        """What was on its way when Redis died."""
        self.flaws: list[str] = []
        self.may_fail = False
        self.done = 0

    def fill(self, http: httpx.Client) -> None:
        """The first entries, and a policy that serves what is near."""
        policy = {"threshold": THRESHOLD, "guards": GUARDS_OFF}
        http.put("/v1/policies", params={"agent_type": AGENT_TYPE}, json=policy).raise_for_status()
        for number in range(self._numbers):
            self._store(http, number)

    @contextmanager
    def changing(self, doors: Doors) -> Iterator[None]:
        """Change it meanwhile, again and again."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(EVERY_S):
                with doors.one(self.done) as http:
                    if http is not None:
                        self.change(http)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def change(self, http: httpx.Client) -> None:
        """One entry: a new one, another answer, or away with it; then it is looked up."""
        alive = sorted(self.answers)
        way = self._random.choice(["new", "other", "away"] if len(alive) > 20 else ["new"])
        number = self._numbers if way == "new" else self._random.choice(alive)
        self._numbers += way == "new"
        self.touched.add(number)
        try:
            change = self._delete if way == "away" else self._store
            change(http, number)
            if not self.may_fail:
                self._check(http, [number], "exact", way)
        except (httpx.HTTPError, KeyError) as error:
            self.unsure.add(number)
            if not self.may_fail:
                self.flaws.append(f"{way}: {error!r}"[:300])
        self.done += 1

    def _store(self, http: httpx.Client, number: int) -> None:
        answer = f"thing {self._random.randrange(10**9)}"
        ttl_s = self._random.choice([None, 3600, 86_400])
        body = {"agent_type": AGENT_TYPE, "prompt": question(number), "response": answer, "ttl_s": ttl_s}
        told = http.post("/v1/cache/store", json=body).raise_for_status().json()
        self.ids[number] = told["entry_id"]
        self.answers[number] = answer
        self.deleted.discard(number)

    def _delete(self, http: httpx.Client, number: int) -> None:
        http.delete(f"/v1/cache/entries/{self.ids[number]}").raise_for_status()
        del self.answers[number]
        self.deleted.add(number)

    def settle(self, http: httpx.Client) -> None:
        """What nobody knows of is stored and deleted, so that it is known again."""
        for number in sorted(self.unsure):
            self._store(http, number)
            self._delete(http, number)
        self.unsure.clear()

    def check(self, http: httpx.Client, where: str) -> None:
        """By the same words and by others: what is there answers, what was deleted doesn't."""
        numbers = sorted((self.answers.keys() | self.deleted) - self.unsure)
        for at in range(0, len(numbers), PAGE):
            self._check(http, numbers[at : at + PAGE], "exact", where)
            self._check(http, numbers[at : at + PAGE], "semantic", where)

    def _check(self, http: httpx.Client, numbers: Sequence[int], tier: str, where: str) -> None:
        wrong, deadline = self._wrong(http, numbers, tier), time.monotonic() + DRAINED_S
        while tier == "semantic" and wrong and time.monotonic() < deadline:
            time.sleep(0.2)  # what another model's service stored waits for its vector
            wrong = self._wrong(http, [number for number, _ in wrong], tier)
        self.flaws += [f"{where}: {tier}, drawer {number}: {why}" for number, why in wrong]

    def _wrong(self, http: httpx.Client, numbers: Sequence[int], tier: str) -> list[tuple[int, str]]:
        words = question if tier == "exact" else reworded
        # The policy's own threshold counts less under the other model; a request's is the caller's.
        fields = {"agent_type": AGENT_TYPE, "tiers": [tier], "threshold": THRESHOLD}
        items = [fields | {"prompt": words(one)} for one in numbers]
        told = http.post("/v1/cache/lookup/batch", json={"items": items}).raise_for_status().json()["items"]
        found: list[tuple[int, str]] = []
        for number, one in zip(numbers, told, strict=True):
            expected, got = self.answers.get(number), _answer(one)
            if got != expected:
                found.append((number, f"{got or one['reason']} instead of {expected}"))
        return found


def _answer(one: dict[str, Any]) -> str | None:
    return str(one["response"]) if one["outcome"] == "hit" else None
