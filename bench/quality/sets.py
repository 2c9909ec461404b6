"""The labelled sets that decisions are measured on. Label 1: the answer to `text_a` is right for `text_b`."""

import csv
import gzip
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.verifier.sets import Pair, free_of_validation, given, graded, reworded, rows, situated, trainable

COMMITTED = Path(__file__).parents[1] / "data"

TRAINABLE = frozenset(
    {"squad_para", "gptcache_mock", "medical_qp", "cannot_negation", "checklist_qqp", "paws_wiki", "disfl_qa"}
    | {"parade", "text2sql", "snips", "hwu64", "slurp", "banking77", "clinc150", "bfcl_queries"}
    | {"situated_qa", "stsb"}
)
"""The sets that `bench.verifier.sets.trainable` reads."""

PARAMETRIC = re.compile(
    r"translate|weather|exchange_rate|definition|spelling|distance|directions|timer|alarm|transfer|make_call|text"
    r"|calculator|measurement_conversion|time|flight_.*|restaurant_.*|recipe|calories|nutrition_info|play_music"
    r"|calendar.*|book_.*"
)
"""Intents of clinc150 with a parameter: the same intent isn't the same answer (the set's README)."""


class Labelled(NamedTuple):
    """The pairs of one set. `trained`: the shipped verifier may have learned from these very rows."""

    name: str
    pairs: list[Pair]
    trained: bool
    texts_trained: int  # pairs of which the training read one text or both, in other pairs


class Training(NamedTuple):
    """What the shipped verifier learns from, without the pairs that it makes by rule."""

    pairs: frozenset[frozenset[str]]
    texts: frozenset[str]

    @classmethod
    def of(cls, data: Path) -> "Training":
        """From the same reader as the training's."""
        read = free_of_validation(list(trainable(data)))
        texts = frozenset(text for pair in read for text in (pair.text_a, pair.text_b))
        return cls(frozenset(frozenset((pair.text_a, pair.text_b)) for pair in read), texts)


class Absent(NamedTuple):
    """A set that can't be measured here, and why."""

    name: str
    why: str


def named(name: str) -> Callable[[Path], Iterable[Pair]]:
    """The reader of a set's own pairs."""
    return lambda data: given(data, name)


def duplicates(data: Path) -> Iterator[Pair]:
    """qqp without the rows that contradict themselves."""
    return (pair for pair in given(data, "qqp") if pair.kind != "conflict")


def strict(name: str) -> Callable[[Path], Iterator[Pair]]:
    """Pairs of an intent set where both sides have slots, none twice: there the slots decide."""

    def read(data: Path) -> Iterator[Pair]:
        for row in rows(data / name / "public" / "pairs.tsv.gz"):
            if row["strict"] == "1":
                yield Pair(name, row["kind"], row["class_a"], row["text_a"], row["text_b"], int(row["label"]))

    return read


def unparametric(data: Path) -> Iterator[Pair]:
    """clinc150 without the label 1 of intents whose queries have a parameter."""
    pairs = given(data, "clinc150")
    return (pair for pair in pairs if pair.label == 0 or not PARAMETRIC.fullmatch(pair.group))


def calls(data: Path) -> Iterator[Pair]:
    """bfcl_queries, grouped by the function called."""
    for row in rows(data / "bfcl_queries" / "public" / "pairs.tsv.gz"):
        yield Pair(
            "bfcl_queries", row["kind"], row["function"], row["text_a"], row["text_b"], int(row["label"])
        )


READERS: Mapping[str, Callable[[Path], Iterable[Pair]]] = {
    "reworded": lambda _: reworded(),
    "qqp": duplicates,
    "medical_qp": named("medical_qp"),
    "paws_wiki": named("paws_wiki"),
    "paws_qqp": named("paws_qqp"),
    "cannot_negation": named("cannot_negation"),
    "checklist_qqp": named("checklist_qqp"),
    "checklist_swaps": named("checklist_swaps"),
    "text2sql": named("text2sql"),
    "snips": strict("snips"),
    "hwu64": strict("hwu64"),
    "slurp": strict("slurp"),
    "bfcl_queries": calls,
    "banking77": named("banking77"),
    "clinc150": unparametric,
    "mrpc": named("mrpc"),
    "stsb": graded,
    "parade": named("parade"),
    "situated_qa": situated,
    "disfl_qa": named("disfl_qa"),
    "squad_para": named("squad_para"),
    "gptcache_mock": named("gptcache_mock"),
}
"""In the order of the tables."""

GROUPS: Mapping[str, Sequence[str]] = {
    "Our own": ("reworded",),
    "Real questions": ("qqp", "medical_qp"),
    "Made traps": ("paws_wiki", "paws_qqp", "cannot_negation", "checklist_qqp", "checklist_swaps"),
    "Intent and values": ("text2sql", "snips", "hwu64", "slurp", "bfcl_queries"),
    "Intents": ("banking77", "clinc150"),
    "Sentences": ("mrpc", "stsb", "parade"),
}
"""The panels of the plot; sets with one label only are in none."""


def sample(pairs: Iterable[Pair], limit: int | None) -> list[Pair]:
    """At most `limit` pairs, always the same ones, of all kinds; each pair once."""
    found = list(dict.fromkeys(pairs))
    if limit is None or len(found) <= limit:
        return found
    return sorted(found, key=lambda pair: digest(f"{pair.text_a}\t{pair.text_b}"))[:limit]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def labelled(data: Path, name: str, training: Training | None, limit: int | None) -> Labelled | Absent:
    """A set's rows that no training saw; all its rows, marked, where there are none such."""
    if name != "reworded" and not (data / name / "public").is_dir():
        return Absent(name, f"{data / name} is absent: give the folder of the sets with --data")
    pairs = list(READERS[name](data))
    if training is None:
        return Labelled(name, sample(pairs, limit), trained=False, texts_trained=0)
    # Also of sets that no training reads: stsb has pairs of mrpc.
    unseen = [p for p in pairs if frozenset((p.text_a, p.text_b)) not in training.pairs]
    if name in TRAINABLE:
        unseen = [pair for pair in unseen if pair.held_back]
    chosen = sample(unseen or pairs, limit)
    read = sum(pair.text_a in training.texts or pair.text_b in training.texts for pair in chosen)
    return Labelled(name, chosen, trained=not unseen, texts_trained=read)


class Utterance(NamedTuple):
    """A text and the class of its answer. `group`: the unit of the training's split."""

    text: str
    intent: str
    group: str = ""


def utterances(phase: str, limit: int | None) -> list[Utterance]:
    """Banking77's, from this checkout."""
    with gzip.open(COMMITTED / "banking77" / "utterances.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        found = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            Utterance(row["text"], row["intent"], row["intent"]) for row in found if row["phase"] == phase
        ][:limit]
