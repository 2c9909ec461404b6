"""The threshold for another model: of pairs that the old one would serve, as many, and hardly any others."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from service.cache.canonical import Vector
from service.cache.ports import Budget
from service.migrate.comparing import AT_ONCE, SEARCH_S, forms_of, search_of
from service.migrate.record import Migration
from service.migrate.target import Target
from service.model import Generation
from service.store.client import value_of
from service.store.documents import Document, Documents
from service.store.searches import Searches
from service.store.vectors import unpacked

BESIDE = 3
"""Neighbours of an entry, by either model, that make pairs."""
GAINED = 0.01
"""Share of the pairs that are served by the new model and weren't by the old."""
FEWEST = 30
"""Pairs that the old model would serve, and that neither would; with fewer nothing is known."""
UNKNOWN = 0.95
"""What is asked for then, at least."""


class Pair(NamedTuple):
    """Two entries of a scope, by their similarities under both models."""

    old: float
    new: float


class Recalibrated(NamedTuple):
    """What was found."""

    threshold: float
    pairs: int
    accepted: int  # by the old model
    kept: int  # of those, by the new one
    gained: int  # by the new one alone
    is_known: bool  # whether there were pairs enough, of both kinds, that a threshold tells apart


def recalibrated(pairs: Sequence[Pair], threshold: float) -> Recalibrated:
    """The least threshold by which at most GAINED of what is served is new.

    Args:
        pairs: near neighbours, by either model.
        threshold: the old model's.
    """
    accepted = sum(one.old >= threshold for one in pairs)
    found = _least(pairs, threshold)
    below = sum(one.old < threshold and one.new < found for one in pairs)
    keeps = any(one.old >= threshold and one.new >= found for one in pairs)
    is_known = accepted >= FEWEST <= below and keeps  # what serves none of them tells nothing
    if not is_known:
        found = max(threshold, UNKNOWN)
    served = [one for one in pairs if one.new >= found]
    kept = sum(one.old >= threshold for one in served)
    return Recalibrated(found, len(pairs), accepted, kept, len(served) - kept, is_known)


def _least(pairs: Sequence[Pair], threshold: float) -> float:
    """As `recalibrated`, of however few; 1 where none fits."""
    order = sorted(pairs, key=lambda one: -one.new)
    gained = np.cumsum([one.old < threshold for one in order])
    fits = gained <= GAINED * np.arange(1, len(order) + 1)
    # of equal ones all or none: only the last of them tells
    last = [at + 1 == len(order) or order[at + 1].new < one.new for at, one in enumerate(order)]
    good = np.flatnonzero(fits & np.array(last, bool))
    return float(np.clip(order[good[-1]].new, -1, 1)) if good.size else 1.0


class Neighbours:
    """Pairs of near entries in a partition."""

    def __init__(self, target: Target, migration: Migration) -> None:
        self._target = target
        self._sides = (migration.before, migration.after)
        self._forms = forms_of(migration)

    async def pairs(self, partition: int, documents: Documents, ids: Sequence[str]) -> list[Pair]:
        """Of those entries, with their nearest ones in the same scope.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        known = [await self._vectors(documents, ids, side) for side in self._sides]
        both = [one for one in ids if all(one in rows for rows in known)]
        found: set[tuple[str, str]] = set()
        for side, rows in zip(self._sides, known, strict=True):
            for at in range(0, len(both), AT_ONCE):
                found.update(
                    await self._beside(partition, side, [rows[one] for one in both[at : at + AT_ONCE]])
                )
        others = sorted({other for pair in found for other in pair} - set(both))
        for side, rows in zip(self._sides, known, strict=True):
            rows.update(await self._vectors(documents, others, side))
        return [
            Pair(
                *(
                    _cosine(rows[one], rows[other], side)
                    for side, rows in zip(self._sides, known, strict=True)
                )
            )
            for one, other in sorted(found)
            if all(one in rows and other in rows for rows in known)
        ]

    async def _vectors(
        self, documents: Documents, ids: Sequence[str], side: Generation
    ) -> dict[str, Document]:
        return {one.entry_id: one for one in await documents.read(ids, side) if "vector" in one.fields}

    async def _beside(
        self, partition: int, side: Generation, some: Sequence[Document]
    ) -> Iterator[tuple[str, str]]:
        index = self._target.keys.index(partition, side)
        searches = Searches(
            [search_of(one, _own(one, side)) for one in some], index, side, self._forms[side.number]
        )
        replies = await self._target.redis.run(searches.commands, Budget(SEARCH_S))
        pages = [value_of(one) for one in searches.pages(replies)]
        return (
            (min(one.entry_id, other.entry_id), max(one.entry_id, other.entry_id))
            for one, page in zip(some, pages, strict=True)
            for other in [near for near in page if near.entry_id != one.entry_id][:BESIDE]
        )


def _own(one: Document, side: Generation) -> Vector:
    return unpacked(one.fields["vector"], side)


def _cosine(one: Document, other: Document, side: Generation) -> float:
    return float(_own(one, side) @ _own(other, side))
