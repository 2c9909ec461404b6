"""What the decisions need from below; `store/` and `embedders/` fulfil it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.cache.canonical import Identity, Vector
from service.cache.digests import TenantKeys
from service.errors import SemcachedError
from service.model import Candidate, Generation, Message, Policy, Record, Tenant

Clock = Callable[[], int]
"""Wall time in ms since 1970."""


class Budget:
    """How long a request may still wait for Redis, over all its round trips."""

    __slots__ = ("left_s",)

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds


class Search(NamedTuple):
    """One KNN inside a scope.

    `live_at` makes it exhaustive: entries that live at that ms, none skipped, of the same history unless
    `any_history`.
    """

    identities: tuple[Identity, ...]
    vector: Vector
    live_at: int | None = None
    any_history: bool = False


class Tags(NamedTuple):
    """What an entry is found by besides its vector: digests."""

    identity: Identity
    model: str | None
    prompt_version: str | None
    attributes: list[str]
    sources: list[str]
    tags: list[str]


class NewEntry(NamedTuple):
    """A record with its index document; without a vector only the exact tier serves it.

    `superseded` are ids of the same question under a previous secret: their entries go.
    """

    record: Record
    tags: Tags
    vector: Vector | None
    superseded: tuple[str, ...]


class First(NamedTuple):
    """What the first round trip of a lookup brings."""

    records: list[Record | None]  # None: absent, or not believed
    embeddings: list[bytes | None]  # sealed, as they are kept
    number: int  # of the last invalidation


class Responses(Protocol):
    """The entries of the keyspace `responses`. One round trip per call, however many items."""

    @property
    def generation(self) -> Generation | None:
        """What the semantic tier runs on; None until Redis was reached."""

    async def records(
        self, keys: TenantKeys, entry_ids: Sequence[str], budget: Budget
    ) -> list[Record | None]:
        """Records in order; None for what is absent, expired or not believed.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def first(
        self, keys: TenantKeys, entry_ids: Sequence[str], embeddings: Sequence[str], budget: Budget
    ) -> First:
        """Records by id and embeddings by name, in order, and where the invalidations stand.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def nearest(
        self, keys: TenantKeys, searches: Sequence[Search], budget: Budget
    ) -> list[list[Candidate]]:
        """Candidates of each search, nearest first.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def put(
        self, keys: TenantKeys, entries: Sequence[NewEntry], budget: Budget
    ) -> list[SemcachedError | None]:
        """Write entries, each whole or not at all; the error of each that wasn't written.

        Raises:
            StoreUnavailableError: Redis did not answer in time: nothing is promised.
        """


class Embedder(Protocol):
    """Texts to vectors."""

    model: str
    revision: str
    dim: int | None
    """None until it is known: by the index that is served from, or by the first answer. Then it stays."""

    def unfit(self, text: str) -> str | None:
        """Why a text can't be told apart by its vector (`too_long`, …); None: it can."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, dim], each row of norm 1. A call with few texts doesn't wait for one with many.

        Raises:
            EmbedderError: it is away, slow, or answered no embeddings.
        """


class Verifier(Protocol):
    """Says whether two texts ask the same, better and slower than their vectors do."""

    version: str
    cut: float
    """Least score that may be served, where a policy has none of its own."""

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """0 to 1 for each pair (asked, cached); None: it is beyond the verifier (too long).

        Raises:
            VerifierError: it is busy or failed.
        """


class Rewriter(Protocol):
    """Rewrites the last message of a conversation so that it stands alone."""

    version: str
    """Changes with whatever makes it answer otherwise: model, instruction."""

    async def rewritten(self, messages: Sequence[Message], asked: str) -> str:
        """One line. `asked` is the last message's text.

        Raises:
            RewriterError: it is away, slow, or answered nothing usable.
        """


class Rewritings(Protocol):
    """Rewritten messages, kept for a while. One round trip per call."""

    async def read(self, keys: TenantKeys, names: Sequence[str], budget: Budget) -> list[str | None]:
        """Texts in order; None for what is absent or not believed.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def write(self, keys: TenantKeys, texts: Mapping[str, str], budget: Budget) -> None:
        """Keep texts by name; one that Redis refuses is made again next time.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """


class Policies(Protocol):
    """The policies of all tenants, in this process."""

    def of(self, keys: TenantKeys, agent_type: str) -> Policy | None:
        """An agent_type's policy; the default where none was set.

        None: one was set and can't be read, so that nobody knows what the semantic tier may serve.
        """


class Uses(Protocol):
    """What was used, where a policy bounds the number of entries. Only noted; what follows comes later."""

    def hit(self, tenant: Tenant, record: Record) -> None:
        """An entry was served."""

    def stored(self, tenant: Tenant, record: Record, bound: int) -> None:
        """An entry was stored, or may have been."""
