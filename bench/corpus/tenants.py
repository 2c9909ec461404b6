"""Who asks what: entries over tenants, and questions over entries. All sizes are beginnings of one list."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 1_000_000
TENANTS = 4_000
LARGEST = 0.5
"""The share of tenant 0; the others share the rest by 1/rank."""
FAQ = 20_000
"""Questions that many tenants ask, also by 1/rank; nobody asks one twice."""
REDRAWN = 8
RESERVED = 100
"""Of so many rows the last is nobody's question: what `absent` asks."""
AGENT_TYPES = ("support", "research", "coding", "sales")

Numbers = NDArray[np.int64]


class Asked(NamedTuple):
    """Of each entry the tenant and the row of its question."""

    tenants: Numbers
    rows: Numbers


def shares() -> NDArray[np.float64]:
    """[TENANTS], of all entries."""
    rest = 1 / np.arange(1, TENANTS)
    return np.concatenate([[LARGEST], (1 - LARGEST) * rest / rest.sum()])


def asked(size: int, twins: float, seed: int) -> Asked:
    """The first `size` entries; of all, a share of `twins` at most asks a question of the common ones."""
    rng = np.random.default_rng([seed, 1])
    tenants = np.searchsorted(np.cumsum(shares()), rng.random(MOST)).clip(max=TENANTS - 1).astype(np.int64)
    common = _common(tenants, rng.random(MOST) < twins, rng)
    own = common < 0
    common[own] = FAQ + np.arange(own.sum())
    return Asked(tenants[:size], _rows(common)[:size])


def _common(tenants: Numbers, wanted: NDArray[np.bool_], rng: np.random.Generator) -> Numbers:
    """Which common question each asks; -1: one of its own. Whom a draw gives one twice draws again."""
    ranks = np.where(wanted, (FAQ ** rng.random(MOST)).astype(np.int64) - 1, -1)
    for _ in range(REDRAWN):
        again = _repeated(tenants, ranks)
        ranks[again] = rng.integers(0, FAQ, len(again))
    ranks[_repeated(tenants, ranks)] = -1
    return ranks


def _repeated(tenants: Numbers, ranks: Numbers) -> Numbers:
    """Entries whose tenant asks the same question before them."""
    places = np.flatnonzero(ranks >= 0)
    _, first = np.unique(tenants[places] * FAQ + ranks[places], return_index=True)
    return np.delete(places, first)


def _rows(questions: Numbers) -> Numbers:
    """Questions numbered as they first occur: few entries need few rows. The reserved are left out."""
    _, first, which = np.unique(questions, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    numbers = place[which]
    rows: Numbers = numbers + numbers // (RESERVED - 1)
    return rows
