"""The work, the same for all contenders: entries, and three kinds of lookups, as files.

`semantic`: a vector at a similarity of 0.9 to 0.98 to a stored one, in words that are the entry's but for
marks at their end, so that what guards read agrees. `exact`: an entry's own text and vector. `miss`: a vector
with nothing stored above the threshold. `new`: what is stored one by one, as far from all else.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.harness import Floats

NEAR, FAR = (0.9, 0.98), (0.3, 0.7)
EQUAL = 2e-5  # similarities that float32 can't tell apart
MARGIN = 0.02
PAGE = 50
KINDS = ("semantic", "exact", "miss")


class Source(NamedTuple):
    """Distinct texts and their vectors, unit rows."""

    name: str
    texts: Sequence[str]
    vectors: Floats


class Work(NamedTuple):
    """What is asked, and which entries are right. Lookups of a kind are as many as it has rows."""

    folder: Path
    size: int
    right: dict[str, list[set[int]]]


def written(source: Source, size: int, lookups: int, threshold: float, folder: Path) -> Work:
    """Write the work of a size into a folder."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(size)
    entries = np.ascontiguousarray(source.vectors[:size], np.float32)
    rows = generator.choice(size, lookups, replace=lookups > size)
    near = tilted(entries[rows], generator.uniform(*NEAR, lookups), generator)
    far = alone(entries, tilted(entries[rows], generator.uniform(*FAR, lookups), generator), threshold)
    (folder / "size").write_text(str(size))
    put(folder, "entries", source.texts[:size], entries)
    put(
        folder,
        "new",
        [f"{source.texts[row]} Number {at}" for at, row in enumerate(rows)],
        tilted(entries[rows], generator.uniform(*FAR, lookups), generator),
    )
    put(folder, "semantic", [source.texts[row] + " ?" for row in rows], near)
    put(folder, "exact", [source.texts[row] for row in rows], entries[rows])
    put(folder, "miss", [f"{source.texts[at]} ??" for at in rows[: len(far)]], far)
    right = {
        "semantic": [nearest for nearest, _ in found(entries, near)],
        "exact": [nearest for nearest, _ in found(entries, entries[rows])],
        "miss": [set[int]() for _ in far],
    }
    return Work(folder, size, right)


def put(folder: Path, name: str, texts: Sequence[str], vectors: Floats) -> None:
    np.save(folder / f"{name}.npy", vectors)
    (folder / f"{name}.json").write_text(json.dumps(list(texts)), "utf-8")


def tilted(rows: Floats, similarities: NDArray[np.float64], generator: np.random.Generator) -> Floats:
    """Unit rows, each at a similarity to its own, in a direction by chance."""
    noise = generator.normal(size=rows.shape)
    noise -= np.einsum("nd,nd->n", noise, rows)[:, None] * rows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    share = similarities[:, None]
    made = share * rows + np.sqrt(1 - share**2) * noise
    found: Floats = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return found


def alone(entries: Floats, rows: Floats, threshold: float) -> Floats:
    """Those that nothing stored comes near."""
    return rows[[best < threshold - MARGIN for _, best in found(entries, rows)]]


def found(entries: Floats, rows: Floats) -> Iterator[tuple[set[int], float]]:
    """For each row the entries nearest to it, equal ones together, and their similarity: exact search."""
    for begin in range(0, len(rows), PAGE):
        similarities = entries @ rows[begin : begin + PAGE].T
        for column in similarities.T:
            best = float(column.max())
            yield set(np.flatnonzero(column >= best - EQUAL).tolist()), best
