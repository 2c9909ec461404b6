"""Documents of the next generation out of those of the one before."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

from service.cache.canonical import Vector
from service.cache.ports import Embedder
from service.migrate.progress import Rate
from service.migrate.record import Kind
from service.migrate.target import MigrationError
from service.model import Generation
from service.providers.gate import ProviderError
from service.store.documents import Document, Documents
from service.store.records import unsealed_unchecked
from service.store.vectors import packed, unpacked

TEXTS = 64
"""Texts that are embedded at once."""
UNBOUNDED = Rate(None)


class Maker(Protocol):
    """Makes them; `refused`: texts that the model's provider doesn't take."""

    refused: set[str]

    async def made(self, documents: Documents, some: Sequence[Document]) -> list[Document]:
        """In any order; what can't be embedded, or is refused, has no vector.

        Raises:
            EmbedderError: the embedder is away.
            StoreUnavailableError: Redis does not answer.
        """


class Converting:
    """The same vectors in other numbers, or with places."""

    def __init__(self, before: Generation, after: Generation) -> None:
        self._before, self._after = before, after
        self.refused = set[str]()

    async def made(self, documents: Documents, some: Sequence[Document]) -> list[Document]:  # noqa: ARG002 - a Maker
        """See `Maker`."""
        return [self._made(one) for one in some]

    def _made(self, one: Document) -> Document:
        raw = one.fields.get("vector")
        if raw is None:
            return one
        vector = unpacked(raw, self._before)
        return _with(one, vector, self._after)


Rest = Callable[[float], Awaitable[None]]
"""For so many s."""


class Embedding:
    """Vectors of another model, of the texts in the records; equal texts once.

    The embedding cache is no help: its names and seals are under keys of tenants, whom documents don't name.
    """

    def __init__(
        self, embedder: Embedder, after: Generation, rate: Rate = UNBOUNDED, rest: Rest = asyncio.sleep
    ) -> None:
        self._embedder, self._after = embedder, after
        self._rate, self._rest = rate, rest
        self.refused = set[str]()  # aren't asked for again
        self._works = False

    async def made(self, documents: Documents, some: Sequence[Document]) -> list[Document]:
        """See `Maker`. Texts are read without a tenant's key: a forged one is found out when it is served."""
        texts: dict[str, str] = {}
        for one, blob in zip(some, await documents.records([one.entry_id for one in some]), strict=True):
            record = None if blob is None else unsealed_unchecked(blob, one.entry_id)
            text = None if record is None or record.embedding is None else record.standalone or record.text
            if text is not None and text not in self.refused and self._embedder.unfit(text) is None:
                texts[one.entry_id] = text
        distinct = list(dict.fromkeys(texts.values()))
        rows: dict[str, Any] = {}
        most = self._rate.at_once(TEXTS)
        for at in range(0, len(distinct), most):
            rows |= await self._embedded(distinct[at : at + most])
        return [
            _with(one, rows[texts[one.entry_id]], self._after)
            if texts.get(one.entry_id) in rows
            else Document(one.entry_id, {k: v for k, v in one.fields.items() if k != "vector"})
            for one in some
        ]

    async def _embedded(self, page: Sequence[str]) -> dict[str, Any]:
        """By text; without those that the provider refuses, of which one has a whole page refused.

        Raises:
            EmbedderError: it is away, or refuses all, which is no matter of texts.
        """
        begun = perf_counter()
        try:
            rows = dict(zip(page, await self._embedder.embed(page), strict=True))
        except ProviderError as error:
            if not error.answered:
                raise
            refusal = error
        else:
            self._works = True
            return rows
        finally:
            await self._rest(self._rate.owed_s(len(page), perf_counter() - begun))
        if len(page) == 1:
            self.refused.update(page)
            return {}
        each = [await self._embedded([one]) for one in page]
        if not self._works:
            raise refusal
        return {text: row for one in each for text, row in one.items()}


def maker_of(
    kind: Kind,
    source: Generation,
    goal: Generation,
    embedder: Embedder | None,
    *,
    rate: Rate = UNBOUNDED,
    rest: Rest = asyncio.sleep,
) -> Maker:
    """What makes the documents of `goal`; it asks for no more texts than `rate` says.

    Raises:
        MigrationError: the embedder isn't the one that is needed.
    """
    if kind == "reembed":
        return Embedding(needed(embedder, goal), goal, rate, rest)
    return Converting(source, goal)


def needed(embedder: Embedder | None, generation: Generation) -> Embedder:
    """The embedder, if its vectors are the generation's.

    Raises:
        MigrationError: they aren't.
    """
    found = None if embedder is None else (embedder.model, embedder.revision, embedder.dim)
    if embedder is None or found != generation.embedding:
        raise MigrationError(
            f"this needs vectors of {generation.model} {generation.revision}: set SEMCACHED_EMBEDDER "
            "(and its model) to that, and run it again"
        )
    return embedder


def _with(one: Document, vector: Vector, generation: Generation) -> Document:
    scope = one.fields.get("scope", b"").decode()
    return Document(one.entry_id, one.fields | {"vector": packed(vector, scope, generation)})
