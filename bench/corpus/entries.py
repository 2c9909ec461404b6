"""A corpus: entries with text, vector and tenant, always the same; made once, then read from disk."""

import json
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.corpus.neighbours import Floats, Numbers
from bench.corpus.tenants import AGENT_TYPES, MOST, RESERVED, TENANTS, Asked, asked
from bench.corpus.texts import Texts, texts
from bench.corpus.vectors import Rows
from service.embedders.batching import Model
from service.embedders.local import MiniLM

ANSWER = 500
"""Bytes of an answer, as JSON."""


class Corpus:
    """Entries by number. A tenant has one agent_type and nothing else in its scope."""

    def __init__(self, asked: Asked, texts: Texts, rows: Floats, data: Path | None) -> None:
        self.tenants, self.questions = asked
        """[n]: of each entry the tenant's number, and the row of its question."""
        self.rows = rows
        """[m, dim] on disk, float32, of norm 1: a row per question."""
        self.texts = texts
        self.data = data
        self.size = len(self.tenants)

    @property
    def real(self) -> int:
        """How many rows are of real texts: the first ones."""
        return min(len(self.texts.real), len(self.rows))

    @property
    def reserved(self) -> Numbers:
        """Rows like those of the entries, whose question nobody asks."""
        return np.arange(RESERVED - 1, int(self.questions.max()), RESERVED)

    def text(self, entry: int) -> str:
        """What an entry's question is."""
        return self.texts.of(int(self.questions[entry]))

    def vector(self, entry: int) -> Floats:
        """[dim], a copy in memory."""
        return np.array(self.rows[self.questions[entry]])

    def vectors(self, entries: Numbers) -> Floats:
        """[n, dim], a copy in memory."""
        return np.array(self.rows[self.questions[entries]])

    def answer(self, entry: int) -> str:
        """JSON of about ANSWER bytes, another one for each entry."""
        words = f"Answer {entry} to: {self.text(entry)} "
        return json.dumps((words * (ANSWER // len(words) + 1))[: ANSWER - 2])

    def sizes(self) -> Numbers:
        """[TENANTS]: entries of each tenant."""
        return np.bincount(self.tenants, minlength=TENANTS)

    def members(self, tenant: int) -> Numbers:
        """A tenant's entries."""
        first, last = np.searchsorted(self._ordered[1], (tenant, tenant + 1))
        return self._ordered[0][first:last]

    @cached_property
    def _ordered(self) -> tuple[Numbers, Numbers]:
        order = np.argsort(self.tenants, kind="stable")
        return order, self.tenants[order]

    def near_size(self, size: int) -> int:
        """The tenant that has nearest to so many entries."""
        return int(np.argmin(np.abs(self.sizes() - size)))

    def name(self, tenant: int) -> str:
        """A tenant's."""
        return f"t{tenant:05d}"

    def agent_type(self, tenant: int) -> str:
        """A tenant's only one."""
        return AGENT_TYPES[tenant % len(AGENT_TYPES)]

    def shared(self) -> float:
        """The share of entries whose question another tenant's entry asks, too."""
        times = np.bincount(self.questions)
        return float((times[self.questions] > 1).mean())


def made(
    size: int,
    cache: Path,
    *,
    data: Path | None = None,
    twins: float = 0.0,
    seed: int = 1,
    model: Model | None = None,
) -> Corpus:
    """The corpus of that size; what is missing in `cache` is made, and shows how far it is.

    Args:
        size: entries, at most MOST.
        cache: the folder that keeps the vectors: 1.5 GB for 1,000,000 entries.
        data: the folder of the sets; without it, Banking77 of this checkout.
        twins: the share of entries that ask a question of those that many tenants ask; where a tenant has
            asked nearly all of them, it is less.
        seed: of all that is drawn.
        model: the embedder, if it is loaded already.
    """
    if not 1 <= size <= MOST:
        raise ValueError(f"size: {size} is not between 1 and {MOST}")
    if not 0 <= twins <= 1:
        raise ValueError(f"twins: {twins} is not between 0 and 1")
    model = model or MiniLM(1)
    found = texts(data, model, seed)
    entries = asked(size, twins, seed)
    rows = Rows(cache, found, model, seed).made(int(entries.rows.max()) + 1)
    return Corpus(entries, found, rows, data)
