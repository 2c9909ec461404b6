"""The labelled public sets of tiers A and B as pairs of texts; tier C is for measuring only.

Pairs whose group hashes into `VALIDATION_PERCENT` are never trained on: figures come from them.
"""

import csv
import gzip
import hashlib
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VALIDATION_PERCENT = 20
ELSEWHERE = "other_question"
WRITTEN = Path(__file__).parents[1] / "data" / "written"
REWORDED = Path(__file__).parents[1] / "data" / "reworded" / "pairs.tsv"


class Pair(NamedTuple):
    """Two texts; label 1: the answer to one is right for the other. `group` is the unit of the split."""

    set_name: str
    kind: str
    group: str
    text_a: str
    text_b: str
    label: int

    @property
    def held_back(self) -> bool:
        """Whether the pair is for validation."""
        # Not as the sets' own held-out part was chosen: of what is public here nothing would be left.
        digest = hashlib.sha256(f"validation:{self.set_name}:{self.group}".encode()).hexdigest()
        return int(digest[:8], 16) % 100 < VALIDATION_PERCENT


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a packed TSV."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        names = next(file).rstrip("\n").split("\t")
        for line in file:
            yield dict(zip(names, line.rstrip("\n").split("\t"), strict=False))


def json_rows(path: Path) -> Iterator[dict[str, object]]:
    """The rows of packed JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def given(folder: Path, name: str) -> Iterator[Pair]:
    """A set's own pairs."""
    for row in rows(folder / name / "public" / "pairs.tsv.gz"):
        group = row.get("group") or row.get("function") or row.get("class_a", "")
        kind = row.get("test") or row["kind"]
        yield Pair(name, kind, group, row["text_a"], row["text_b"], int(row["label"]))


def strict(folder: Path, name: str) -> Iterator[Pair]:
    """An intent set's own pairs, positives only where intent and slots agree and there are slots."""
    for row in rows(folder / name / "public" / "pairs.tsv.gz"):
        if row["label"] == "0" or (row.get("strict") == "1" and not row["class_a"].endswith("|")):
            group = row["class_a"].split("|")[0]
            yield Pair(name, row["kind"], group, row["text_a"], row["text_b"], int(row["label"]))


def classes(folder: Path, name: str, each: int, seed: int) -> Iterator[Pair]:
    """Pairs made of utterances: same class → 1; same intent or template with other values → 0."""
    chance = random.Random(seed)  # noqa: S311 - sampling
    texts: dict[str, list[str]] = defaultdict(list)
    families: dict[str, list[str]] = defaultdict(list)
    for row in rows(folder / name / "public" / "utterances.tsv.gz"):
        answer = row["answer_class"]
        if answer.endswith("|"):
            continue
        if answer not in texts:
            families[row.get("template") or row["intent"]].append(answer)
        texts[answer].append(row["text"])
    for family, members in sorted(families.items()):
        group = family.split("|")[0]
        for answer in members:
            couples = list(itertools.combinations(texts[answer], 2))
            for a, b in chance.sample(couples, min(each, len(couples))):
                yield Pair(name, "same_class", group, a, b, 1)
            others = [other for other in members if other != answer]
            for other in chance.sample(others, min(each // 2, len(others))):
                yield Pair(
                    name, "other_values", group, chance.choice(texts[answer]), chance.choice(texts[other]), 0
                )


def elsewhere(folder: Path, name: str, each: int, seed: int) -> Iterator[Pair]:
    """Utterances that ask something else of the same values, or say one or two values more → 0."""
    chance = random.Random(seed)  # noqa: S311 - sampling
    texts: dict[tuple[str, frozenset[str]], list[str]] = defaultdict(list)
    having: dict[str, set[tuple[str, frozenset[str]]]] = defaultdict(set)
    for row in rows(folder / name / "public" / "utterances.tsv.gz"):
        asked, _, values = row["answer_class"].partition("|")
        said = frozenset(value for value in values.split("; ") if value)
        texts[asked, said].append(row["text"])
        for value in said:
            having[value].add((asked, said))
    for (asked, said), own in sorted(texts.items(), key=str):
        if not said:
            continue
        alike = set.intersection(*(having[value] for value in said)) - {(asked, said)}
        place = asked.rpartition(":")[0]  # the database of a template
        more = [one for one in alike if len(one[1]) <= len(said) + 2 and one[0].rpartition(":")[0] == place]
        others = sorted(text for one in more if one[0] != asked for text in texts[one])
        for text in chance.sample(own, min(each, len(own), len(others))):
            yield Pair(name, ELSEWHERE, asked, text, chance.choice(others), 0)


def situated(folder: Path) -> Iterator[Pair]:
    """Only the traps: label 1 there is a coincidence."""
    return (pair for pair in given(folder, "situated_qa") if pair.label == 0)


def graded(folder: Path) -> Iterator[Pair]:
    """stsb: what is nearly equal, and what is clearly not."""
    for row in rows(folder / "stsb" / "public" / "pairs.tsv.gz"):
        score = float(row["score"])
        if score >= 4.5 or score <= 3.5:
            yield Pair("stsb", row["kind"], row["group"], row["text_a"], row["text_b"], int(score > 4))


def trainable(folder: Path, seed: int = 1) -> Iterator[Pair]:
    """Everything that a shipped verifier may be trained on, before rule-made pairs."""
    for name in (
        "squad_para",
        "gptcache_mock",
        "medical_qp",
        "cannot_negation",
        "checklist_qqp",
        "paws_wiki",
    ):
        yield from given(folder, name)
    yield from itertools.islice(given(folder, "disfl_qa"), 3500)
    yield from itertools.islice(given(folder, "parade"), 2500)
    for name in ("text2sql", "snips", "hwu64", "slurp", "banking77", "clinc150", "bfcl_queries"):
        yield from strict(folder, name) if name != "bfcl_queries" else given(folder, name)
    for name, each in (("text2sql", 14), ("hwu64", 8), ("slurp", 8), ("snips", 6)):
        yield from classes(folder, name, each, seed)
    for name, each in (("text2sql", 4), ("hwu64", 2), ("slurp", 2), ("snips", 2)):
        yield from elsewhere(folder, name, each, seed)
    yield from situated(folder)
    yield from graded(folder)


def free_of_validation(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that training may see: none that is held back, none with a text of one that is."""
    # Pairs of `elsewhere` are for training alone, and joined when most of it was done: they move no line.
    own = [pair for pair in pairs if pair.held_back and pair.kind != ELSEWHERE]
    kept = {text for pair in own for text in (pair.text_a, pair.text_b)}
    return [p for p in pairs if not p.held_back and p.text_a not in kept and p.text_b not in kept]


def written_groups() -> Iterator[dict[str, Any]]:
    """base, same, traps and group of each of our own groups for training."""
    for path in sorted(WRITTEN.glob("*.jsonl")):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def reworded() -> Iterator[Pair]:
    """Our own pairs to measure on, without the groups that share a text with those for training."""
    with REWORDED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    seen = {bare(text) for one in written_groups() for text in (one["base"], *one["same"], *one["traps"])}
    shared = {row["group"] for row in rows if bare(row["text_a"]) in seen or bare(row["text_b"]) in seen}
    for row in rows:
        if row["group"] not in shared:
            yield Pair("reworded", row["kind"], row["group"], row["text_a"], row["text_b"], int(row["label"]))


def bare(text: str) -> str:
    """Without case and closing marks."""
    return text.lower().strip(" ?.!")


def written(chance: random.Random) -> Iterator[Pair]:
    """Our own groups of `bench/data/written`: of each group other pairs every time.

    4 of 6 pairs of wordings; each trap against two of the wordings; two traps against each other.
    """
    for one in written_groups():
        same, group = [one["base"], *one["same"]], one["group"]
        for a, b in chance.sample(list(itertools.combinations(same, 2)), 4):
            yield Pair("written", "same", group, a, b, 1)
        for trap in one["traps"]:
            for other in chance.sample(same, 2):
                yield Pair("written", "trap", group, other, trap, 0)
        a, b = chance.sample(one["traps"], 2)
        yield Pair("written", "trap", group, a, b, 0)


def questions(folder: Path) -> list[str]:
    """Unlabelled texts to make pairs from by rule."""
    found = []
    for row in rows(folder / "query_stream" / "public" / "queries.tsv.gz"):
        if row["text"].startswith("{"):
            continue
        if not row["source"].startswith("trec") and 4 <= len(row["text"].split()) <= 30:
            found.append(row["text"])
    return found
