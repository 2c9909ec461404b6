"""The small run in CI: on the committed pairs, no more wrong answers than recorded, few less right ones."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.quality import decide, pairs
from bench.quality.sets import COMMITTED, Utterance, digest, utterances
from bench.quality.tables import laid_out
from bench.quality.vectors import embedded
from bench.verifier.sets import Pair, reworded
from service.embedders.batching import Model
from service.embedders.local import MiniLM

FILE = Path(__file__).with_name("baseline.json")
SLICES = COMMITTED / "slices"
ENTRIES, QUERIES = 800, 300
FLIPS, TOTAL_FLIPS = 1, 2
"""Pairs at the verifier's cut, of a kind and of all: int8 arithmetic differs between processors."""

KEPT = 0.9
"""Share of the recorded right answers that may not be lost."""


class Tally(NamedTuple):
    """Answers served of one kind of pairs; `pairs` of them there are."""

    right: int
    wrong: int
    pairs: int


Tallies = Mapping[str, Tally]


def committed(model: Model, cache: Path | None) -> Iterator[Pair]:
    """The pairs of this checkout: our own, slices of public sets, banking77's queries by their nearest."""
    yield from reworded()
    for path in sorted(SLICES.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield Pair(path.stem, row["kind"], "", row["text_a"], row["text_b"], int(row["label"]))
    entries, queries = some("populate", ENTRIES), some("query", QUERIES)
    vectors = embedded(model, [one.text for one in [*entries, *queries]], cache)
    near = vectors.nearest([query.text for query in queries], [entry.text for entry in entries])
    for query, entry in zip(queries, (entries[at] for at in near), strict=True):
        label = int(entry.intent == query.intent)
        yield Pair("banking77", "nearest", query.intent, entry.text, query.text, label)


def some(phase: str, count: int) -> list[Utterance]:
    """The same utterances always, of all intents."""
    return sorted(utterances(phase, None), key=lambda one: digest(one.text))[:count]


def tallied(cache: Path | None = None) -> dict[str, Tally]:
    """What the shipped decision serves now, by set and kind."""
    model, verifier = MiniLM(), decide.shipped_verifier()
    found = list(committed(model, cache))
    said = pairs.judged(pairs.Setup(COMMITTED, model, verifier, cache, None), found)
    tallies: dict[str, Tally] = {}
    for pair, one in zip(found, said, strict=True):
        name = f"{pair.set_name}/{pair.kind}"
        hit, before = decide.serves(one, verifier), tallies.get(name, Tally(0, 0, 0))
        right, wrong = hit and pair.label == 1, hit and pair.label == 0
        tallies[name] = Tally(before.right + right, before.wrong + wrong, before.pairs + 1)
    return dict(sorted(tallies.items()))


def recorded() -> dict[str, Tally]:
    """What was served when the baseline was made."""
    return {name: Tally(*one) for name, one in json.loads(FILE.read_text("utf-8")).items()}


def update(cache: Path | None) -> None:
    """Record what is served now, and show what that changes."""
    now = tallied(cache)
    print(table(recorded() if FILE.exists() else {}, now))
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(one)}" for name, one in now.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", "utf-8")


def worse(before: Tallies, now: Tallies) -> list[str]:
    """What got worse: wrong answers by kind, right ones by set, where kinds are too small to count."""
    found = [
        f"{name}: {one.wrong} wrong answers, {before[name].wrong} recorded"
        for name, one in now.items()
        if name in before and one.wrong > before[name].wrong + FLIPS
    ]
    was, is_ = wrong(before), wrong(now)
    if is_ > was + TOTAL_FLIPS:
        found.append(f"all: {is_} wrong answers, {was} recorded")
    for name, (was, right) in rights(before, now).items():
        if right < KEPT * was:
            found.append(f"{name}: {right} right answers, {was} recorded")
    if {name: one.pairs for name, one in before.items()} != {name: one.pairs for name, one in now.items()}:
        found.append("the pairs are others than recorded: python -m bench.quality --update-baseline")
    return found


def rights(before: Tallies, now: Tallies) -> dict[str, tuple[int, int]]:
    """Right answers of each set, then and now."""
    sets = dict.fromkeys(name.partition("/")[0] for name in before)
    return {one: (right(before, one), right(now, one)) for one in sets}


def wrong(tallies: Tallies) -> int:
    return sum(one.wrong for one in tallies.values())


def right(tallies: Tallies, set_name: str) -> int:
    return sum(one.right for name, one in tallies.items() if name.startswith(f"{set_name}/"))


def table(before: Tallies, now: Tallies) -> str:
    """Then and now, kind by kind."""
    lines: list[Sequence[str]] = [["set/kind", "pairs", "right was", "is", "wrong was", "is"]]
    for name, one in now.items():
        was = before.get(name, Tally(0, 0, 0))
        lines.append([name, *map(str, (one.pairs, was.right, one.right, was.wrong, one.wrong))])
    return laid_out(lines)
