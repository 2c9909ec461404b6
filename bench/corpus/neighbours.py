"""Nearest rows by cosine: exact for samples, by cells for all rows of a large set."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

BLOCK = 16_384
"""Rows that are read at a time."""
CELL = 400
PROBED = 24
"""Cells that are searched: exact up to so many cells."""


class Nearest(NamedTuple):
    """[n, k], nearest first."""

    similarities: Floats
    rows: Numbers


def exact(asked: Floats, rows: Floats, k: int, chosen: Numbers | None = None) -> Nearest:
    """The k nearest of `rows`, or of those `chosen`, by their place among all rows; brute force."""
    chosen = np.arange(len(rows)) if chosen is None else chosen
    best = Nearest(np.zeros((len(asked), 0), np.float32), np.zeros((len(asked), 0), np.int64))
    for at in range(0, len(chosen), BLOCK):
        part = chosen[at : at + BLOCK]
        found = asked @ rows[part].T
        best = _best(np.hstack([best.similarities, found]), _beside(best.rows, part), k)
    return best


def _beside(before: Numbers, part: Numbers) -> Numbers:
    return np.hstack([before, np.broadcast_to(part, (len(before), len(part)))])


def _best(similarities: Floats, rows: Numbers, k: int) -> Nearest:
    k = min(k, similarities.shape[1])
    some = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarities, some, 1), axis=1, kind="stable")
    places = np.take_along_axis(some, order, 1)
    return Nearest(np.take_along_axis(similarities, places, 1), np.take_along_axis(rows, places, 1))


def others(rows: Floats, k: int, seed: int) -> Nearest:
    """Of each row the k nearest others; k is less than the number of rows.

    Rows lie in cells around some of them. Each is searched for in the cells next to its own, so of many
    rows a few percent of the nearest are missed.
    """
    rng = np.random.default_rng(seed)
    centres = rows[np.sort(rng.choice(len(rows), max(1, len(rows) // CELL), replace=False))]
    cell = np.concatenate(
        [np.argmax(rows[at : at + BLOCK] @ centres.T, axis=1) for at in range(0, len(rows), BLOCK)]
    )
    order = np.argsort(cell, kind="stable")
    members = np.split(order, np.searchsorted(cell[order], np.arange(1, len(centres))))
    near = exact(centres, centres, PROBED).rows
    found = Nearest(np.full((len(rows), k), -1, np.float32), np.zeros((len(rows), k), np.int64))
    bar = tqdm(total=len(rows), desc="neighbours", unit="row", disable=None, leave=False)
    with bar:
        for own, cells in zip(members, near, strict=True):
            if len(own):
                _search(rows, own, np.concatenate([members[one] for one in cells]), found)
            bar.update(len(own))
    return found


def _search(rows: Floats, own: Numbers, among: Numbers, found: Nearest) -> None:
    similarities = rows[own] @ rows[among].T
    similarities[own[:, None] == among[None, :]] = -2  # itself
    best = _best(similarities, np.broadcast_to(among, similarities.shape), found.rows.shape[1])
    width = best.rows.shape[1]
    found.similarities[own, :width], found.rows[own, :width] = best
