"""What is asked: the names of the contract's fields, for type checkers. The service checks the values."""

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict

from semcached.model import Usage


class Query(TypedDict, total=False):
    """A question and everything that changes its answer: `prompt` or `messages`."""

    agent_type: Required[str]
    prompt: str
    messages: Sequence[Mapping[str, Any]]
    model: str | None
    system: str | None
    prompt_version: str | None
    temperature: float | None
    attributes: Mapping[str, str]
    params: Mapping[str, Any] | None
    tools: Sequence[Any] | None
    context: Any
    embedding: Sequence[float] | str | None


class Lookup(Query, total=False):
    """A question to the cache. `wait_s`: for whoever makes the same answer already."""

    tiers: Sequence[str] | None
    threshold: float | None
    explain: bool
    wait_s: float | None


class Store(Query, total=False):
    """A question with its answer. `ttl_s`: absent: the policy's; None: no end."""

    response: Required[Any]
    ttl_s: float | None
    sources: Sequence[str]
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    usage: Usage | Mapping[str, Any] | None
    lookup_id: str | None


class ToolCall(TypedDict, total=False):
    """A call of a tool: what its result depends on."""

    agent_type: Required[str]
    tool: Required[str]
    arguments: Required[Mapping[str, Any]]
    version: str | None


class ToolLookup(ToolCall, total=False):
    """`wait_s`: for whoever makes the same call already."""

    wait_s: float | None


class ToolStore(ToolCall, total=False):
    """A call with its result. `ttl_s`: absent: the tool's policy's; None: no end."""

    result: Required[Any]
    ttl_s: float | None
    sources: Sequence[str]
    lookup_id: str | None


class Similar(TypedDict):
    """Questions that mean about the same."""

    prompt: str
    threshold: float


class Where(TypedDict, total=False):
    """Which entries: all that is given must hold, and something must be given."""

    entry_id: str
    agent_type: str
    model: str
    prompt_version: str
    source: str
    tag: str
    attributes: Mapping[str, str]
    tool: str
    older_than_s: float
    prompt_regex: str
    similar_to: Similar


class GivenEmbedding(TypedDict):
    """A text and its vector: floats, or base64 of little-endian float32."""

    text: str
    embedding: Sequence[float] | str
