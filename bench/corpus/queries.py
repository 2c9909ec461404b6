"""What is asked of a corpus, with the entry that an exact search within the tenant finds."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from bench.corpus.entries import Corpus
from bench.corpus.neighbours import Floats, exact
from bench.corpus.texts import paraphrases

Kind = Literal["exact", "near", "absent"]
LEAST, MOST = 0.7, 0.995
"""Similarities that a changed vector has to the one that is stored."""
NEXT = 4
MIXED = 4


class Query(NamedTuple):
    """A question of a tenant, and the nearest of its entries."""

    kind: Kind
    tenant: int
    text: str
    vector: Floats
    expected: int
    similarity: float


class Draft(NamedTuple):
    """A question before its nearest entry is known."""

    tenant: int
    text: str
    vector: Floats
    entry: int | None = None  # the one whose own words it has


def queries(
    corpus: Corpus, kind: Kind, count: int, *, tenants: Sequence[int] | None = None, seed: int = 1
) -> list[Query]:
    """`count` questions, evenly of those tenants, else of tenants as they have entries.

    `exact`: the words of an entry. `near`: a paraphrase of one from the sets' own pairs, where the tenant has
    one side and not the other, for half of them at most; the others are vectors at a similarity to an
    entry's that is spread evenly. `absent`: questions like those stored, of which nobody asks.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    if tenants is None:
        asking = [int(one) for one in corpus.tenants[rng.integers(0, corpus.size, count)]]
    else:
        asking = [tenants[at % len(tenants)] for at in range(count)]
    empty = next((one for one in asking if not len(corpus.members(one))), None)
    if empty is not None:
        raise ValueError(f"tenants: {empty} has no entry")
    if kind == "absent":
        drafts = _absent(corpus, asking, rng)
    else:
        entries = [int(rng.choice(corpus.members(one))) for one in asking]
        drafts = [_stored(corpus, one) for one in entries]
        if kind == "near":
            drafts = _near(corpus, drafts, rng)
    return _answered(corpus, kind, drafts)


def _stored(corpus: Corpus, entry: int) -> Draft:
    return Draft(int(corpus.tenants[entry]), corpus.text(entry), corpus.vector(entry), entry)


def _absent(corpus: Corpus, asking: Sequence[int], rng: np.random.Generator) -> list[Draft]:
    if not len(corpus.reserved):
        raise ValueError(f"size: {corpus.size} is too small for absent questions")
    rows = rng.choice(corpus.reserved, len(asking))
    return [
        Draft(tenant, corpus.texts.of(int(row)), np.array(corpus.rows[row]))
        for tenant, row in zip(asking, rows, strict=True)
    ]


def _near(corpus: Corpus, drafts: Sequence[Draft], rng: np.random.Generator) -> list[Draft]:
    reworded = _reworded(corpus, {one.tenant for one in drafts}, rng)
    found: list[Draft | None] = []
    for at, one in enumerate(drafts):
        real = reworded.get(one.tenant) if at % 2 else None
        found.append(real.pop() if real else None)
    missing = [at for at, one in enumerate(found) if one is None]
    changed = iter(_changed(corpus, [drafts[at] for at in missing], rng))
    return [next(changed) if one is None else one for one in found]


def _changed(corpus: Corpus, drafts: Sequence[Draft], rng: np.random.Generator) -> list[Draft]:
    """Turned half towards the tenant's own next ones, half towards a mix of others.

    As rewordings are: of real pairs at 0.8 to 0.9 in the largest tenant of a million the second nearest entry
    is at 0.82 (median), of these at 0.77. Turned away from all neighbours it would be at 0.58: a needle that
    no walk through a graph finds by following what is similar.
    """
    found: dict[int, Draft] = {}
    for tenant in sorted({one.tenant for one in drafts}):
        places = [at for at, one in enumerate(drafts) if one.tenant == tenant]
        stored = np.stack([drafts[at].vector for at in places])
        questions = corpus.questions[corpus.members(tenant)]
        near = exact(stored, corpus.rows, 1 + NEXT, questions)
        for at, vector, rows in zip(places, stored, near.rows, strict=True):
            beside = corpus.rows[np.sort(rows[rows >= 0][1:])]
            others = corpus.rows[np.sort(rng.integers(0, len(corpus.rows), MIXED))]
            turned = _away(beside, vector) + _away(others, vector)
            similarity = rng.uniform(LEAST, MOST)
            changed = similarity * vector + np.sqrt(1 - similarity**2) * turned / np.linalg.norm(turned)
            changed = (changed / np.linalg.norm(changed)).astype(np.float32)
            found[at] = Draft(tenant, f"Please tell me: {drafts[at].text}", changed)
    return [found[at] for at in range(len(drafts))]


def _away(rows: Floats, vector: Floats) -> Floats:
    """[dim], of norm 1: what the rows have in common that the vector has not; of no rows, nothing."""
    rest = np.sum(rows - (rows @ vector)[:, None] * vector, axis=0)
    return rest / max(float(np.linalg.norm(rest)), 1e-6)  # type: ignore[no-any-return] # numpy's division


def _reworded(corpus: Corpus, tenants: set[int], rng: np.random.Generator) -> dict[int, list[Draft]]:
    """Of each tenant questions that it has in other words only."""
    row_of = {text: row for row, text in enumerate(corpus.texts.real[: corpus.real])}
    pairs = [
        (row_of[one], row_of[other])
        for one, other in paraphrases(corpus.data)
        if {one, other} <= row_of.keys()
    ]
    order = [pairs[at] for at in rng.permutation(len(pairs))]
    found: dict[int, list[Draft]] = {}
    for tenant in sorted(tenants):
        stored = set(corpus.questions[corpus.members(tenant)].tolist())
        rows = dict.fromkeys(other for one, other in order if one in stored and other not in stored)
        found[tenant] = [Draft(tenant, corpus.texts.real[row], np.array(corpus.rows[row])) for row in rows]
    return found


def _answered(corpus: Corpus, kind: Kind, drafts: Sequence[Draft]) -> list[Query]:
    found: dict[int, Query] = {}
    for tenant in sorted({one.tenant for one in drafts}):
        places = [at for at, one in enumerate(drafts) if one.tenant == tenant]
        members = corpus.members(tenant)
        near = exact(
            np.stack([drafts[at].vector for at in places]), corpus.rows, 1, corpus.questions[members]
        )
        entry_of = dict(zip(corpus.questions[members].tolist(), members.tolist(), strict=True))
        for at, row, similarity in zip(places, near.rows[:, 0], near.similarities[:, 0], strict=True):
            one = drafts[at]
            expected = entry_of[int(row)] if one.entry is None else one.entry
            found[at] = Query(kind, tenant, one.text, one.vector, expected, float(similarity))
    return [found[at] for at in range(len(drafts))]
