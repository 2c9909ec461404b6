"""Labelled streams, and for each of their texts which others are near."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.quality.decide import THRESHOLD
from bench.quality.vectors import Vectors

STRICT = {"snips", "hwu64", "slurp"}
"""Without slots the class of these is its intent, which is no answer."""

NEAREST = THRESHOLD
"""Candidates further away are none: the service's default threshold."""

BLOCK = 1024


class Stream(NamedTuple):
    """Requests in order; each text has a number, by its first appearance."""

    name: str
    seed: int
    texts: list[str]
    asked: list[int]  # text of each request
    answers: list[int]  # class of each text
    near: list[NDArray[np.int32]]  # by text: the others, nearest first
    similarities: list[NDArray[np.float32]]


class Plain(NamedTuple):
    """A stream as `replay.py` prints it."""

    name: str
    seed: int
    requests: list[tuple[str, str]]  # text, class


def absent(data: Path, name: str) -> str | None:
    """Why a set can't be replayed."""
    if (data / "tools" / "replay.py").exists() and (data / name / "public").is_dir():
        return None
    return f"{data} has no tools/replay.py or no {name}: give it with --data"


def replayed(data: Path, name: str, seed: int, length: int) -> Plain:
    """Always the same; three in ten requests come once and never again."""
    strict = ["--strict"] if name in STRICT else []
    command = [sys.executable, str(data / "tools" / "replay.py"), "--set", name, "--n", str(length)]
    done = subprocess.run(
        [*command, "--seed", str(seed), *strict], capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return Plain(name, seed, [(one["text"], one["class"]) for one in found])


def prepared(plain: Plain, vectors: Vectors) -> Stream:
    """With neighbours; a text's first class is its class: what comes once is a class of its own."""
    places: dict[str, int] = {}
    classes: dict[str, int] = {}
    answers: list[int] = []
    asked = []
    for text, answer in plain.requests:
        if text not in places:
            places[text] = len(places)
            answers.append(classes.setdefault(answer, len(classes)))
        asked.append(places[text])
    texts = list(places)
    near, similarities = neighbours(texts, vectors)
    return Stream(plain.name, plain.seed, texts, asked, answers, near, similarities)


def neighbours(
    texts: Sequence[str], vectors: Vectors
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]]:
    """For each text the others from NEAREST on, nearest first: exact search."""
    rows = np.nan_to_num(vectors.rows[[vectors.at[text] for text in texts]], nan=0.0)
    near, similarities = [], []
    for begin in range(0, len(texts), BLOCK):
        page = rows[begin : begin + BLOCK] @ rows.T
        for at, found in enumerate(page, begin):
            found[at] = -1
            places = np.flatnonzero(found >= NEAREST)
            places = places[np.argsort(-found[places], kind="stable")]
            near.append(places.astype(np.int32))
            similarities.append(found[places].astype(np.float32))
    return near, similarities
