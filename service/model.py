"""The vocabulary: what goes over the wire, and what the layers hand each other.

Requests refuse unknown fields, so that a misspelt `treshold` is not ignored.
"""

import math
from enum import StrEnum
from typing import Annotated, Any, Literal, NewType, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Tenant = NewType("Tenant", str)
"""Who owns entries. Made in `service/api/auth.py` and nowhere else; a test holds that."""

MAX_BATCH = 256
DEFAULT_TTL_S = 86_400
MAX_TTL_S = 3_153_600_000  # a hundred years
TOOL_TTL_S = 300
IDENTIFIER_BYTES = 512

# Lengths are bytes of UTF-8, checked in cache/canonical.py; JSON Schema can only count characters.
Identifier = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_BYTES)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0)]
Threshold = Annotated[
    float, Meta(ge=-1, le=1, description="Least cosine similarity that may be served, -1 to 1.")
]


class Tier(StrEnum):
    """Where to look."""

    EXACT = "exact"
    SEMANTIC = "semantic"


class Origin(StrEnum):
    """Where an answer came from."""

    EXACT = "exact"
    SEMANTIC = "semantic"
    MEMORY = "memory"  # what the tier `exact` would have served, from this process


class Reason(StrEnum):
    """Why a lookup missed."""

    EMPTY = "empty"
    BELOW_THRESHOLD = "below_threshold"
    GUARD = "guard"
    POLICY = "policy"
    EXPLORE = "explore"
    DEGRADED = "degraded"


class History(StrEnum):
    """When a semantic candidate with another history may be served."""

    EXACT = "exact"
    STANDALONE = "standalone"
    REWRITE = "rewrite"


class Comparison(StrEnum):
    """How it is found out whether two answers are the same."""

    EQUAL = "equal"
    SIMILAR = "similar"
    JUDGE = "judge"


GuardName = Literal[
    "numbers", "dates", "units", "negation", "antonyms", "entities", "scope_words", "question", "verifier"
]
"""The guards that a policy can switch off; `history` has a setting of its own."""


class Head(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A verifier's last step, fitted to a tenant's own pairs by `semcached calibrate`."""

    version: Annotated[str, Meta(description="The weights it was fitted to; for others it isn't used.")]
    bias: Annotated[float, Meta(ge=-50, le=50, description="What is added to the logit.")]
    logit: Annotated[float, Meta(ge=0, le=50, description="Weight of the shipped score's logit.")]
    similarity: Annotated[float, Meta(ge=0, le=500, description="Weight of the cosine similarity.")]

    def score(self, shipped: float, similarity: float) -> float:
        """0 to 1, from the shipped score, 0 to 1."""
        shipped = min(max(shipped, 1e-9), 1 - 1e-9)
        logit = math.log(shipped / (1 - shipped))
        total = self.bias + self.logit * logit + self.similarity * similarity
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, total))))


Kind = Literal["creative", "time_sensitive", "personal"]
"""Kinds of questions that a policy can keep away from the cache; docs/policies.md has their rules."""

PatternText = Annotated[
    str,
    Meta(min_length=1, max_length=512, description="RE2, found anywhere in the last user message's text."),
]
Text = Annotated[str, Meta(min_length=1, max_length=512)]
Seconds = Annotated[float, Meta(ge=1, le=MAX_TTL_S)]


Mode = Literal["static", "adaptive", "verified"]
"""How it is decided whether what is near may be served."""


class TtlRule(Struct, frozen=True, forbid_unknown_fields=True):
    """How long answers to some questions live."""

    pattern: PatternText
    ttl_s: Annotated[Seconds | None, Meta(description="Seconds; null: no end.")]


class OwnPattern(Struct, frozen=True, forbid_unknown_fields=True):
    """Questions that a tenant names itself."""

    pattern: PatternText


class Admission(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which answers are stored. Truncated ones never are."""

    min_chars: Annotated[int, Meta(ge=1, le=2**20, description="Least length of the answer's text.")] = 1
    forbid: Annotated[
        list[Text], Meta(max_length=64, description="Texts, in any case, none of which may be in it.")
    ] = []
    require: Annotated[
        list[Text], Meta(max_length=64, description="Texts, in any case, all of which must be in it.")
    ] = []
    refusals: Annotated[bool, Meta(description="Whether refusals and errors are kept out.")] = True


class Policy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the questions of an agent_type are answered."""

    threshold: Annotated[
        Threshold | None, Meta(description="Least similarity that may be served; null: the generation's.")
    ] = None
    guards: Annotated[
        dict[GuardName, bool],
        Meta(
            description="Guards switched off or on; those absent are on.",
            extra_json_schema={"propertyNames": {"enum": list(get_args(GuardName))}},  # msgspec leaves it out
        ),
    ] = {}
    verifier_cut: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Least score of the verifier that may be served; null: the shipped one."),
    ] = None
    verifier_head: Annotated[
        Head | None, Meta(description="Fitted by `semcached calibrate`; null: the shipped one.")
    ] = None
    verifier_version: Annotated[
        str | None,
        Meta(description="The weights that verifier_cut was chosen with; for others it isn't used."),
    ] = None
    history: Annotated[
        History, Meta(description="When an answer given in another conversation may be served.")
    ] = History.EXACT
    ttl_s: Annotated[
        Seconds | None, Meta(description="How long answers live, less up to 5 %; null: no end.")
    ] = DEFAULT_TTL_S
    ttl_rules: Annotated[
        list[TtlRule],
        Meta(max_length=32, description="Other times for some questions; the first that matches."),
    ] = []
    max_age_s: Annotated[
        Seconds | None,
        Meta(description="No answer is served longer after it was first stored, whatever else is said."),
    ] = None
    tiers: Annotated[
        tuple[Tier, ...], Meta(min_length=1, max_length=2, description="What a request may use at most.")
    ] = tuple(Tier)
    max_temperature: Annotated[
        Amount | None, Meta(description="Requests above it are neither answered nor stored.")
    ] = None
    bypass: Annotated[
        list[Kind | OwnPattern],
        Meta(max_length=32, description="Questions that are neither answered nor stored."),
    ] = []
    admission: Annotated[Admission, Meta(description="Which answers are stored.")] = Admission()
    admit_after: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Stored from this attempt on, counted within a day.")
    ] = 1
    max_entries: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(description="How many entries there may be: beyond it the least recently used go; null: any."),
    ] = None
    mode: Annotated[
        Mode,
        Meta(
            description="`static`: the threshold; `adaptive`: one that follows verdicts; `verified`: entry "
            "by entry, by what is known of it."
        ),
    ] = "static"
    max_error_rate: Annotated[
        float,
        Meta(gt=0, le=0.5, description="Of mode `verified`: wrong answers of all requests, at most."),
    ] = 0.02
    threshold_bounds: Annotated[
        tuple[Threshold, Threshold] | None,
        Meta(description="Of mode `adaptive`: where it moves; null: 0.65 (without verifier 0.85) to 0.97."),
    ] = None
    comparison: Annotated[
        Comparison,
        Meta(description="How an answer that was made afresh is compared with the one there was."),
    ] = Comparison.SIMILAR
    shadow: Annotated[
        bool,
        Meta(description="Always miss, and note what would have been served, and whether it was right."),
    ] = False
    decisions_s: Annotated[
        int,
        Meta(ge=0, le=90 * 86_400, description="Seconds that a lookup's decision is kept; 0: not at all."),
    ] = 86_400
    review_sample_rate: Annotated[
        float, Meta(ge=0, le=1, description="Share of the hits that people are asked to judge.")
    ] = 0.0
    prompt_cache: Annotated[
        bool, Meta(description="Whether requests passed on are marked for the provider's prompt cache.")
    ] = False

    def guarded(self, name: GuardName) -> bool:
        """Whether a guard is on."""
        return self.guards.get(name, True)


TTL = Annotated[float, Meta(ge=1, le=MAX_TTL_S)]


class ToolPolicy(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a tool's results are kept."""

    tool: Annotated[Identifier, Meta(description="Its name.")]
    ttl_s: Annotated[TTL | None, Meta(description="Seconds a result is fresh; null: no end.")] = TOOL_TTL_S
    cacheable: Annotated[
        bool | None,
        Meta(description="Whether results are kept; null: unless its name says that it changes something."),
    ] = None
    ignore_arguments: Annotated[
        list[Identifier],
        Meta(max_length=64, description="Arguments at the top level that don't change the result."),
    ] = []
    stale_while_revalidate_s: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_TTL_S)],
        Meta(description="Seconds that a result is served after its end, while one caller refreshes it."),
    ] = 0


class Message(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """One message of a conversation, as chat APIs write it."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"], Meta(description="Who says it.")
    ]
    content: Annotated[
        str | list[dict[str, Any]] | None, Meta(description="Text, or blocks as the chat APIs have them.")
    ] = None
    name: Annotated[str | None, Meta(description="Which of several who have the role.")] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, Meta(description="Calls the assistant asks for.")] = (
        None
    )
    tool_call_id: Annotated[str | None, Meta(description="The call that a tool's message answers.")] = None


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
        Amount | None, Meta(description="Sampling temperature; part of the exact tier's id.")
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
        Meta(
            description="Seconds to wait for whoever makes the same answer already; 0: ask for the lease "
            "only. In a batch nobody waits."
        ),
    ] = None


class Usage(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What the answer cost when it was made."""

    input_tokens: Annotated[Count | None, Meta(description="Tokens of the question.")] = None
    output_tokens: Annotated[Count | None, Meta(description="Tokens of the answer.")] = None
    cost_usd: Annotated[Amount | None, Meta(description="Its price.")] = None
    latency_ms: Annotated[Amount | None, Meta(description="How long it took.")] = None


class StoreRequest(QueryFields, kw_only=True, forbid_unknown_fields=True):
    """A question with its answer."""

    response: Annotated[msgspec.Raw, Meta(description="The answer: any JSON, returned byte for byte.")]
    ttl_s: Annotated[
        Annotated[float, Meta(ge=1, le=MAX_TTL_S)] | UnsetType | None,
        Meta(
            description="Seconds to live, 1 to a hundred years; absent: the policy's (a day), null: no end."
        ),
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


EntryId = Annotated[
    str, Meta(description="32 hex characters; the same question in the same scope has the same.")
]
LookupId = Annotated[str, Meta(description="Names this lookup; give it to the store that follows a miss.")]
Similarity = Annotated[float, Meta(description="Cosine, -1 to 1; greater is closer.")]
Latency = Annotated[float, Meta(description="Time in the service, ms.")]


class Nearest(Struct, frozen=True):
    """The entry closest to a question that missed."""

    entry_id: EntryId
    similarity: Similarity


class JudgedCandidate(Struct, frozen=True):
    """A candidate of the semantic tier."""

    entry_id: EntryId
    similarity: Similarity
    rejected_by: Annotated[
        str | None,
        Meta(description="threshold, gone, scope, expired or a guard; null: it may be served."),
    ]
    verdicts: Annotated[
        dict[str, bool], Meta(description="What each guard that looked at it says; true: it may be served.")
    ] = {}
    verifier_score: Annotated[
        float | None, Meta(description="The verifier's, 0 to 1; null: it wasn't asked.")
    ] = None


class Decision(Struct, frozen=True):
    """How an answer came about."""

    tiers: Annotated[list[Tier], Meta(description="Where it was looked.")]
    threshold: Annotated[float, Meta(description="The threshold in force.")]
    policy: Annotated[
        Policy | None,
        Meta(description="The agent_type's policy in force, its defaults filled in; null: it can't be read."),
    ]
    generation: Annotated[int | None, Meta(description="The index generation in force.")]
    candidates: Annotated[list[JudgedCandidate], Meta(description="The semantic tier's, nearest first.")]
    stages_ms: Annotated[dict[str, float], Meta(description="Time per stage, of the whole batch, ms.")]
    asked: Annotated[
        str | None, Meta(description="The text that was looked up, perhaps rewritten; null: no plain text.")
    ] = None


class Hit(Struct, frozen=True, tag_field="outcome", tag="hit", kw_only=True):
    """An answer from the cache."""

    lookup_id: LookupId
    tier: Annotated[Origin, Meta(description="Where the answer came from.")]
    entry_id: EntryId
    response: Annotated[msgspec.Raw, Meta(description="The answer, byte for byte as it was stored.")]
    similarity: Similarity
    threshold: Annotated[float, Meta(description="The least similarity that was asked for.")]
    age_s: Annotated[float, Meta(description="Seconds since it was stored.")]
    expires_in_s: Annotated[float | None, Meta(description="Seconds left; null: no end.")]
    sources: Annotated[list[str], Meta(description="Documents the answer was built from.")]
    attributes: Annotated[dict[str, str], Meta(description="The scope's attributes.")]
    metadata: Annotated[msgspec.Raw, Meta(description="What was stored beside the answer, or null.")]
    latency_ms: Latency
    decision: Annotated[Decision | UnsetType, Meta(description="With `explain`: how it came about.")] = UNSET


class Miss(Struct, frozen=True, tag_field="outcome", tag="miss", kw_only=True):
    """No answer; the caller asks its LLM."""

    lookup_id: LookupId
    reason: Annotated[Reason, Meta(description="Why.")]
    rule: Annotated[str | UnsetType, Meta(description="Which guard or policy is behind the reason.")] = UNSET
    nearest: Annotated[Nearest | None, Meta(description="The closest entry, if any was found.")]
    lease: Annotated[bool, Meta(description="Whether others wait for this caller's store.")] = False
    latency_ms: Latency
    decision: Annotated[Decision | UnsetType, Meta(description="With `explain`: how it came about.")] = UNSET


class Stored(Struct, frozen=True, kw_only=True):
    """The entry is in the cache."""

    stored: Annotated[Literal[True], Meta(description="True.")]
    entry_id: EntryId
    tiers: Annotated[list[Tier], Meta(description="The tiers that will serve it.")]
    expires_in_s: Annotated[float | None, Meta(description="Seconds to live; null: no end.")]
    exact_only: Annotated[
        str | UnsetType,
        Meta(
            description="Why not by the semantic tier: too_long, unknown_characters, not_plain_text, policy, "
            "quarantined, explored."
        ),
    ] = UNSET


class Refused(Struct, frozen=True, kw_only=True):
    """The policy refused the answer."""

    stored: Annotated[Literal[False], Meta(description="False.")]
    reason: Annotated[str, Meta(description="The rule that refused it.")]


INVALIDATED = Refused(stored=False, reason="invalidated")
"""An invalidation that matches came after the lookup that the store follows."""


Embedding = tuple[str, str, int]
"""Whose vectors: model, revision, dimension."""

Datatype = Literal["float32", "float16", "bfloat16"]
"""What the numbers of an index's vectors are, little-endian."""


class Generation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the semantic tier runs on. Vectors of two models are never compared."""

    number: int
    index: str  # index names end with it
    space: str  # prefixes of index documents end with it
    model: str
    revision: str
    dim: int
    datatype: Datatype
    threshold: float
    placed: bool = False  # whether each vector has the place of its scope behind it (store/vectors.py)

    @property
    def embedding(self) -> Embedding:
        """Whose vectors these are."""
        return self.model, self.revision, self.dim


class Live(Struct, frozen=True, kw_only=True):
    """The generations whose documents a store writes and a deletion removes, as one migrates to the next.

    Kept in each partition; `number` rises whenever something changes.
    """

    number: int
    generations: tuple[Generation, ...]
    token: str = ""  # of the migrator that wrote it
    flat: tuple[str, ...] = ()  # their indexes that are no graphs: those are read, not walked


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
    messages: bytes | None  # the conversation as JSON, where there is more than the text
    response: bytes
    metadata: bytes
    sources: list[str]
    tags: list[str]
    usage: Usage | None
    embedding: tuple[str, str, int] | None  # model, revision, dimension; None: exact tier only
    stored_at: int
    expires_at: int | None
    standalone: str | None = None  # the question in words that need no history, where there is one
    first_stored_at: int | None = None  # when this answer came first; None: at stored_at
    exact_only: str | None = None  # why it answers its own words only; None: it doesn't, or is older


class Pointer(Struct, frozen=True, array_like=True, kw_only=True):
    """Which entry answered a question that has none of its own, as kept in Redis. Times in ms since 1970.

    Fields are kept by position: append only, each with a default.
    """

    name: str  # the question's entry id
    text: str  # digest of its words
    embedding: tuple[str, str, int]  # whose similarity it is: model, revision, dimension
    entry_id: str  # what was served
    stored_at: int  # when that was stored
    similarity: float
    verifier: str | None  # the weights that read it; None: nobody did
    score: float | None  # as they gave it, before a policy's head
    created_at: int


class Candidate(Struct, frozen=True):
    """What the KNN found: an id and how near."""

    entry_id: str
    similarity: float
    stored_at: int | None = None  # of its document, ms since 1970; None: it was found otherwise


class ToolCall(Struct, kw_only=True, forbid_unknown_fields=True):
    """A call of a tool: what its result depends on."""

    agent_type: Annotated[Identifier, Meta(description="Which kind of agent asks; a hard filter.")]
    tool: Annotated[Identifier, Meta(description="The tool's name.")]
    arguments: Annotated[
        msgspec.Raw,
        Meta(description='An object. Key order and number forms don\'t matter; 1 and "1" differ.'),
    ]
    version: Annotated[Identifier | None, Meta(description="The tool's version.")] = None
    wait_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)] | None,
        Meta(
            description="Seconds to wait for whoever makes the same call already; at a store it says nothing."
        ),
    ] = None


class ToolStoreRequest(ToolCall, kw_only=True, forbid_unknown_fields=True):
    """A call with its result."""

    result: Annotated[msgspec.Raw, Meta(description="Any JSON, returned byte for byte. No errors.")]
    ttl_s: Annotated[
        TTL | UnsetType | None,
        Meta(description="Seconds it is fresh; absent: the tool's policy's, null: no end."),
    ] = UNSET
    sources: Annotated[
        list[Identifier], Meta(max_length=256, description="Documents or rows the result was read from.")
    ] = []
    lookup_id: Annotated[
        Annotated[str, Meta(max_length=64)] | None, Meta(description="The miss this store follows.")
    ] = None


class ToolHit(Struct, frozen=True, tag_field="outcome", tag="hit", kw_only=True):
    """A result from the cache."""

    result: Annotated[msgspec.Raw, Meta(description="The result, byte for byte as it was stored.")]
    age_s: Annotated[float, Meta(description="Seconds since it was stored.")]
    expires_in_s: Annotated[float | None, Meta(description="Seconds it is fresh; null: no end.")]
    stale: Annotated[bool, Meta(description="Past its end; somebody was told to refresh it.")]
    sources: Annotated[list[str], Meta(description="Documents or rows the result was read from.")]


class ToolMiss(Struct, frozen=True, tag_field="outcome", tag="miss", kw_only=True):
    """No result; the caller runs the tool."""

    lookup_id: LookupId
    reason: Annotated[Reason, Meta(description="Why.")]
    rule: Annotated[
        str | UnsetType,
        Meta(description="cacheable, side_effects or unreadable: the policy's; stale: refresh it."),
    ] = UNSET
    lease: Annotated[bool, Meta(description="Whether others wait for this caller's store.")] = False


class ToolStored(Struct, frozen=True, kw_only=True):
    """The result is in the cache."""

    stored: Annotated[Literal[True], Meta(description="True.")]
    entry_id: EntryId
    expires_in_s: Annotated[float | None, Meta(description="Seconds it is fresh; null: no end.")]


class ToolRecord(Struct, frozen=True, array_like=True, kw_only=True):
    """A tool result, as kept in Redis. Times in ms since 1970.

    Fields are kept by position: append only, each with a default.
    """

    entry_id: str
    tenant: str  # digest
    agent_type: str
    tool: str
    version: str | None
    result: bytes  # JSON
    compressed: bool  # by zlib
    sources: list[str]
    stored_at: int
    fresh_until: int | None
    expires_at: int | None  # after which it isn't served even as stale
