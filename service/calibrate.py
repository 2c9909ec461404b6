"""`semcached calibrate`: labelled pairs → threshold, verifier cut and head for a wanted error rate.

The error is the share of label-0 pairs that would be served. It is cross-fitted: chosen on four fifths of the
pairs, counted on the last fifth, in turn; pairs that share a text stay together. Else it would be too good.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.cache.guards import verdicts
from service.cache.ports import Embedder, Verifier
from service.cache.question import same_words
from service.errors import SettingsError
from service.model import Head, Policy

FOLDS = 5
BATCH = 64
THRESHOLDS = tuple(round(0.5 + 0.025 * step, 3) for step in range(20))
SLACK = 0.025
"""How much of the hit rate a higher threshold, which saves work, may cost."""
EXCESS = 1.25
"""How far above the wanted error a fitted head's may be counted: it is a count, and a few pairs."""
MIDDLE, SPREAD = 0.85, 0.05
"""Where similarities of rewordings and traps lie; scales the feature for the fit."""

SERVED = math.inf
"""The score of what is served without being read, whatever the cut."""

Mask = NDArray[np.bool_]


class Pair(NamedTuple):
    """One line of the file."""

    text_a: str
    text_b: str
    label: int


class Judged(NamedTuple):
    """What the cache knows of each pair; arrays of one length."""

    labels: Mask
    similarities: NDArray[np.float64]
    passed: Mask  # by the guards
    scores: NDArray[np.float64]  # the verifier's, 0 to 1
    folds: NDArray[np.int64]

    def part(self, chosen: Mask) -> "Judged":
        """Those pairs only."""
        return Judged(
            self.labels[chosen],
            self.similarities[chosen],
            self.passed[chosen],
            self.scores[chosen],
            self.folds[chosen],
        )


class Choice(NamedTuple):
    """What a policy would say."""

    threshold: float
    cut: float

    def serves(self, judged: Judged) -> Mask:
        """Which pairs it serves."""
        enough: Mask = (judged.similarities >= self.threshold) & (judged.scores >= self.cut)
        return judged.passed & enough


class Rate(NamedTuple):
    """So many of so many, with Wilson's interval at 95 %."""

    some: int
    total: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.some / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        if self.total == 0:
            return 0.0, 1.0
        z, p, n = 1.959964, self.share, self.total
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:6.1%} ({low:.1%} to {high:.1%}; {self.some} of {self.total})"


class Outcome(NamedTuple):
    """What was chosen, and how well it does on pairs it wasn't chosen on."""

    choice: Choice
    hits: Rate  # of label 1
    errors: Rate  # of label 0


def read(path: Path) -> list[Pair]:
    """The pairs of a TSV with the columns text_a, text_b and label (1: same answer, 0: another).

    Raises:
        SettingsError: the file can't be read, or a line is wrong; names it.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(_lines(path, csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)))
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path}: {told}") from None


def _lines(path: Path, rows: "csv.DictReader[str]") -> Iterator[Pair]:
    missing = {"text_a", "text_b", "label"} - set(rows.fieldnames or ())
    if missing:
        names = ", ".join(sorted(missing))
        raise SettingsError(f"{path}: the first line names no column {names}; columns are separated by tabs")
    for row in rows:
        if row["label"] not in {"0", "1"}:
            raise SettingsError(f"{path}, line {rows.line_num}: label: must be 0 or 1, is {row['label']!r}")
        for name in ("text_a", "text_b"):
            if not (row[name] or "").strip():
                raise SettingsError(f"{path}, line {rows.line_num}: {name}: is blank")
        yield Pair(row["text_a"], row["text_b"], int(row["label"]))


async def judged(pairs: Sequence[Pair], embedder: Embedder, verifier: Verifier | None) -> Judged:
    """Run embedder, guards and verifier over the pairs.

    Raises:
        SettingsError: a label is missing altogether.
        EmbedderError, VerifierError: they failed.
    """
    if len({pair.label for pair in pairs}) < 2:  # noqa: PLR2004 - two labels
        raise SettingsError("calibration needs pairs of label 1 and of label 0")
    rows: list[tuple[float, bool, float]] = []
    for at in tqdm(range(0, len(pairs), BATCH), unit_scale=BATCH, desc="pairs", disable=None):
        rows += await _page(pairs[at : at + BATCH], embedder, verifier)
    similarities, passed, scores = (np.array(column) for column in zip(*rows, strict=True))
    labels = np.array([pair.label == 1 for pair in pairs])
    return Judged(labels, similarities, passed, scores, _folds(pairs))


async def _page(
    pairs: Sequence[Pair], embedder: Embedder, verifier: Verifier | None
) -> list[tuple[float, bool, float]]:
    fit = [embedder.unfit(a) is None and embedder.unfit(b) is None for a, b, _ in pairs]
    fitting = [pair for pair, fits in zip(pairs, fit, strict=True) if fits]
    left = await embedder.embed([pair.text_a for pair in fitting])
    right = await embedder.embed([pair.text_b for pair in fitting])
    similarities = iter(np.einsum("nd,nd->n", left, right).tolist())
    scores = iter(
        await verifier.scores([(b, a) for a, b, _ in fitting]) if verifier else [1.0] * len(fitting)
    )
    page = []
    for (a, b, _), fits in zip(pairs, fit, strict=True):
        if not fits:  # the exact tier's alone
            page.append((-1.0, False, 0.0))
            continue
        similarity, score = next(similarities), next(scores)
        passed = a == b or all(verdicts(b, a, Policy(), every=False).values())
        read = SERVED if same_words(a, b) else score
        page.append((similarity, passed, read or 0.0))
    return page


def _folds(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """A fold for each pair; pairs that share a text, directly or through others, are in one."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for a, b, _ in pairs:
        parent[root(a)] = root(b)
    number: dict[str, int] = {}
    return np.array([number.setdefault(root(a), len(number)) % FOLDS for a, _, _ in pairs])


def choose(judged: Judged, max_error: float) -> Choice:
    """The least strict choice that serves at most that share of label 0; of equals the highest threshold."""
    found = []
    for threshold in THRESHOLDS:
        open_ = judged.passed & (judged.similarities >= threshold)
        allowed = int(max_error * (~judged.labels).sum())
        choice = Choice(threshold, _cut(judged.part(open_), allowed))
        hits = (choice.serves(judged) & judged.labels).sum() / max(1, judged.labels.sum())
        found.append((hits, choice))
    best = max(hits for hits, _ in found)
    return max(choice for hits, choice in found if hits >= best - SLACK)


def _cut(near: Judged, allowed: int) -> float:
    """The least cut by which so many of label 0 are served, but none below all of label 1: it gains nothing.

    With six digits, as it is written.
    """
    read = near.scores < SERVED
    right, wrong = near.scores[read & near.labels], np.sort(near.scores[read & ~near.labels])[::-1]
    left = max(0, allowed - int((~read & ~near.labels).sum()))
    above = math.nextafter(float(wrong[left]), 2.0) if len(wrong) > left else 0.0
    least = float(right.min()) if len(right) else 1.0
    return min(1.0, max(math.ceil(above * 1e6), math.floor(least * 1e6)) / 1e6)


def cross_fitted(judged: Judged, max_error: float) -> Outcome:
    """The choice on all pairs, with the rates of choices made without the pairs they are counted on."""
    served = np.zeros(len(judged.labels), bool)
    for fold in range(FOLDS):
        own = judged.folds == fold
        if own.any() and not own.all():
            served[own] = choose(judged.part(~own), max_error).serves(judged.part(own))
    labels = judged.labels
    return Outcome(
        choose(judged, max_error),
        Rate(int((served & labels).sum()), int(labels.sum())),
        Rate(int((served & ~labels).sum()), int((~labels).sum())),
    )


def refitted(judged: Judged, version: str) -> tuple[Head, Judged]:
    """A head fitted to these pairs, and what they look like with heads fitted without their own fold."""
    scores = np.zeros(len(judged.labels))
    for fold in range(FOLDS):
        own = judged.folds == fold
        if own.any():
            part = judged.part(~own) if not own.all() else judged
            scores[own] = _headed(_fit(part, version), judged.part(own))
    return _fit(judged, version), judged._replace(scores=scores)


def _headed(head: Head, judged: Judged) -> NDArray[np.float64]:
    read = (judged.scores < SERVED) & (judged.scores > 0)  # 0: beyond the verifier
    pairs = zip(judged.scores, judged.similarities, read, strict=True)
    return np.array([head.score(float(s), float(c)) if r else s for s, c, r in pairs])


def _fit(judged: Judged, version: str) -> Head:
    """Logistic regression on the verifier's logit and the similarity, held near the shipped head.

    Newton's method with a ridge towards (0, 1, 0): few pairs change little.
    """
    read = judged.passed & (judged.scores < SERVED) & (judged.scores > 0)
    scores = np.clip(judged.scores[read], 1e-6, 1 - 1e-6)
    scaled = (judged.similarities[read] - MIDDLE) / SPREAD
    x = np.stack([np.ones(len(scores)), np.log(scores / (1 - scores)), scaled], axis=1)
    y, prior, ridge = judged.labels[read].astype(float), np.array([0.0, 1.0, 0.0]), 5.0
    weights = prior.copy()
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (p - y) + ridge * (weights - prior)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(3)
        weights = weights - np.linalg.solve(hessian, gradient)
    bias, logit, similarity = weights.tolist()
    similarity = max(0.0, similarity)
    bias -= similarity * MIDDLE / SPREAD
    return Head(version=version, bias=bias, logit=max(0.0, logit), similarity=similarity / SPREAD)


class Report(NamedTuple):
    """What the command prints and writes."""

    text: str
    policy: bytes  # JSON: fields of a policy


def report(judged: Judged, max_error: float, version: str | None, *, refit: bool) -> Report:
    """Calibrate; `version` is the verifier's, None without one."""
    taken = shipped = cross_fitted(judged, max_error)
    lines = [
        f"{len(judged.labels)} pairs, {int(judged.labels.sum())} of label 1; wanted error {max_error:.1%}",
        *_told("the shipped head" if version else "no verifier", shipped),
    ]
    policy: dict[str, object] = {"threshold": shipped.choice.threshold}
    if version:
        policy |= {"verifier_cut": shipped.choice.cut, "verifier_version": version}
    if version and refit:
        head, seen = refitted(judged, version)
        own = cross_fitted(seen, max_error)
        lines += _told("a head fitted to these pairs", own)
        better = own.hits.share > shipped.hits.share
        better &= own.errors.share <= max(EXCESS * max_error, shipped.errors.share)
        lines.append("the fitted head is better: it is taken" if better else "it is no better: not taken")
        if better:
            taken = own
            policy = {
                "threshold": own.choice.threshold,
                "verifier_cut": own.choice.cut,
                "verifier_version": version,
                "verifier_head": msgspec.to_builtins(head),
            }
    lines += _unsure(taken, max_error)
    shown = msgspec.json.format(msgspec.json.encode(policy), indent=2)
    lines += ["fields for PUT /v1/policies?agent_type=…:", shown.decode()]
    return Report("\n".join(lines), shown)


def _unsure(outcome: Outcome, max_error: float) -> list[str]:
    """A warning where the pairs don't show that the error is as wanted."""
    _, high = outcome.errors.interval
    if high <= max_error:
        return []
    few = Rate(0, outcome.errors.total).interval[1] > max_error
    hint = "there are too few pairs of label 0 for it" if few else "a smaller --max-error leaves room"
    return [f"not shown: that the error is at most {max_error:.1%}, it may be {high:.1%}; {hint}"]


def _told(name: str, outcome: Outcome) -> list[str]:
    threshold, cut = outcome.choice
    return [
        f"{name}: threshold {threshold:.3f}, cut {cut:.4f}",
        f"  right answers served  {outcome.hits}",
        f"  wrong answers served  {outcome.errors}",
    ]
