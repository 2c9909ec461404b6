"""One row per text, on disk: first those of the real texts by the model, then grown ones.

The file is only ever appended to, and each part of it follows from what lies before it: what a killed run
left is cut to whole parts, and the next run goes on.
"""

import fcntl
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.corpus.growing import CHUNK, Growth, growth
from bench.corpus.neighbours import Floats
from bench.corpus.texts import Texts
from bench.quality.vectors import pages
from service.embedders.batching import Model

PAGE = 2_048
"""Real texts that are embedded, and written, together."""


class Rows:
    """The file of a list of texts."""

    def __init__(self, cache: Path, texts: Texts, model: Model, seed: int) -> None:
        name = hashlib.sha256("\0".join([model.revision, str(seed), *texts.real]).encode()).hexdigest()[:12]
        self.folder = cache / f"corpus-{name}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.folder / "rows.f32"
        self._texts = texts
        self._model = model
        self._seed = seed

    @property
    def count(self) -> int:
        """How many whole parts there are, in rows."""
        whole = self._file.stat().st_size // self._bytes if self._file.exists() else 0
        real = len(self._texts.real)
        if whole < real:
            return whole // PAGE * PAGE
        return real + (whole - real) // CHUNK * CHUNK

    def made(self, wanted: int) -> Floats:
        """At least so many rows, [n, dim], read from disk as they are used."""
        real = len(self._texts.real)
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two runs would append to one file
            if self.count < min(wanted, real):
                self._embed(min(wanted, real))
            if wanted > real:
                self._grow(wanted)
            return self._read(self.count)

    @property
    def _bytes(self) -> int:
        return 4 * self._model.dim

    def _read(self, count: int) -> Floats:
        return np.memmap(self._file, np.float32, "r", shape=(count, self._model.dim))

    def _embed(self, wanted: int) -> None:
        with self._appending(wanted, "vectors") as (file, bar):
            for at in range(self.count, wanted, PAGE):
                page = self._texts.real[at : at + PAGE]
                file.write(self._embedded(page).tobytes())
                file.flush()
                bar.update(len(page))

    def _embedded(self, texts: list[str]) -> Floats:
        at = {text: place for place, text in enumerate(texts)}
        found = np.empty((len(texts), self._model.dim), np.float32)
        for page in pages(sorted(texts, key=len)):
            found[[at[text] for text in page]] = self._model.run(page)
        return found

    def _grow(self, wanted: int) -> None:
        real = len(self._texts.real)
        if self.count >= wanted:
            return
        grown = self._growth(real)
        with self._appending(wanted, "grown") as (file, bar):
            for chunk in range((self.count - real) // CHUNK, -(-(wanted - real) // CHUNK)):
                file.write(grown.chunk(chunk).tobytes())
                file.flush()
                bar.update(CHUNK)

    def _growth(self, real: int) -> Growth:
        """From the real rows; their neighbours are kept beside them."""
        return growth(np.array(self._read(real)), self._seed, self.folder / "neighbours.npz")

    def _appending(self, wanted: int, what: str) -> "_Appending":
        return _Appending(self._file, self.count * self._bytes, self.count, wanted, what)


class _Appending:
    """The file, cut to what is whole, with a bar that shows rate and remaining time."""

    def __init__(self, path: Path, size: int, done: int, wanted: int, what: str) -> None:
        self._path, self._size = path, size
        self._bar = tqdm(total=wanted, initial=done, desc=what, unit="row", disable=None, leave=False)

    def __enter__(self) -> tuple[Any, "tqdm[Any]"]:
        self._file = self._path.open("ab")
        self._file.truncate(self._size)
        return self._file, self._bar

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._bar.close()
