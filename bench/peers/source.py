"""Where texts and vectors come from: the corpus (bench/corpus), as one tenant's."""

from pathlib import Path

import numpy as np

from bench.corpus import made
from bench.peers.work import Source


def source(data: Path, cache: Path, size: int) -> Source:
    """Distinct questions; without the folder of the sets, Banking77's and what is grown from them."""
    corpus = made(size, cache, data=data if data.is_dir() else None)
    name = f"{min(corpus.real, size):,} of real texts" + (", others grown" if corpus.real < size else "")
    return Source(name, [corpus.text(at) for at in range(size)], corpus.vectors(np.arange(size)))
