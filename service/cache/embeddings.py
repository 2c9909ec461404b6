"""The vectors of texts: kept ones are used, the others are computed once, and kept.

What is kept are the bytes that the embedder, or a caller, gave; they are normalised where they are compared.
What a caller gave is never taken for what the service's own embedder says, even under the same model's name.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.cache.canonical import Vector
from service.cache.digests import DigestKey, TenantKeys
from service.cache.ports import Budget, Embedder, KeptEmbeddings, NewEmbedding, Work
from service.cache.writing import Writing, pages
from service.errors import EmbedderError, InvalidInputError, StoreUnavailableError
from service.telemetry import EMBEDDINGS

ITEM_S = 0.001
"""What each further text of a call adds to the time for Redis."""
CALLERS = "caller"
"""The revision under which a caller's own embeddings are kept; no embedder's."""
DEFAULT = "default"
"""A name for the service's own model."""

_encode = msgspec.json.Encoder().encode


class Wanted(NamedTuple):
    """A text that needs a vector, and what Redis has under its name, not yet believed."""

    text: str
    name: str | None  # None: Redis was not asked, and won't be
    sealed: bytes | None


class Computed(NamedTuple):
    """The vectors of a call's texts, as they were given, and what they cost."""

    raws: list[bytes]  # little-endian float32, in order
    hits: int  # different texts that were kept
    misses: int  # different texts that were computed
    tokens: int  # of these


class Embeddings:
    """The embedding cache over an embedder."""

    def __init__(
        self,
        kept: KeptEmbeddings,
        embedder: Embedder,
        *,
        ttl_s: int,
        redis_s: float,
        named: frozenset[str],
    ) -> None:
        self._kept = kept
        self._embedder = embedder
        self._redis_s = redis_s
        self._named = named
        self._writing = Writing[NewEmbedding](kept, redis_s)
        self.ttl_s = ttl_s

    @property
    def model(self) -> str:
        """The name of the service's own model."""
        return self._embedder.model

    @property
    def dim(self) -> int | None:
        """Its dimension, once that is known."""
        return self._embedder.dim

    def name(self, text: str, keys: TenantKeys) -> str:
        """Under which the service's own embedding of a text is kept."""
        own = self._embedder
        return _name(keys.embeddings, own.model, own.revision, own.dim, text)

    async def vectors(
        self, wanted: Sequence[Wanted], keys: TenantKeys, work: Work
    ) -> list[Vector | EmbedderError]:
        """One vector of norm 1 per text, in order; the embedder's error where it had to be asked.

        No round trip to Redis: what was computed is written a little later.
        """
        if not wanted:
            return []
        found: dict[str, Vector | EmbedderError] = {}
        for one in wanted:
            raw = None if one.name is None else self._opened(one.name, one.sealed, keys)
            if raw is not None:
                found[one.text] = _unit(raw)
        names = {one.text: one.name for one in wanted if one.text not in found}
        self._count(keys, len(found), len(names))
        if names:
            found |= await self._computed(names, keys, work)
        return [found[one.text] for one in wanted]

    async def _computed(
        self, names: Mapping[str, str | None], keys: TenantKeys, work: Work
    ) -> dict[str, Vector | EmbedderError]:
        try:
            answer = await self._embedder.raw(list(names))
        except EmbedderError as error:
            return dict.fromkeys(names, error)
        work.model, work.tokens = self._embedder.model, work.tokens + answer.tokens
        raws = dict(zip(names, map(_bytes, answer.rows), strict=True))
        for text, name in names.items():
            if name is not None:
                self._writing.add(self._own(keys, name, raws[text]))
        return {text: _unit(raw) for text, raw in raws.items()}

    def _opened(self, name: str, sealed: bytes | None, keys: TenantKeys) -> bytes | None:
        """Of the embedder's dimension, or computed anew."""
        one = self._writing.get(name)
        raw = self._kept.opened(sealed, name, keys.embeddings) if one is None else one.raw
        return raw if raw is not None and len(raw) == 4 * (self._embedder.dim or 0) else None

    def _own(self, keys: TenantKeys, name: str, raw: bytes) -> NewEmbedding:
        return NewEmbedding(keys, keys.embeddings, self._embedder.model, name, raw, self.ttl_s * 1000)

    async def embedded(self, texts: Sequence[str], keys: TenantKeys) -> Computed:
        """The service's own embedding of each text, in order; without Redis all are computed.

        Raises:
            InvalidInputError: names the text that is too long for the model.
            EmbedderError: it is away, slow, or answered no embeddings.
        """
        budget = Budget(self._redis_s + ITEM_S * len(texts[1:]))
        distinct = list(dict.fromkeys(texts))
        found = await self._found(distinct, keys, budget)
        missing = [text for text in distinct if text not in found]
        self._count(keys, len(found), len(missing))
        if not missing:
            return Computed([found[text] for text in texts], len(found), 0, 0)
        await self._check_length(missing, texts)
        answer = await self._embedder.raw(missing, bulk=True)
        computed = dict(zip(missing, map(_bytes, answer.rows), strict=True))
        with contextlib.suppress(StoreUnavailableError):  # they are known now, and computed again next time
            await self._write([self._own(keys, self.name(text, keys), raw) for text, raw in computed.items()])
        found |= computed
        hits = len(distinct) - len(missing)
        return Computed([found[text] for text in texts], hits, len(missing), answer.tokens)

    async def _found(self, texts: Sequence[str], keys: TenantKeys, budget: Budget) -> dict[str, bytes]:
        """What is kept of the service's own; nothing where Redis is away."""
        names = [self.name(text, keys) for text in texts]
        try:
            sealed = await self._kept.read(keys, names, budget)
        except StoreUnavailableError:
            sealed = [None] * len(names)
        opened = map(self._opened, names, sealed, [keys] * len(names))
        return {text: raw for text, raw in zip(texts, opened, strict=True) if raw is not None}

    async def _check_length(self, missing: Sequence[str], texts: Sequence[str]) -> None:
        """In a thread: the local model counts word pieces."""

        def too_long() -> str | None:
            return next((text for text in missing if self._embedder.unfit(text) == "too_long"), None)

        text = await asyncio.to_thread(too_long)
        if text is not None:
            raise InvalidInputError(f"input[{texts.index(text)}]", "is longer than the model can read")

    async def find(self, model: str, texts: Sequence[str], keys: TenantKeys) -> list[bytes | None]:
        """What is kept for each text under a model's name: the service's own, else what a caller gave.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """
        budget = Budget(self._redis_s + ITEM_S * len(texts[1:]))
        model = self._resolved(model)
        names = [_name(keys.current, model, CALLERS, None, text) for text in texts]
        sealed = await self._kept.read(keys, names, budget)
        given = [
            self._kept.opened(blob, name, keys.current) for blob, name in zip(sealed, names, strict=True)
        ]
        if model == self._embedder.model:
            own = await self._found(texts, keys, budget)
            given = [own.get(text, raw) for text, raw in zip(texts, given, strict=True)]
        self._count(keys, sum(raw is not None for raw in given), sum(raw is None for raw in given))
        return given

    async def keep(self, model: str, given: Mapping[str, bytes], keys: TenantKeys, ttl_ms: int) -> None:
        """Keep a caller's own embeddings, by text, for the tenant alone.

        Raises:
            StoreUnavailableError: some may not have been kept.
        """
        model, key = self._resolved(model), keys.current
        await self._write(
            [
                NewEmbedding(keys, key, model, _name(key, model, CALLERS, None, text), raw, ttl_ms)
                for text, raw in given.items()
            ]
        )

    async def _write(self, new: list[NewEmbedding]) -> None:
        for page in pages(new):
            await self._kept.write(page, Budget(self._redis_s + ITEM_S * len(page)))

    def _resolved(self, model: str) -> str:
        return self._embedder.model if model == DEFAULT else model

    def _count(self, keys: TenantKeys, hits: int, misses: int) -> None:
        label = keys.tenant if keys.tenant in self._named else "other"
        EMBEDDINGS.labels(label, "hit").inc(hits)
        EMBEDDINGS.labels(label, "miss").inc(misses)

    async def written(self) -> None:
        """Wait until what was computed so far is where a deletion finds it."""
        await self._writing.at_once()

    async def close(self) -> None:
        """Write what waits to be."""
        await self._writing.close()


def _name(key: DigestKey, model: str, revision: str, dim: int | None, text: str) -> str:
    return key.digest("embedding", _encode((model, revision, dim, text)))


def _bytes(row: NDArray[np.float32]) -> bytes:
    return row.astype("<f4", copy=False).tobytes()


def _unit(raw: bytes) -> Vector:
    values = np.frombuffer(raw, "<f4").astype(np.float64)
    return (values / np.sqrt(values @ values)).astype(np.float32)


@asynccontextmanager
async def embeddings(
    kept: KeptEmbeddings, embedder: Embedder, *, ttl_s: int, redis_s: float, named: frozenset[str]
) -> AsyncIterator[Embeddings]:
    """The cache; what waits to be written is written at the end."""
    one = Embeddings(kept, embedder, ttl_s=ttl_s, redis_s=redis_s, named=named)
    try:
        yield one
    finally:
        await one.close()
