"""Measures weights on the validation pairs and on `bench/data/reworded`.

python -m bench.verifier.evaluate WEIGHTS.onnx /tmp/verifier/validation.jsonl [--limit N]
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.verifier.sets import reworded
from service.verifiers.crossencoder import CrossEncoder

Scores = NDArray[np.float64]


def served(scores: Scores, labels: NDArray[np.int64], false_rate: float) -> float:
    """Share of label 1 above the cut that lets at most this share of label 0 through."""
    wrong, right = np.sort(scores[labels == 0])[::-1], scores[labels == 1]
    cut = wrong[int(false_rate * len(wrong))]
    return float((right > cut).mean())


def auc(scores: Scores, labels: NDArray[np.int64]) -> float:
    """Area under the ROC curve."""
    ranks = np.argsort(np.argsort(scores))[labels == 1]
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    return float((ranks.sum() - ones * (ones - 1) / 2) / (ones * zeros))


def validation(path: Path, limit: int) -> list[tuple[str, str, str, str, int]]:
    """The same for the public sets: at most `limit` of a set and label."""
    groups = defaultdict(list)
    for line in path.open():
        name, kind, _, a, b, label = json.loads(line)
        groups[name, label].append((name, kind, a, b, label))
    chance = random.Random(1)  # noqa: S311 - sampling
    return [row for rows in groups.values() for row in chance.sample(rows, min(limit, len(rows)))]


def scored(model: CrossEncoder, rows: list[tuple[str, str, str, str, int]]) -> Scores:
    """Logits; minus 20 where a pair is too long."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][2]) + len(rows[at][3]))
    out = np.zeros(len(rows))
    for begin in range(0, len(order), 16):
        part = order[begin : begin + 16]
        for at, score in zip(part, model.run([(rows[i][2], rows[i][3]) for i in part]), strict=True):
            out[at] = -20 if score is None else np.log((score + 1e-9) / (1 - score + 1e-9))
    return out


def report(name: str, scores: Scores, labels: NDArray[np.int64], kinds: list[str]) -> None:
    """One line per set, one per kind of trap for our own."""
    if labels.min() == labels.max():
        print(f"{name:18} n {len(labels):5}  mean score {1 / (1 + np.exp(-scores.mean())):.3f}")
        return
    shares = " ".join(f"{100 * served(scores, labels, rate):5.1f}" for rate in (0.01, 0.02, 0.05))
    print(f"{name:18} n {len(labels):5}  AUC {auc(scores, labels):.3f}  served at 1/2/5 %: {shares}")
    if name == "reworded":
        cuts = [np.sort(scores[labels == 0])[::-1][int(rate * (labels == 0).sum())] for rate in (0.01, 0.05)]
        for kind in sorted(set(kinds)):
            own = scores[np.array(kinds) == kind]
            print(
                f"   {kind:10} n {len(own):4}  "
                + " ".join(f"{100 * (own > cut).mean():5.1f}" for cut in cuts)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--limit", type=int, default=250)
    given = parser.parse_args()
    model = CrossEncoder(given.weights)
    ours = [(one.set_name, one.kind, one.text_a, one.text_b, one.label) for one in reworded()]
    rows = ours + validation(given.validation, given.limit)
    scores = scored(model, rows)
    np.save(given.weights.with_suffix(".npy"), scores)
    for name in dict.fromkeys(row[0] for row in rows):
        own = [at for at, row in enumerate(rows) if row[0] == name]
        report(name, scores[own], np.array([rows[at][4] for at in own]), [rows[at][1] for at in own])


if __name__ == "__main__":
    main()
