"""The real texts, in an order that is always the same: of a data folder, else of this checkout."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.quality.sets import COMMITTED
from bench.verifier.sets import rows
from service.embedders.batching import Model

SETS = ("banking77", "clinc150", "hwu64", "snips", "slurp", "text2sql")
LONGEST = 400
"""Characters: what is longer is no question."""
SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]


class Texts(NamedTuple):
    """Distinct real texts, and where they are from."""

    real: list[str]
    source: str

    def of(self, row: int) -> str:
        """A row's text: a real one, or beyond those a variant that nobody else has."""
        if row < len(self.real):
            return self.real[row]
        return f"{self.real[row % len(self.real)]} ({name_of(row)})"


def name_of(number: int) -> str:
    """A word for a number, of letters: a digit would be read as part of the question."""
    word = ""
    while number or not word:
        number, at = divmod(number, len(SYLLABLES))
        word += SYLLABLES[at]
    return word


def texts(data: Path | None, model: Model, seed: int) -> Texts:
    """Those that the model can represent, shuffled."""
    found, source = _found(data)
    one_line = (" ".join(text.split()) for text in found)
    fit = [text for text in dict.fromkeys(one_line) if len(text) <= LONGEST and model.unfit(text) is None]
    random.Random(seed).shuffle(fit)  # noqa: S311 - no secret
    return Texts(fit, source)


def _found(data: Path | None) -> tuple[Iterable[str], str]:
    if data is not None and (data / "query_stream" / "public").is_dir():
        return _of_folder(data), f"query_stream and {', '.join(SETS)}"
    committed = (row["text"] for row in rows(COMMITTED / "banking77" / "utterances.tsv.gz"))
    return committed, "banking77 (bench/data)"


def _of_folder(data: Path) -> Iterator[str]:
    for name in SETS:
        for row in rows(data / name / "public" / "utterances.tsv.gz"):
            yield row["text"]
    for row in rows(data / "query_stream" / "public" / "queries.tsv.gz"):
        yield row["text"]


def paraphrases(data: Path | None) -> Iterator[tuple[str, str]]:
    """Two texts that mean the same, both ways, where the data folder has such pairs."""
    for name in SETS if data is not None else ():
        path = data / name / "public" / "pairs.tsv.gz" if data is not None else Path()
        for row in rows(path) if path.exists() else ():
            if row["label"] == "1":
                one, other = (" ".join(row[side].split()) for side in ("text_a", "text_b"))
                yield from ((one, other), (other, one))
