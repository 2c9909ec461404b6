"""What the service answers; /docs says what each field means. What a newer one adds is passed over."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from semcached.errors import Problem


class Nearest(Struct, frozen=True):
    """The entry closest to a question that missed."""

    entry_id: str
    similarity: float


class JudgedCandidate(Struct, frozen=True, kw_only=True):
    """A candidate of the semantic tier."""

    entry_id: str
    similarity: float
    rejected_by: str | None = None
    verdicts: dict[str, bool] = {}
    verifier_score: float | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """How an answer came about."""

    tiers: list[str]
    threshold: float
    policy: dict[str, Any] | None = None
    generation: int | None = None
    candidates: list[JudgedCandidate] = []
    stages_ms: dict[str, float] = {}
    asked: str | None = None


class Hit(Struct, frozen=True, tag_field="outcome", tag="hit", kw_only=True):
    """An answer from the cache."""

    lookup_id: str
    tier: str  # exact, semantic or memory
    entry_id: str
    response: Any
    similarity: float
    threshold: float
    age_s: float
    expires_in_s: float | None = None
    sources: list[str] = []
    attributes: dict[str, str] = {}
    metadata: Any = None
    latency_ms: float = 0.0
    decision: Decision | None = None


class Miss(Struct, frozen=True, tag_field="outcome", tag="miss", kw_only=True):
    """No answer. `lease`: others wait for this caller's store."""

    lookup_id: str
    reason: str
    rule: str | None = None
    nearest: Nearest | None = None
    lease: bool = False
    latency_ms: float = 0.0
    decision: Decision | None = None


class Failed(Struct, frozen=True, tag_field="outcome", tag="error"):
    """An item of a batch that failed by itself."""

    error: Problem


class Stored(Struct, frozen=True, kw_only=True):
    """It is in the cache. `exact_only`: why not for similar questions."""

    entry_id: str
    tiers: list[str] = []
    expires_in_s: float | None = None
    exact_only: str | None = None


class Refused(Struct, frozen=True, kw_only=True):
    """A rule keeps it out."""

    reason: str


class ToolHit(Struct, frozen=True, tag_field="outcome", tag="hit", kw_only=True):
    """A tool's result from the cache."""

    result: Any
    age_s: float
    expires_in_s: float | None = None
    stale: bool = False
    sources: list[str] = []


class ToolMiss(Struct, frozen=True, tag_field="outcome", tag="miss", kw_only=True):
    """No result; the caller runs the tool. `lease`: others wait for its store, or it is to refresh one."""

    lookup_id: str
    reason: str
    rule: str | None = None
    lease: bool = False


class ToolPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a tool's results are kept. `cacheable` None: unless its name says that it changes something."""

    tool: str
    ttl_s: float | None = 300
    cacheable: bool | None = None
    ignore_arguments: list[str] = []
    stale_while_revalidate_s: float = 0


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer cost when it was made."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """What is kept of an answer. Times as in RFC 3339."""

    entry_id: str
    agent_type: str
    prompt: str | None = None
    messages: Any = None
    standalone: str | None = None
    response: Any
    model: str | None = None
    prompt_version: str | None = None
    temperature: float | None = None
    attributes: dict[str, str] = {}
    sources: list[str] = []
    tags: list[str] = []
    metadata: Any = None
    usage: Usage | None = None
    stored_at: str
    expires_at: str | None = None
    exact_only: str | None = None


class Entries(Struct, frozen=True):
    """Entries, newest first; `cursor` is for the next page, None: there is none."""

    items: list[Entry]
    cursor: str | None = None


class Embedding(Struct, frozen=True):
    """A text's vector; `index` is the text's place among those asked for."""

    index: int
    embedding: list[float]


class EmbeddingsUsage(Struct, frozen=True):
    """Tokens of the texts that had to be computed."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class Embeddings(Struct, frozen=True):
    """Vectors in the order of the texts."""

    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage = EmbeddingsUsage()


class Recorded(Struct, frozen=True):
    """A verdict is kept."""

    recorded: bool
    entry_id: str
    quarantined: bool
    """Whether the entry was taken out for it."""


class Quality(Struct, frozen=True, kw_only=True):
    """The live false-hit rate of an agent_type, with its 95 % interval."""

    false_hit_rate: float | None
    low: float
    high: float
    basis: str
    hits: int
    verdicts: int
    wrong: int
    days: int


class Shadowed(Struct, frozen=True, kw_only=True):
    """What would have been served where a policy's `shadow` is on."""

    hits: int
    right: int
    wrong: int
    saved_usd: float


class Invalidated(Struct, frozen=True):
    """How many were found and removed, and ids of ten at most."""

    matched: int
    deleted: int
    sample: list[str] = []


class Rule(Struct, frozen=True):
    """What an event invalidates."""

    name: str
    event: str
    where: dict[str, Any]


class Fired(Struct, frozen=True):
    """What an event did."""

    rules: list[str]
    matched: int = 0
    deleted: int = 0


class TtlRule(Struct, frozen=True):
    """How long answers to questions live that a pattern is found in."""

    pattern: str
    ttl_s: float | None


class Admission(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which answers are stored."""

    min_chars: int = 1
    forbid: list[str] = []
    require: list[str] = []
    refusals: bool = True


class Policy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the questions of an agent_type are answered (docs/policies.md)."""

    threshold: float | None = None
    guards: dict[str, bool] = {}
    verifier_cut: float | None = None
    verifier_head: dict[str, Any] | None = None
    verifier_version: str | None = None
    history: str = "exact"
    ttl_s: float | None = 86_400
    ttl_rules: list[TtlRule] = []
    max_age_s: float | None = None
    tiers: Sequence[str] = ("exact", "semantic")
    max_temperature: float | None = None
    bypass: list[str | dict[str, str]] = []
    admission: Admission = Admission()
    admit_after: int = 1
    max_entries: int | None = None
    mode: str = "static"
    max_error_rate: float = 0.02
    threshold_bounds: tuple[float, float] | None = None
    comparison: str = "similar"
    shadow: bool = False
    decisions_s: int = 86_400
    review_sample_rate: float = 0.0
    prompt_cache: bool = False


class Latency(Struct, frozen=True, kw_only=True):
    """Percentiles, ms."""

    p50: float
    p90: float
    p99: float
    count: int


class Stores(Struct, frozen=True, kw_only=True):
    """What became of stores."""

    stored: int = 0
    refused: dict[str, int] = {}
    failed: int = 0


class Counted(Struct, frozen=True, kw_only=True):
    """What was counted of one keyspace."""

    requests: int = 0
    hits: dict[str, int] = {}
    hit_rate: float | None = None
    misses: dict[str, int] = {}
    rules: dict[str, int] = {}
    stores: Stores = Stores()
    latency_ms: dict[str, Latency] = {}
    entries: int | None = None


class Tokens(Struct, frozen=True, kw_only=True):
    """Saved, and spent on embeddings."""

    saved_input: int = 0
    saved_output: int = 0
    embedded: int = 0
    provider_cached: int = 0


class Money(Struct, frozen=True, kw_only=True):
    """Dollars."""

    saved_usd: float = 0.0
    spent_usd: float = 0.0
    provider_saved_usd: float = 0.0
    net_usd: float = 0.0
    unpriced_hits: int = 0
    unpriced_tokens: int = 0


class Short(Struct, frozen=True, kw_only=True):
    """An agent_type among others."""

    requests: int = 0
    hits: int = 0
    stored: int = 0
    saved_usd: float = 0.0
    spent_usd: float = 0.0


class Stats(Counted, frozen=True, kw_only=True):
    """Everything counted since `since`; first the figures of answers."""

    since: str | None = None
    tools: Counted = Counted()
    embeddings: Counted = Counted()
    stages_ms: dict[str, Latency] = {}
    tokens: Tokens = Tokens()
    money: Money = Money()
    prices: str = ""
    scopes: int | None = None
    bytes: int | None = None
    sampled: bool = False
    agent_types: dict[str, Short] | None = None
    quality: Quality | None = None
    shadow: Shadowed | None = None
    others: Short | None = None


class Health(Struct, frozen=True):
    """Whether the service answers from Redis; `reason` if not."""

    status: str
    reason: str | None = None

    @property
    def ready(self) -> bool:
        """Redis, the index and a warm embedder are usable."""
        return self.status == "ready"


Keyspace = Literal["responses", "tools", "embeddings"]
Cleared = Mapping[str, int]
"""Entries removed, by keyspace."""
