"""Do grown rows have neighbours as real ones do? Similarities to the nearest and the tenth, at equal density.

A few real rows are grown to as many as there are real ones, by the factor by which 223,000 texts are
grown to 1,000,000, and held against those. Beside them what noise around real rows would give.
"""

from typing import Any

import numpy as np

from bench.corpus.growing import CHUNK, growth
from bench.corpus.neighbours import Floats, Numbers, exact

FACTOR = 4.5
SAMPLE = 1_000
QUANTILES = (5, 25, 50, 75, 95)
NOISE = 0.3
NEAREST, TENTH = 1, 10


def likeness(real: Floats, seed: int = 1) -> dict[str, Any]:
    """Quantiles of each kind of corpus, of as many rows; `furthest`: the most that grown ones are off."""
    total = len(real)
    few = np.array(real[: int(total / FACTOR)])
    rng = np.random.default_rng([seed, 2])
    sample = np.sort(rng.choice(total, min(SAMPLE, total), replace=False))
    grower = growth(few, seed)
    chunks = [grower.chunk(number) for number in range(-(-(total - len(few)) // CHUNK))]
    grown = np.concatenate([few, *chunks])[:total]
    found = {
        "real": quantiles(real, sample),
        "grown": quantiles(grown, sample),
        "noise": quantiles(np.concatenate([few, _noisy(few, total - len(few), rng)]), sample),
    }
    off = [
        abs(a - b)
        for key in found["real"]
        for a, b in zip(found["real"][key], found["grown"][key], strict=True)
    ]
    return {
        "rows": total,
        "grown_from": len(few),
        "percentiles": QUANTILES,
        **found,
        "furthest": round(max(off), 3),
    }


def quantiles(rows: Floats, sample: Numbers) -> dict[str, list[float]]:
    """Of the sampled rows' similarities to their nearest and tenth nearest other."""
    near = exact(np.array(rows[sample]), rows, TENTH + 1)
    without_itself = np.sort(np.where(near.rows == sample[:, None], 2, near.similarities), axis=1)[:, ::-1]
    return {
        name: [round(float(one), 3) for one in np.percentile(without_itself[:, at], QUANTILES)]
        for name, at in (("nearest", NEAREST), ("tenth", TENTH))
    }


def _noisy(few: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Noise of NOISE of a row's length around real rows: what `bench/sizing.py` stores."""
    rows = few[rng.integers(0, len(few), count)]
    rows = rows + rng.standard_normal(rows.shape, np.float32) * NOISE / rows.shape[1] ** 0.5
    normed: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed
