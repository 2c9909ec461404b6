"""What the decisions need from below; `store/` and `embedders/` fulfil it."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.cache.canonical import Identity, Vector
from service.cache.digests import DigestKey, TenantKeys
from service.cache.invalidation import Newer
from service.cache.learning.learned import Learned
from service.cache.tickets import Ticket
from service.errors import SemcachedError
from service.model import (
    Candidate,
    Generation,
    Message,
    Pointer,
    Policy,
    Record,
    Refused,
    Tenant,
    ToolPolicy,
    ToolRecord,
)

POINTER_BYTES = 512
"""What one takes in memory while it waits to be written."""

Clock = Callable[[], int]
"""Wall time in ms since 1970."""


class Budget:
    """How long a request may still wait for Redis, over all its round trips."""

    __slots__ = ("left_s",)

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds


class Work:
    """What answering a batch took; filled in on the way."""

    __slots__ = ("model", "stages_ms", "tokens", "waited_ms")

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}
        self.model = ""
        """Whose tokens they are."""
        self.tokens = 0
        """That an embeddings API counted."""
        self.waited_ms = 0.0
        """For another caller's answer."""


class Search(NamedTuple):
    """One KNN inside a scope.

    `live_at` makes it exhaustive: entries that live at that ms, none skipped, of the same history unless
    `any_history`.
    """

    identities: tuple[Identity, ...]
    vector: Vector
    live_at: int | None = None
    any_history: bool = False
    marks: Sequence[Sequence[str]] = ()  # digests of each of which one must be among its attributes'
    most: int = 1  # candidates that are wanted at least


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
    lookup: Ticket | None = None  # the one that it follows: an invalidation since then refuses it
    hidden: bool = False  # its vector isn't indexed yet: it answers its own words


class Sought(NamedTuple):
    """What a question wants to be read first."""

    entry_ids: Sequence[str]
    embedding: str | None = None  # its name
    pointed: bool = False  # whether the ids' pointers are wanted
    search: Search | None = None  # where its vector is known, and no record is expected


class First(NamedTuple):
    """What the first round trip of a lookup brings for a question."""

    records: list[Record | None]  # by id; None: absent, or not believed
    embedding: bytes | None  # sealed, as it is kept
    pointers: list[bytes | None] | None  # sealed, by id; None: not wanted
    near: list[Candidate] | None  # nearest first; None: not wanted, or it has to be searched anew


class Coming(NamedTuple):
    """An entry that is about to be stored."""

    entry_ids: tuple[str, ...]  # under each secret
    embedding: str | None  # the name of its text's vector, where that is wanted
    counted: bool  # whether attempts to store it are
    lookup: Ticket | None  # the one that it follows


class Found(NamedTuple):
    """What there is of an entry before it is stored."""

    records: list[Record | None]  # of each id
    embedding: bytes | None  # sealed
    attempts: int  # within a day, this one included; 1 where none is counted
    newer: Newer | None  # what was invalidated since its lookup; None: it names none
    quarantined: bool = False  # whether its answer was once wrong for another question


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
        self, keys: TenantKeys, sought: Sequence[Sought], budget: Budget
    ) -> tuple[list[First], int]:
        """What each question wants, in order, and the number of the last invalidation.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def before(self, keys: TenantKeys, coming: Sequence[Coming], budget: Budget) -> list[Found]:
        """What there is of each before it is stored, in order; an attempt is counted where that is wanted.

        Raises:
            StoreUnavailableError: Redis did not answer in time, or has no room to count.
        """

    async def nearest(
        self, keys: TenantKeys, searches: Sequence[Search], budget: Budget
    ) -> list[list[Candidate]]:
        """Candidates of each search, nearest first.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def marked(
        self, keys: TenantKeys, marks: Sequence[Sequence[str]], most: int, live_at: int, budget: Budget
    ) -> list[tuple[str, int]]:
        """Entries with one digest of each of `marks`, newest first, which live at that ms.

        Each is its id, and when its document was stored, in ms since 1970.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def put(
        self, keys: TenantKeys, entries: Sequence[NewEntry], budget: Budget
    ) -> list[SemcachedError | Refused | None]:
        """Write entries, each whole or not at all; why each wasn't written, or was taken back.

        Raises:
            StoreUnavailableError: Redis did not answer in time: nothing is promised.
        """


class Embedded(NamedTuple):
    """What an embedder gave."""

    rows: NDArray[np.float32]  # [n, dim], of whatever norm
    tokens: int  # as the provider counts them; the local model counts only in bulk


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

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        """The same, not normalised. In bulk: in as few requests to a provider as it takes.

        Raises:
            EmbedderError: as `embed`.
        """


class NewEmbedding(NamedTuple):
    """An embedding to keep."""

    keys: TenantKeys
    key: DigestKey  # what named it, and seals it
    model: str
    name: str
    raw: bytes  # little-endian float32, as it was given
    ttl_ms: int

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.raw)


class KeptEmbeddings(Protocol):
    """The keyspace `embeddings`."""

    async def read(self, keys: TenantKeys, names: Sequence[str], budget: Budget) -> list[bytes | None]:
        """Sealed embeddings in order.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    def opened(self, sealed: bytes | None, name: str, key: DigestKey) -> bytes | None:
        """What `key` sealed under that name; None: it isn't there, or isn't believed."""

    async def write(self, new: Sequence[NewEmbedding], budget: Budget) -> None:
        """Keep embeddings, each tenant's whole or not at all, in one round trip.

        Raises:
            StoreUnavailableError: some may not have been kept.
        """


class NewPointer(NamedTuple):
    """A pointer to keep."""

    keys: TenantKeys
    pointer: Pointer
    life_ms: int

    @property
    def name(self) -> str:
        """The question's entry id."""
        return self.pointer.name

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return POINTER_BYTES


class KeptPointers(Protocol):
    """Which entries answered questions that have none of their own."""

    def opened(self, sealed: bytes, name: str, key: DigestKey) -> Pointer | None:
        """What `key` sealed under that id; None: it isn't believed."""

    async def write(self, new: Sequence[NewPointer], budget: Budget) -> None:
        """Keep pointers, in one round trip.

        Raises:
            StoreUnavailableError: some may not have been kept.
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


class Judge(Protocol):
    """Says whether two answers to a question are the same."""

    version: str
    """Changes with whatever makes it answer otherwise: model, instruction."""

    @property
    def away(self) -> bool:
        """Whether it isn't asked now."""

    async def same(self, question: str, first: str, second: str) -> bool | None:
        """Its verdict; None: it can't say.

        Raises:
            JudgeAwayError: it isn't asked now.
            JudgeError: it failed, is slow or busy, or answered no verdict.
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


class LeaseBook(Protocol):
    """Leases: a token per id, for a while. One round trip per call but for `release`."""

    async def take(self, keys: TenantKeys, name: str, token: str, life_ms: int) -> bool:
        """Whether nobody had it.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def held(self, names: Sequence[tuple[TenantKeys, str]]) -> list[bool | None]:
        """Of each whether somebody has it; None: nobody. False: who had it said that nothing will come.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def release(self, keys: TenantKeys, name: str, token: str, *, refused: bool) -> None:
        """Give back a lease whose token this is.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """


class Policies(Protocol):
    """The policies of all tenants, in this process."""

    @property
    def learning(self) -> AbstractSet[tuple[Tenant, str]]:
        """Tenants and agent_types with a mode other than `static`."""

    def of(self, keys: TenantKeys, agent_type: str) -> Policy | None:
        """An agent_type's policy; the default where none was set.

        None: one was set and can't be read, so that nobody knows what the semantic tier may serve.
        """

    def tool(self, keys: TenantKeys, tool: str) -> ToolPolicy | None:
        """A tool's policy; the default where none was set; None: one was set and can't be read."""


class Learning(Protocol):
    """What outcomes say, in this process."""

    def of(self, keys: TenantKeys, agent_type: str) -> Learned | None:
        """What is known of an agent_type; None: nothing yet."""

    def threshold(self, keys: TenantKeys, agent_type: str, policy: Policy) -> float:
        """Of the mode `adaptive`; the highest that the policy allows where it isn't known yet."""


class NewTool(NamedTuple):
    """A tool result with what it is found by besides its id: digests."""

    record: ToolRecord
    agent_type: str
    tool: str
    sources: list[str]
    superseded: tuple[str, ...]  # its ids under a previous secret
    lookup: Ticket | None  # the one that it follows


class ToolResults(Protocol):
    """The entries of the keyspace `tools`. One round trip per call."""

    async def read(
        self, keys: TenantKeys, names: Sequence[str], budget: Budget
    ) -> tuple[list[ToolRecord | None], int]:
        """Results by id, None for what is absent or not believed; and the number of the last invalidation.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def before(
        self, keys: TenantKeys, names: Sequence[str], lookup: Ticket | None, budget: Budget
    ) -> tuple[list[ToolRecord | None], Newer | None]:
        """Results by id as `read` has them, and what was invalidated since the lookup.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """

    async def put(self, keys: TenantKeys, entry: NewTool, budget: Budget) -> bool:
        """Write it, whole or not at all, and give its lease back; False: it was invalidated meanwhile.

        Raises:
            StoreUnavailableError: Redis did not answer in time, or refuses: nothing is promised.
        """


class Reading(NamedTuple):
    """An entry that is being read to be kept in this process."""

    keys: TenantKeys
    entry_id: str


class Coherence(Protocol):
    """What keeps `cache.memory` true: reads what is to be kept, and is told of what changes."""

    def wake(self) -> None:
        """Somebody asks, and nobody knows what has changed: find out, and go on doing so while it is used."""

    def read(self, wanted: Reading) -> bool:
        """Whether it will be read, and `Memory.keep` told what it is, unless the connection is lost."""


class Uses(Protocol):
    """What was used, where a policy bounds the number of entries. Only noted; what follows comes later."""

    def hit(self, tenant: Tenant, record: Record) -> None:
        """An entry was served."""

    def stored(self, tenant: Tenant, record: Record, bound: int) -> None:
        """An entry was stored, or may have been."""
