"""Runs over HTTP on a filled cache: fill a cache, ask it, and see whose answer is served.

Two passes over the queries: one by default, and one with threshold -1 and `explain`, which shows every
candidate with its verdicts. What other thresholds and cuts serve follows from the second, and is checked
against the first.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from bench.processes import served
from bench.quality.decide import THRESHOLD, shipped_verifier
from bench.quality.rates import FALSE_RATES, REPLICATES, SEED, Estimate, Share, share
from bench.quality.sets import PARAMETRIC, TRAINABLE, Absent, Utterance, digest, utterances
from bench.verifier.sets import Pair, rows
from service.cache.question import VERIFIED

SETS = ("banking77", "clinc150", "hwu64", "snips", "slurp", "text2sql")
STRICT = {"hwu64", "snips", "slurp"}
OUT_OF_SCOPE = "out of scope"
AGENT_TYPE = "quality"
STORE_BATCH, LOOKUP_BATCH = 128, 32
THRESHOLDS = [*np.arange(0.5, 0.9, 0.01).tolist(), *np.arange(0.9, 1.0001, 0.0025).tolist()]
SHOWN_AT = (0.8, 0.85, 0.9, 0.95, 0.99)
CUTS = np.arange(0, 1.0001, 0.01).tolist()
ROUNDING = 2e-6  # of a similarity that went through Redis and JSON

Outcomes = NDArray[np.int8]
"""[queries, cuts]: 1 the right answer is served, -1 a wrong one, 0 none."""


class Candidate(NamedTuple):
    """One entry near a query, as `explain` shows it."""

    similarity: float
    right: bool
    free: bool  # no guard on wording speaks against it
    score: float | None  # the verifier's


class Asked(NamedTuple):
    """A query with its candidates, nearest first. `served`: by default, whether right; None: nothing."""

    query: Utterance
    answerable: bool
    candidates: list[Candidate]
    served: bool | None


def run(data: Path, names: Sequence[str], limit: int | None) -> tuple[list[dict[str, Any]], list[Absent]]:
    """A result per set, and the sets that are absent."""
    results, absent = [], []
    for name in names:
        if name != "banking77" and not (data / name / "public").is_dir():
            absent.append(Absent(name, f"{data / name} is absent: give the folder of the sets with --data"))
            continue
        entries, queries = read(data, name, limit)
        results.append(measured(name, entries, asked(entries, queries)))
    return results, absent


def read(data: Path, name: str, limit: int | None) -> tuple[list[Utterance], list[Utterance]]:
    """Entries and queries; with a limit always the same ones, of all classes."""
    if name == "banking77":
        entries, queries = utterances("populate", None), utterances("query", None)
    else:
        found = list(classed(data, name))
        entries = [one for phase, one in found if phase == "populate"]
        queries = [one for phase, one in found if phase == "query"]
    if name == "clinc150":
        queries = [one for one in queries if not PARAMETRIC.fullmatch(one.intent)]
        path = data / name / "public" / "out_of_scope.tsv.gz"
        queries += [Utterance(row["text"], OUT_OF_SCOPE, OUT_OF_SCOPE) for row in rows(path)]
    return sample(entries, limit), sample(queries, limit)


def sample(found: list[Utterance], limit: int | None) -> list[Utterance]:
    return found if limit is None else sorted(found, key=lambda one: digest(one.text))[:limit]


def classed(data: Path, name: str) -> Iterator[tuple[str, Utterance]]:
    """Phase and utterance; where slots make the class only those with slots, none twice."""
    for row in rows(data / name / "public" / "utterances.tsv.gz"):
        names = [slot.partition("=")[0] for slot in row.get("slots", "").split("; ")]
        if name not in STRICT or (row["slots"] and len(names) == len(set(names))):
            answer = row.get("answer_class") or row["intent"]
            yield row["phase"], Utterance(row["text"], answer, row.get("template") or answer)


def asked(entries: Sequence[Utterance], queries: Sequence[Utterance]) -> list[Asked]:
    """Ask a service of our own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), redis_timeout_s="20") as service,
    ):
        classes = fill(service.http, entries)
        explained = lookups(service.http, queries, {"threshold": -1, "explain": True})
        by_default = lookups(service.http, queries, {})
        present = set(classes.values())
        found = []
        for query, shown, plain in zip(queries, explained, by_default, strict=True):
            hit = plain["response"] == query.intent if plain["outcome"] == "hit" else None
            near = candidates(shown, classes, query.intent)
            found.append(Asked(query, query.intent in present, near, hit))
    check(found)
    return found


def fill(http: httpx.Client, entries: Sequence[Utterance]) -> dict[str, str]:
    """Store every entry, its class as the answer; the class of each entry id."""
    classes: dict[str, str] = {}
    for at in range(0, len(entries), STORE_BATCH):
        page = entries[at : at + STORE_BATCH]
        items = [{"agent_type": AGENT_TYPE, "prompt": one.text, "response": one.intent} for one in page]
        answer = http.post("/v1/cache/store/batch", json={"items": items}, timeout=120).raise_for_status()
        for one, stored in zip(page, answer.json()["items"], strict=True):
            if not stored.get("stored"):
                sys.exit(f"not stored: {one.text!r}: {stored}")
            classes[stored["entry_id"]] = one.intent
    return classes


def lookups(
    http: httpx.Client, queries: Sequence[Utterance], more: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The semantic tier's answers; a degraded one would be a figure of the machine, so it ends the run."""
    found: list[dict[str, Any]] = []
    for at in range(0, len(queries), LOOKUP_BATCH):
        page = queries[at : at + LOOKUP_BATCH]
        items = [
            {"agent_type": AGENT_TYPE, "prompt": one.text, "tiers": ["semantic"], **more} for one in page
        ]
        answer = http.post("/v1/cache/lookup/batch", json={"items": items}, timeout=120).raise_for_status()
        found += answer.json()["items"]
    for one in found:
        if one.get("reason") == "degraded":
            sys.exit(f"a lookup was degraded ({one.get('rule')}): the machine is too busy to measure")
    return found


def candidates(shown: Mapping[str, Any], classes: Mapping[str, str], wanted: str) -> list[Candidate]:
    """What `explain` says of each candidate."""
    return [
        Candidate(
            one["similarity"],
            classes[one["entry_id"]] == wanted,
            all(passed for name, passed in one["verdicts"].items() if name != "verifier"),
            one["verifier_score"],
        )
        for one in shown["decision"]["candidates"]
    ]


def by_cosine(one: Asked, threshold: float) -> int:
    """The nearest entry, if near enough."""
    return decided(c for c in one.candidates[:1] if c.similarity >= threshold)


def by_guards(one: Asked, threshold: float) -> int:
    """The nearest that no guard rejects."""
    return decided(c for c in one.candidates if c.free and c.similarity >= threshold)


def by_verifier(one: Asked, cut: float) -> int:
    """Of the first that the verifier reads, the nearest that reaches the cut."""
    held = [c for c in one.candidates if c.free and c.similarity >= THRESHOLD - ROUNDING][:VERIFIED]
    return decided(c for c in held if c.score is not None and c.score >= cut)


def decided(serving: Iterator[Candidate]) -> int:
    """1 the right answer, -1 a wrong one, 0 none."""
    first = next(serving, None)
    return 0 if first is None else 1 if first.right else -1


def check(found: Sequence[Asked]) -> None:
    """What is served by default is what the candidates say; off by rounding only."""
    verifier = shipped_verifier()
    for one in found:
        said = by_verifier(one, verifier.cut) if verifier else by_guards(one, THRESHOLD)
        real = {None: 0, True: 1, False: -1}[one.served]
        near = any(abs(c.similarity - THRESHOLD) < ROUNDING for c in one.candidates)
        close = any(verifier and c.score and abs(c.score - verifier.cut) < 1e-3 for c in one.candidates)
        if said != real and not near and not close:
            sys.exit(f"served otherwise than its candidates say: {one}")


def measured(name: str, entries: Sequence[Utterance], found: Sequence[Asked]) -> dict[str, Any]:
    """The figures of one set: of all queries, of those whose class no training saw, of those out of scope."""
    scoped = [one for one in found if one.query.intent != OUT_OF_SCOPE]
    unscoped = [one for one in found if one.query.intent == OUT_OF_SCOPE]
    unseen = [one for one in scoped if held_back(name, one.query)]
    parts = {"all": scoped, "not trained": unseen, OUT_OF_SCOPE: unscoped}
    return {
        "set": name,
        "entries": len(entries),
        "trained": name in TRAINABLE,
        "asked": {part: figures(asked) for part, asked in parts.items() if asked},
    }


def held_back(name: str, query: Utterance) -> bool:
    """Whether the query's class was kept from the verifier's training."""
    return Pair(name, "", query.group, "", "", 1).held_back


def figures(found: Sequence[Asked]) -> dict[str, Any]:
    """By default, and swept."""
    right, wrong = sum(one.served is True for one in found), sum(one.served is False for one in found)
    answerable = sum(one.answerable for one in found)
    sweeps: dict[str, tuple[Callable[[Asked, float], int], list[float]]] = {
        "cosine": (by_cosine, THRESHOLDS),
        "semcached": (by_verifier, CUTS) if shipped_verifier() else (by_guards, THRESHOLDS),
    }
    return {
        "asked": len(found),
        "default": served_shares(right, wrong, answerable, len(found)),
        "thresholds": {str(at): nearest_alone(found, at) for at in SHOWN_AT},
        "swept": {name: swept(found, *how) for name, how in sweeps.items()} if answerable else {},
    }


def served_shares(right: int, wrong: int, answerable: int, asked: int) -> dict[str, Share]:
    """Of the queries whose answer was there, of all queries, of all hits."""
    return {
        "right_of_answerable": share(right, answerable),
        "hits_of_all": share(right + wrong, asked),
        "wrong_of_all": share(wrong, asked),
        "wrong_of_hits": share(wrong, right + wrong),
    }


def nearest_alone(found: Sequence[Asked], threshold: float) -> dict[str, Share]:
    """What the similarity alone would serve."""
    outcomes = [by_cosine(one, threshold) for one in found]
    answerable = sum(one.answerable for one in found)
    return served_shares(outcomes.count(1), outcomes.count(-1), answerable, len(found))


def swept(
    found: Sequence[Asked], outcome: Callable[[Asked, float], int], cuts: Sequence[float]
) -> dict[str, Any]:
    """The most right answers, of those there, while the wrong ones are within a rate of all queries."""
    outcomes = np.array([[outcome(one, cut) for cut in cuts] for one in found], np.int8)
    answerable = np.array([one.answerable for one in found])
    _, group = np.unique(np.array([one.query.group for one in found]), return_inverse=True)
    tally = np.stack([summed(part, group) for part in (outcomes == 1, outcomes == -1)])
    sizes = np.stack([np.bincount(group).astype(float), np.bincount(group, weights=answerable)])
    count = sizes.shape[1]
    rng = np.random.default_rng(SEED)
    drawn = [
        best(tally, sizes, np.bincount(rng.integers(0, count, count), minlength=count))
        for _ in range(REPLICATES)
    ]
    chosen = best(tally, sizes, np.ones(count, np.int64))
    low, high = np.quantile(np.array([[right for _, right in one] for one in drawn]), (0.025, 0.975), axis=0)
    return {
        str(rate): {"cut": cuts[place], "right": Estimate(right, float(below), float(above))}
        for rate, (place, right), below, above in zip(FALSE_RATES, chosen, low, high, strict=True)
    }


def summed(part: NDArray[np.bool_], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """[groups, cuts]: how many of each group."""
    found = np.zeros((int(group.max()) + 1, part.shape[1]), np.int64)
    np.add.at(found, group, part)
    return found


def best(
    tally: NDArray[np.int64],
    sizes: NDArray[np.float64],
    weights: NDArray[np.int64],
) -> list[tuple[int, float]]:
    """For each rate the lowest cut that keeps to it, with its share of right answers."""
    right, wrong = np.einsum("g,kgc->kc", weights, tally)
    asked, answerable = sizes @ weights
    found = []
    for rate in FALSE_RATES:
        fits = np.flatnonzero(wrong <= rate * asked)
        place = int(fits[np.argmax(right[fits])]) if len(fits) else len(wrong) - 1
        found.append((place, float(right[place] / answerable) if len(fits) and answerable else 0.0))
    return found
