"""Whether the next generation's index answers as the one before does."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.cache.canonical import Identity, Vector
from service.cache.ports import Budget, Search
from service.migrate.record import Migration
from service.migrate.target import Target
from service.model import Candidate, Generation
from service.store.client import value_of
from service.store.documents import Document
from service.store.forms import Forms
from service.store.searches import Searches
from service.store.vectors import unpacked

SAMPLE = 500
SAME = 0.995
"""Share of the sample whose nearest entry must be the same."""
TIE = 2e-3
"""As near as that to the nearest is as good: half the bytes cost a similarity 1e-4, bfloat16 1e-3."""
TURNED = 0.85
"""Similarity of what is asked to what is stored, as of a rewording."""
AT_ONCE = 8
SEARCH_S = 10.0


class Compared(NamedTuple):
    """What came out."""

    asked: int
    same: int
    error: float  # the greatest difference of an entry's similarity

    @property
    def share(self) -> float:
        """1 where nothing was asked."""
        return self.same / self.asked if self.asked else 1.0


class Sampler:
    """So many of a stream, each with the same chance (reservoir sampling, Vitter 1985)."""

    def __init__(self, most: int = SAMPLE) -> None:
        self._most, self._seen = most, 0
        self._random = random.Random(7)  # noqa: S311 - a sample, no secret
        self.kept: list[tuple[int, str]] = []  # partition, entry id

    def look(self, partition: int, ids: Sequence[str]) -> None:
        """Some more."""
        for one in ids:
            self._seen += 1
            if len(self.kept) < self._most:
                self.kept.append((partition, one))
            elif (at := self._random.randrange(self._seen)) < self._most:
                self.kept[at] = (partition, one)


class Comparison:
    """Asks both indexes of a partition the same."""

    def __init__(self, target: Target, migration: Migration) -> None:
        self._target = target
        self._before, self._after = migration.before, migration.after
        self._forms = forms_of(migration)
        self._rng = np.random.default_rng(7)

    async def of(self, partition: int, some: Sequence[Document]) -> Compared:
        """Documents of `before`.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        asked = same = 0
        error = 0.0
        searches = [
            search_of(one, self._turned(unpacked(one.fields["vector"], self._before)))
            for one in some
            if "vector" in one.fields
        ]
        for at in range(0, len(searches), AT_ONCE):
            page = searches[at : at + AT_ONCE]
            sides = [await self._nearest(partition, side, page) for side in (self._before, self._after)]
            for old, new in zip(*sides, strict=True):
                asked += 1
                same += _is_same(old, new)
                error = max(error, _error(old, new))
        return Compared(asked, same, error)

    async def _nearest(
        self, partition: int, side: Generation, page: Sequence[Search]
    ) -> list[list[Candidate]]:
        index, found = self._target.keys.index(partition, side), list[list[Candidate]]()
        for _ in range(2):  # the first time how large their scopes are isn't known
            searches = Searches(page, index, side, self._forms[side.number])
            replies = await self._target.redis.run(searches.commands, Budget(SEARCH_S))
            found = [value_of(one) for one in searches.pages(replies)]
        return found

    def _turned(self, vector: Vector) -> Vector:
        aside = self._rng.standard_normal(vector.size).astype(np.float32)
        aside -= (aside @ vector) * vector
        turned = TURNED * vector + np.sqrt(1 - TURNED**2) * aside / np.linalg.norm(aside)
        return np.asarray(turned / np.linalg.norm(turned), np.float32)


def forms_of(migration: Migration) -> dict[int, Forms]:
    """By a generation's number: an index that is no graph isn't walked."""
    sides = (migration.before, migration.after)
    return {one.number: Forms(walks=one.index not in migration.flat) for one in sides}


def search_of(one: Document, vector: Vector) -> Search:
    """In its scope."""
    names = ("tenant", "agent_type", "scope", "history")
    tags = (one.fields.get(name, b"").decode() for name in names)
    return Search((Identity(one.entry_id, *tags),), vector)


def _is_same(old: Sequence[Candidate], new: Sequence[Candidate]) -> bool:
    if not old or not new:
        return len(old) == len(new)
    return old[0].entry_id == new[0].entry_id or new[0].similarity >= old[0].similarity - TIE


def _error(old: Sequence[Candidate], new: Sequence[Candidate]) -> float:
    there = {one.entry_id: one.similarity for one in new}
    return max(
        (abs(one.similarity - there[one.entry_id]) for one in old if one.entry_id in there), default=0.0
    )
