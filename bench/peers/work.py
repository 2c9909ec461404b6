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
Numbers = NDArray[np.int64]

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
    tenants: int
    right: dict[str, list[set[int]]]


def written(source: Source, folder: Path, *, size: int, tenants: int, lookups: int, threshold: float) -> Work:
    """Write the work of a size into a new folder."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(size)
    entries = np.ascontiguousarray(source.vectors[:size], np.float32)
    owners = owned(size, tenants, generator)
    rows = generator.choice(size, lookups, replace=lookups > size)
    texts, whose = [source.texts[row] for row in rows], owners[rows]
    near = tilted(entries[rows], generator.uniform(*NEAR, lookups), generator)
    far = alone(entries, tilted(entries[rows], generator.uniform(*FAR, lookups), generator), threshold)
    other = tilted(entries[rows], generator.uniform(*FAR, lookups), generator)
    put(folder, "entries", source.texts[:size], owners, entries)
    put(folder, "semantic", [f"{text} ?" for text in texts], whose, near)
    put(folder, "exact", texts, whose, entries[rows])
    put(folder, "miss", [f"{text} ??" for text in texts[: len(far)]], whose[: len(far)], far)
    put(folder, "new", [f"{text} Number {at}" for at, text in enumerate(texts)], whose, other, first=size)
    right = {
        "semantic": [nearest for nearest, _ in found(entries, near, (owners, whose))],
        "exact": [nearest for nearest, _ in found(entries, entries[rows], (owners, whose))],
        "miss": [set[int]() for _ in far],
    }
    return Work(folder, size, tenants, right)


def owned(size: int, tenants: int, generator: np.random.Generator) -> Numbers:
    """[n]: the tenant of each entry; the k-th has a share like 1/k."""
    shares = 1 / np.arange(1, tenants + 1)
    return generator.choice(tenants, size, p=shares / shares.sum())


def put(
    folder: Path, name: str, texts: Sequence[str], owners: Numbers, vectors: Floats, *, first: int = 0
) -> None:
    np.save(folder / f"{name}.npy", vectors)
    told = {"texts": list(texts), "tenants": [f"t{owner}" for owner in owners], "first": first}
    (folder / f"{name}.json").write_text(json.dumps(told), "utf-8")


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


def found(
    entries: Floats, rows: Floats, owners: tuple[Numbers, Numbers] | None = None
) -> Iterator[tuple[set[int], float]]:
    """For each row the entries nearest to it, equal ones together, and their similarity: exact search.

    With owners, of the entries and of the rows: among its own.
    """
    for begin in range(0, len(rows), PAGE):
        similarities = entries @ rows[begin : begin + PAGE].T
        if owners is not None:
            similarities[owners[0][:, None] != owners[1][None, begin : begin + PAGE]] = -1
        for column in similarities.T:
            best = float(column.max())
            yield set(np.flatnonzero(column >= best - EQUAL).tolist()), best
