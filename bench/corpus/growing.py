"""More vectors with the neighbourhoods of the real ones.

A grown row is a real one, x, split by the span of its NEIGHBOURS nearest. The part inside is kept, and with
it the similarities to all of them; the part outside is replaced by a mix of what tells MIXED other texts
from their nearest. So it is about as near to x as x is to its neighbours, not nearer. A denser corpus has
nearer neighbours: the part inside is lengthened a little, now and then much. `likeness.py` measures what
comes of it.
"""

from pathlib import Path

import numpy as np

from bench.corpus.neighbours import Floats, Nearest, Numbers, others

CHUNK, BATCH = 5_000, 1_000
NEIGHBOURS, MIXED = 4, 4
NEARER, RARELY = 0.9, 5
"""Of the squared length outside the span at most so much goes; the power makes that rare."""
RIDGE = 1e-3
"""For neighbours that are nearly the same."""


class Growth:
    """Grown rows by number; each chunk is always the same."""

    def __init__(self, real: Floats, nearest: Nearest, seed: int) -> None:
        self._real, self._nearest, self._seed = real, nearest, seed

    def chunk(self, number: int) -> Floats:
        """[CHUNK, dim], of norm 1: row r after the real ones grows from real row r modulo their number."""
        rng = np.random.default_rng([self._seed, number])
        origins = np.arange(number * CHUNK, (number + 1) * CHUNK) % len(self._real)
        return np.concatenate([self._grown(page, rng) for page in np.split(origins, CHUNK // BATCH)])

    def _grown(self, origins: Numbers, rng: np.random.Generator) -> Floats:
        span = self._real[self._nearest.rows[origins]]
        kept = _inside(span, self._real[origins])
        differences = self._differences(len(origins), rng)
        outside = _normed(differences - _inside(span, differences))
        length = np.clip(np.einsum("nd,nd->n", kept, kept), RIDGE, 1)
        nearer = 1 - NEARER * rng.random(len(origins)) ** RARELY
        wanted = np.maximum(0, 1 - length) * nearer  # squared length outside
        scale = np.sqrt((1 - wanted) / length)
        grown = kept * scale[:, None] + outside * np.sqrt(wanted)[:, None]
        return _normed(grown).astype(np.float32)

    def _differences(self, count: int, rng: np.random.Generator) -> Floats:
        """Each the sum of those of MIXED real rows from their nearest, with random signs."""
        total = np.zeros((count, self._real.shape[1]), np.float32)
        for _ in range(MIXED):
            at = rng.integers(0, len(self._real), count)
            shared = self._nearest.similarities[at, :1] * self._real[self._nearest.rows[at, 0]]
            total += (self._real[at] - shared) * rng.choice([-1, 1], (count, 1))
        return total


def growth(real: Floats, seed: int, kept: Path | None = None) -> Growth:
    """Ready to grow; the neighbours of the real rows are kept in a file, if one is named."""
    if kept is not None and kept.exists():
        with np.load(kept) as file:
            return Growth(real, Nearest(file["similarities"], file["rows"]), seed)
    nearest = others(real, NEIGHBOURS, seed)
    if kept is not None:
        whole = kept.with_name("neighbours.new.npz")
        np.savez(whole, similarities=nearest.similarities, rows=nearest.rows)
        whole.replace(kept)
    return Growth(real, nearest, seed)


def _inside(span: Floats, rows: Floats) -> Floats:
    """Each row's projection on the span of its own [k, dim]."""
    gram = span @ span.transpose(0, 2, 1) + RIDGE * np.eye(span.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, span @ rows[:, :, None])
    inside: Floats = (weights.transpose(0, 2, 1) @ span)[:, 0]
    return inside


def _normed(rows: Floats) -> Floats:
    normed: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return normed
