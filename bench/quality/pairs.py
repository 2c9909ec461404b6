"""Pair runs: one entry, one question. No search, so every decision is seen on every pair."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.quality.decide import PEERS, Decider, Judged, deciders, guards_alone, judge, verified
from bench.quality.rates import FALSE_RATES, Estimate, Share, Sweep, mean, share
from bench.quality.sets import READERS, Absent, Labelled, Training, labelled, sample
from bench.quality.vectors import embedded
from bench.verifier.sets import Pair, rows
from service.cache.ports import Verifier
from service.embedders.batching import Model

OUT_OF_SCOPE = "clinc150_oos"
ISSUE = (
    "text2sql", "snips", "hwu64", "checklist_qqp", "paws_wiki", "cannot_negation", "medical_qp", "banking77",
    "clinc150", OUT_OF_SCOPE,
)  # fmt: skip
"""The sets over which the mean of traps served is promised."""

CURVE = [0.0, *np.logspace(-3.5, 0, 36).tolist()]
"""False-hit rates at which the plot's lines are drawn."""


class Setup(NamedTuple):
    """What a run works with."""

    data: Path
    model: Model
    verifier: Verifier | None
    cache: Path | None
    limit: int | None


def run(setup: Setup, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[Absent]]:
    """A result per set, and the sets that are absent."""
    training = Training.of(setup.data) if (setup.data / "text2sql").is_dir() else None
    results, absent = [], []
    for name in names:
        found = (
            out_of_scope(setup) if name == OUT_OF_SCOPE else labelled(setup.data, name, training, setup.limit)
        )
        if isinstance(found, Absent):
            absent.append(found)
        else:
            results.append(measured(found, judged(setup, found.pairs), setup.verifier))
    return results, absent


def every() -> list[str]:
    """All sets, in the order of the tables."""
    names = list(READERS)
    names.insert(names.index("clinc150") + 1, OUT_OF_SCOPE)
    return names


def judged(setup: Setup, pairs: Sequence[Pair]) -> list[Judged]:
    """What the parts of the shipped decision say of each pair: `text_a` is cached, `text_b` asked."""
    vectors = embedded(
        setup.model, (text for pair in pairs for text in (pair.text_a, pair.text_b)), setup.cache
    )
    scores = verified(setup.verifier, [(pair.text_b, pair.text_a) for pair in pairs], setup.cache)
    near = vectors.similarities(pairs)
    return [
        judge(float(similarity), pair.text_a, pair.text_b, score)
        for pair, similarity, score in zip(pairs, near, scores, strict=True)
    ]


def out_of_scope(setup: Setup) -> Labelled | Absent:
    """Each out-of-scope query of clinc150 beside the nearest text of its cache: never to be served."""
    folder = setup.data / "clinc150" / "public"
    if not folder.is_dir():
        return Absent(OUT_OF_SCOPE, f"{folder} is absent: give the folder of the sets with --data")
    cached = [row["text"] for row in rows(folder / "utterances.tsv.gz") if row["phase"] == "populate"]
    asked = [row["text"] for row in rows(folder / "out_of_scope.tsv.gz")]
    vectors = embedded(setup.model, [*cached, *asked], setup.cache)
    pairs = [
        Pair(OUT_OF_SCOPE, "out_of_scope", text, cached[nearest], text, 0)
        for text, nearest in zip(asked, vectors.nearest(asked, cached), strict=True)
    ]
    return Labelled(OUT_OF_SCOPE, sample(pairs, setup.limit), trained=False, texts_trained=0)


def measured(found: Labelled, said: Sequence[Judged], verifier: Verifier | None) -> dict[str, Any]:
    """The figures of one set."""
    labels = np.array([pair.label for pair in found.pairs])
    groups = [pair.group for pair in found.pairs]
    return {
        "set": found.name,
        "label_1": int((labels == 1).sum()),
        "label_0": int((labels == 0).sum()),
        "groups": len(set(groups)),
        "trained": found.trained,
        "texts_trained": found.texts_trained,
        "deciders": {
            one.name: decided(one, found.pairs, labels, groups) for one in deciders(said, verifier)
        },
        "guards": {
            name: by_label(rejected, labels) for name, rejected in guards_alone(said).items()
        },
    }  # fmt: skip


def decided(
    one: Decider, pairs: Sequence[Pair], labels: NDArray[np.int64], groups: Sequence[str]
) -> dict[str, Any]:
    """One decider on one set: by default, and swept. Peers draw cosine's line: only their rates are kept."""
    found: dict[str, Any] = {"default": by_label(one.served, labels)}
    if one.scores is not None and {0, 1} <= set(labels.tolist()):
        sweep = Sweep(one.scores, labels, groups)
        peer = any(one.name == peer.name for peer in PEERS)
        rates = sweep.at(FALSE_RATES) if peer else sweep.estimates(FALSE_RATES)
        found["at"] = {str(rate): value for rate, value in zip(FALSE_RATES, rates, strict=True)}
        if not peer:
            found["curve"] = [round(value, 5) for value in sweep.at(CURVE)]
    if one.name in {"cosine", "semcached"}:
        found["kinds"] = dict(kinds(one.served, pairs))
    return found


def by_label(chosen: NDArray[np.bool_], labels: NDArray[np.int64]) -> dict[str, Share]:
    """Shares of label 1 and of label 0; a label that the set hasn't is left out."""
    return {
        f"label_{label}": share(int(chosen[labels == label].sum()), int((labels == label).sum()))
        for label in (1, 0)
        if (labels == label).any()
    }


def kinds(served: NDArray[np.bool_], pairs: Sequence[Pair]) -> Iterator[tuple[str, Share]]:
    """Served of each kind and label."""
    total: Counter[str] = Counter(f"{pair.kind}/{pair.label}" for pair in pairs)
    hits: Counter[str] = Counter(
        f"{pair.kind}/{pair.label}" for pair, hit in zip(pairs, served, strict=True) if hit
    )
    return ((kind, share(hits[kind], count)) for kind, count in sorted(total.items()))


def means(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
    """Served by default, the mean over the sets: traps and rewordings, the named sets and all."""
    names = {name: None for result in results for name in result["deciders"]}
    parts = {
        "traps, named sets": ("label_0", [one for one in results if one["set"] in ISSUE]),
        "rewordings, named sets": ("label_1", [one for one in results if one["set"] in ISSUE]),
        "traps, all sets": ("label_0", list(results)),
        "rewordings, all sets": ("label_1", list(results)),
        "traps, sets without trained rows": ("label_0", [one for one in results if not one["trained"]]),
        "rewordings, sets without trained rows": ("label_1", [one for one in results if not one["trained"]]),
    }
    return {
        name: {
            part: mean([s for one in sets if (s := one["deciders"][name]["default"].get(label)) is not None])
            for part, (label, sets) in parts.items()
        }
        for name in names
    }
