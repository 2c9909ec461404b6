"""Streams of real questions through a cache whose threshold may change: `replay.py`, without Redis.

Lookups go as in the service: the ten nearest stored questions, guards, then the verifier on two at most.
What a pair of texts is found to be is computed once and kept on disk.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.quality.streams import stream
from bench.quality.vectors import embedded
from service.cache.guards import verdicts
from service.cache.policy import DEFAULT
from service.cache.question import VERIFIED, same_words
from service.embedders.local import MiniLM
from service.verifiers.crossencoder import CrossEncoder

SETS = ("text2sql", "snips", "qqp", "banking77")
FLOOR, NEIGHBOURS, NEAREST = 0.45, 256, 10
"""Least similarity kept, how many of all texts, how many of the stored ones a lookup sees."""

REJECTED, UNREAD = -1.0, 2.0
"""Instead of a score: a guard rejects the pair; the same words need no reading."""


class Served(NamedTuple):
    """The entry that a lookup would serve."""

    text: int
    similarity: float
    score: float  # the verifier's; UNREAD: it wasn't asked


class Stream(NamedTuple):
    """Questions in order. `texts[asked[i]]` is the i-th, `answers[i]` the class of its right answer."""

    name: str
    texts: list[str]
    asked: list[int]
    answers: list[int]
    near: list[list[tuple[int, float]]]  # by text: others and their similarity, nearest first


def loaded(data: Path, name: str, length: int, cache: Path) -> Stream:
    """The stream of a set, with each text's neighbours."""
    rows = stream(data, name, length)
    return made(name, [(row["text"], row["class"]) for row in rows], cache)


def made(name: str, rows: Sequence[tuple[str, str]], cache: Path) -> Stream:
    """A stream of questions and the classes of their right answers."""
    places: dict[str, int] = {}
    classes: dict[str, int] = {}
    asked = [places.setdefault(text, len(places)) for text, _ in rows]
    answers = [classes.setdefault(answer, len(classes)) for _, answer in rows]
    texts = list(places)
    vectors = embedded(MiniLM(1), texts, cache)
    found = np.nan_to_num(vectors.rows[[vectors.at[text] for text in texts]])
    return Stream(name, texts, asked, answers, neighbours(found))


def neighbours(rows: NDArray[np.float32]) -> list[list[tuple[int, float]]]:
    """For each row the others that are near, nearest first."""
    found = []
    for at in range(0, len(rows), 512):
        near = rows[at : at + 512] @ rows.T
        near[np.arange(len(near)), np.arange(at, at + len(near))] = -1
        for one in near:
            (enough,) = np.nonzero(one >= FLOOR)
            best = enough[np.argsort(-one[enough], kind="stable")][:NEIGHBOURS]
            found.append(list(zip(best.tolist(), one[best].tolist(), strict=True)))
    return found


class Pairs:
    """What guards and verifier say of two texts; kept in a file by the verifier's version."""

    def __init__(self, one: Stream, cache: Path) -> None:
        self._texts, self._model = one.texts, CrossEncoder(threads=1)
        self.cut = self._model.cut
        key = hashlib.sha256(repr((self._model.version, one.texts)).encode()).hexdigest()[:24]
        self._file = cache / f"outcomes-{key}.json"
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._guards: dict[str, bool] = kept.get("guards", {})
        self._scores: dict[str, float] = kept.get("scores", {})

    def keep(self) -> None:
        """Write what is known."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({"guards": self._guards, "scores": self._scores}))

    def free(self, asked: int, cached: int) -> bool:
        """Whether no guard speaks against it."""
        key = f"{asked} {cached}"
        if key not in self._guards:
            said = verdicts(self._texts[asked], self._texts[cached], DEFAULT, every=False)
            self._guards[key] = all(said.values())
        return self._guards[key]

    def score(self, asked: int, cached: int) -> float:
        """The verifier's score; 0 for what it can't read."""
        key = f"{asked} {cached}"
        if key not in self._scores:
            a, b = self._texts[asked], self._texts[cached]
            read = UNREAD if same_words(a, b) else self._model.run([(a, b)])[0]
            self._scores[key] = round(read or 0.0, 5)
        return self._scores[key]


class Cache:
    """Entries by text; the answer is the class it was stored with."""

    def __init__(self, one: Stream, pairs: Pairs, *, verified: bool) -> None:
        self._near, self._pairs, self._verified = one.near, pairs, verified
        self.stored: dict[int, int] = {}

    def candidate(self, text: int, least: float) -> Served | None:
        """What is served at a threshold; None: nothing."""
        held = 0
        seen = 0
        for other, similarity in self._near[text]:
            if similarity < least or held == VERIFIED or seen == NEAREST:
                return None
            if other not in self.stored:
                continue
            seen += 1
            if not self._pairs.free(text, other):
                continue
            held += 1
            score = self._pairs.score(text, other) if self._verified else UNREAD
            if score >= self._pairs.cut:
                return Served(other, similarity, score)
            if not self._verified:
                return Served(other, similarity, UNREAD)
        return None
