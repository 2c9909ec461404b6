"""The vocabulary: what goes over the wire, and what the layers hand each other.

Requests refuse unknown fields, so that a misspelt `treshold` is not ignored.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, NewType

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Tenant = NewType("Tenant", str)
"""Who owns entries. Made in `service/api/auth.py` and nowhere else; a test holds that."""

MAX_BATCH = 256
DEFAULT_TTL_S = 86_400
MAX_TTL_S = 315_360_000  # ten years
IDENTIFIER_BYTES = 512

# Lengths are bytes of UTF-8, checked in cache/canonical.py; JSON Schema can only count characters.
Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_BYTES)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
Threshold = Annotated[
    float, Meta(ge=-1, le=1, description="Least cosine similarity that may be served, -1 to 1.")
]


class Tier(StrEnum):
    """Where an answer came from."""

    EXACT = "exact"
    SEMANTIC = "semantic"


class Reason(StrEnum):
    """Why a lookup missed."""

    EMPTY = "empty"
    BELOW_THRESHOLD = "below_threshold"
    GUARD = "guard"
    POLICY = "policy"
    DEGRADED = "degraded"


class Message(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One message of a conversation, as chat APIs write it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class QueryFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked, and everything that changes its answer."""

    agent_type: Annotated[Identifier, Meta(description="Which kind of agent asks; a hard filter.")]
    prompt: Annotated[str | None, Meta(description="The question; short for one user message.")] = None
    messages: Annotated[
        list[Message] | None,
        Meta(description="The conversation instead of `prompt`; a leading system message is `system`."),
    ] = None
    model: Annotated[Identifier | None, Meta(description="The LLM that answers.")] = None
    system: Annotated[str | None, Meta(description="The system prompt.")] = None
    prompt_version: Annotated[Identifier | None, Meta(description="Your prompt's version.")] = None
    temperature: Annotated[
        Finite | None, Meta(description="Sampling temperature; part of the exact tier's id.")
    ] = None
    attributes: Annotated[
        dict[Identifier, Identifier],
        Meta(max_length=32, description="Names and values that must be equal for an answer to be shared."),
    ] = {}
    params: Annotated[dict[str, Any] | None, Meta(description="Anything else that changes the answer.")] = (
        None
    )
    tools: Annotated[list[Any] | None, Meta(description="Tool definitions the LLM is given.")] = None
    context: Annotated[Any, Meta(description="Retrieved passages, or their ids.")] = None
    embedding: Annotated[
        list[float] | str | None,
        Meta(
            description="The question's vector, which skips the embedder: floats, or base64 of "
            "little-endian float32."
        ),
    ] = None


class LookupRequest(QueryFields, kw_only=True, forbid_unknown_fields=True):
    """A question to the cache."""

    tiers: Annotated[
        Annotated[list[Tier], Meta(min_length=1)] | None, Meta(description="Where to look; both if absent.")
    ] = None
    threshold: Annotated[
        Threshold | None, Meta(description="Replaces the policy's threshold; guards still apply.")
    ] = None
    explain: Annotated[bool, Meta(description="Adds `decision` to the answer.")] = False
    wait_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)] | None,
        Meta(description="Reserved for leases: accepted, and nobody waits in this version."),
    ] = None


class Usage(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What the answer cost when it was made."""

    input_tokens: Annotated[int, Meta(ge=0)] | None = None
    output_tokens: Annotated[int, Meta(ge=0)] | None = None
    cost_usd: Annotated[float, Meta(ge=0)] | None = None
    latency_ms: Annotated[float, Meta(ge=0)] | None = None


class StoreRequest(QueryFields, kw_only=True, forbid_unknown_fields=True):
    """A question with its answer."""

    response: Annotated[msgspec.Raw, Meta(description="The answer: any JSON, returned byte for byte.")]
    ttl_s: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TTL_S)] | UnsetType | None,
        Meta(description="Seconds to live; absent: the policy's (a day), null: no end."),
    ] = UNSET
    sources: Annotated[
        list[Identifier], Meta(max_length=256, description="Documents the answer was built from.")
    ] = []
    tags: Annotated[list[Identifier], Meta(max_length=256, description="Names to find the entry by.")] = []
    metadata: Annotated[
        dict[str, Any] | None, Meta(description="Kept beside the answer and returned with it.")
    ] = None
    usage: Annotated[Usage | None, Meta(description="What making the answer cost.")] = None
    lookup_id: Annotated[
        Annotated[str, Meta(max_length=64)] | None, Meta(description="The miss this store follows.")
    ] = None


class Nearest(Struct, frozen=True):
    """The entry closest to a question that missed."""

    entry_id: str
    similarity: float


class JudgedCandidate(Struct, frozen=True):
    """A candidate of the semantic tier and what stopped it: null for the one served."""

    entry_id: str
    similarity: float
    rejected_by: str | None


class Decision(Struct, frozen=True):
    """How an answer came about (`explain`). Times in ms."""

    tiers: list[Tier]
    threshold: float
    generation: int | None
    candidates: list[JudgedCandidate]
    stages_ms: dict[str, float]


class Hit(Struct, frozen=True, tag_field="outcome", tag="hit", kw_only=True):
    """An answer from the cache."""

    lookup_id: str
    tier: Tier
    entry_id: str
    response: msgspec.Raw
    similarity: float
    threshold: float
    age_s: float
    expires_in_s: float | None
    sources: list[str]
    attributes: dict[str, str]
    metadata: msgspec.Raw
    latency_ms: float
    decision: Decision | UnsetType = UNSET


class Miss(Struct, frozen=True, tag_field="outcome", tag="miss", kw_only=True):
    """No answer; the caller asks its LLM. `rule` names the guard or policy behind the reason."""

    lookup_id: str
    reason: Reason
    rule: str | UnsetType = UNSET
    nearest: Nearest | None
    lease: bool = False
    latency_ms: float
    decision: Decision | UnsetType = UNSET


class Stored(Struct, frozen=True, kw_only=True):
    """An entry is in the cache. `exact_only` says why the semantic tier won't serve it."""

    stored: Literal[True]
    entry_id: str
    tiers: list[Tier]
    expires_in_s: float | None
    exact_only: str | UnsetType = UNSET


class Refused(Struct, frozen=True, kw_only=True):
    """A store that the policy refused; `reason` is its rule."""

    stored: Literal[False]
    reason: str


class Generation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the semantic tier runs on. Vectors of two models are never compared."""

    number: int
    index: str  # index names end with it
    space: str  # prefixes of index documents end with it
    model: str
    revision: str
    dim: int
    datatype: Literal["float32"]
    threshold: float


class Record(Struct, frozen=True, array_like=True, kw_only=True):
    """What a hit returns, as kept in Redis. Times in ms since 1970; answers are JSON bytes.

    Fields are kept by position: append only, each with a default.
    """

    entry_id: str
    tenant: str  # digest
    scope: str  # digest
    history: str  # digest
    agent_type: str
    model: str | None
    prompt_version: str | None
    temperature: float | None
    attributes: dict[str, str]
    text: str | None  # what is embedded: the last user message; None where it isn't plain text
    messages: list[Message] | None  # the conversation, where there is more than the text
    response: bytes
    metadata: bytes
    sources: list[str]
    tags: list[str]
    usage: Usage | None
    embedding: tuple[str, str, int] | None  # model, revision, dimension; None: exact tier only
    stored_at: int
    expires_at: int | None


class Candidate(Struct, frozen=True):
    """What the KNN found: an id and how near."""

    entry_id: str
    similarity: float
