"""What is invalidated: a predicate over entries, for those that are there and those still on their way."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from service.cache.canonical import Vector, check_identifier
from service.cache.patterns import LONGEST, compiled
from service.cache.tickets import Ticket
from service.errors import InvalidInputError
from service.model import Identifier, Message, Record, ToolRecord

LONGEST_READ = 16_384
"""Characters of a question that a pattern looks at."""

LARGEST = 400
"""Instructions of a pattern; the worst took 20 ns for each of them and each character: 0.13 s."""

MOST_WORK = 2_000_000
"""Instructions times characters, 0.04 s, that a store is held against the log's patterns for."""


class Keyspace(StrEnum):
    """Kinds of what is kept."""

    RESPONSES = "responses"
    TOOLS = "tools"
    EMBEDDINGS = "embeddings"


class Similar(Struct, frozen=True, forbid_unknown_fields=True):
    """Questions that mean about the same."""

    prompt: Annotated[str, Meta(min_length=1, description="What they are compared with.")]
    threshold: Annotated[float, Meta(ge=0, le=1, description="Least cosine similarity that matches.")]


class Where(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which entries: all that is given must hold; something must be given."""

    entry_id: Annotated[Identifier | None, Meta(description="One entry.")] = None
    agent_type: Annotated[Identifier | None, Meta(description="Which kind of agent asked.")] = None
    model: Annotated[
        Identifier | None, Meta(description="The LLM that answered; of embeddings, their model.")
    ] = None
    prompt_version: Annotated[Identifier | None, Meta(description="Your prompt's version.")] = None
    source: Annotated[Identifier | None, Meta(description="A document it was built from.")] = None
    tag: Annotated[Identifier | None, Meta(description="A tag it has.")] = None
    attributes: Annotated[
        Annotated[dict[Identifier, Identifier], Meta(min_length=1, max_length=32)] | None,
        Meta(description="Names and values, all of which it has."),
    ] = None
    tool: Annotated[Identifier | None, Meta(description="The tool whose result it is.")] = None
    older_than_s: Annotated[
        Annotated[float, Meta(ge=0, le=1e11)] | None, Meta(description="Stored longer ago than that.")
    ] = None
    prompt_regex: Annotated[
        Annotated[str, Meta(min_length=1, max_length=LONGEST)] | None,
        Meta(description="RE2 pattern that occurs in its question."),
    ] = None
    similar_to: Annotated[Similar | None, Meta(description="By meaning.")] = None


class Predicate(Struct, frozen=True, array_like=True, kw_only=True):
    """A `Where` as it is searched by, and kept in the log; without a criterion it matches everything.

    Fields are kept by position: append only, each with a default.
    """

    at: int  # when it was asked for, ms since 1970
    keyspaces: tuple[Keyspace, ...] = tuple(Keyspace)
    entry_id: str | None = None
    agent_type: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    source: str | None = None
    tag: str | None = None
    attributes: dict[str, str] | None = None
    tool: str | None = None
    older_than_ms: int | None = None
    prompt_regex: str | None = None
    vector: bytes | None = None  # of similar_to's prompt: little-endian float32, of norm 1
    threshold: float = 1.0
    embedding: tuple[str, str, int] | None = None  # whose vector that is: model, revision, dimension


class Subject(NamedTuple):
    """What is known of an entry. Its `vector` has norm 1; None: it has none."""

    keyspace: Keyspace
    entry_id: str | None = None
    agent_type: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    sources: Sequence[str] = ()
    tags: Sequence[str] = ()
    attributes: dict[str, str] = {}  # noqa: RUF012 - nobody writes to it
    tool: str | None = None
    text: str | None = None  # the question
    vector: Vector | None = None
    embedding: tuple[str, str, int] | None = None  # as in `Predicate`


class Newer(NamedTuple):
    """What was invalidated since a lookup."""

    predicates: list[Predicate]
    unknown: bool = False  # some of it nobody can read any more

    def refuses(self, subject: Subject, lookup: Ticket) -> bool:
        """Whether a store that follows the lookup comes too late, or it would take too long to see."""
        length = min(len(subject.text or ""), LONGEST_READ)
        patterns = (one.prompt_regex for one in self.predicates if one.prompt_regex is not None)
        work = length * sum(compiled("prompt_regex", one).size for one in patterns)
        if self.unknown or work > MOST_WORK:
            return True
        return any(matches(one, subject, lookup.at) for one in self.predicates)


NAMES = ("entry_id", "agent_type", "model", "prompt_version", "tool")
"""Criteria that a subject has as they are."""

TAGS = ("agent_type", "model", "prompt_version", "source", "tag", "attributes", "tool")
"""Criteria that indexes have digests of."""

_CRITERIA = {
    Keyspace.RESPONSES: {
        *("entry_id", "agent_type", "model", "prompt_version", "source", "tag", "attributes"),
        *("older_than_ms", "prompt_regex", "vector"),
    },
    Keyspace.TOOLS: {"entry_id", "agent_type", "source", "tool", "older_than_ms"},
    Keyspace.EMBEDDINGS: {"model", "older_than_ms"},
}
_ALL = (*NAMES, "source", "tag", "attributes", "older_than_ms", "prompt_regex", "vector")
_messages = msgspec.json.Decoder(list[Message])


def check(where: Where, field: str = "where") -> None:
    """Whether it can be searched by.

    Raises:
        InvalidInputError: names the field, below `field`.
    """
    if where == Where():
        raise InvalidInputError(
            field, "is empty: name what to invalidate; DELETE /v1/cache clears everything"
        )
    for name in (*NAMES, "source", "tag"):
        value = getattr(where, name)
        if value is not None:
            check_identifier(f"{field}.{name}", value)
    for pair in (where.attributes or {}).items():
        for value in pair:
            check_identifier(f"{field}.attributes", value)
    name = f"{field}.prompt_regex"
    if where.prompt_regex is not None and compiled(name, where.prompt_regex).size > LARGEST:
        raise InvalidInputError(name, "is too large: use smaller repetitions and classes")


def everywhere(where: Where) -> list[Keyspace]:
    """The keyspaces to look in where none is named. A vector doesn't go out of date."""
    return [one for one in Keyspace if one is not Keyspace.EMBEDDINGS or where.model is not None]


def predicate(
    where: Where,
    keyspaces: Sequence[Keyspace],
    at: int,
    vector: Vector | None = None,
    embedding: tuple[str, str, int] | None = None,
) -> Predicate:
    """A checked `Where` at a time in ms since 1970; `vector` is that of `similar_to`, `embedding` whose."""
    same = {name: getattr(where, name) for name in (*NAMES, "source", "tag", "attributes", "prompt_regex")}
    return Predicate(
        at=at,
        keyspaces=tuple(one for one in Keyspace if one in keyspaces),
        **same,
        older_than_ms=None if where.older_than_s is None else round(where.older_than_s * 1000),
        vector=None if vector is None else vector.astype("<f4").tobytes(),
        threshold=1.0 if where.similar_to is None else where.similar_to.threshold,
        embedding=embedding,
    )


def reaches(predicate: Predicate, keyspace: Keyspace) -> bool:
    """Whether anything in the keyspace can match: a criterion that it doesn't have matches nothing there."""
    return keyspace in predicate.keyspaces and _CRITERIA[keyspace].issuperset(_given(predicate))


def beyond_tags(predicate: Predicate) -> Predicate:
    """What is left of it once an index' tags have been asked."""
    return msgspec.structs.replace(predicate, **dict.fromkeys(TAGS))


def matches(predicate: Predicate, subject: Subject, at: int) -> bool:
    """Whether an entry is among what is invalidated.

    Args:
        predicate: what is invalidated.
        subject: what is known of the entry.
        at: when it was stored; of one on its way, when its lookup was made: ms since 1970.
    """
    return matcher(predicate, subject.keyspace)(subject, at)


def matcher(predicate: Predicate, keyspace: Keyspace) -> Callable[[Subject, int], bool]:
    """`matches` for many entries of a keyspace."""
    if not reaches(predicate, keyspace):
        return lambda _, __: False
    names = _given(predicate)
    return lambda subject, at: all(_met(name, predicate, subject, at) for name in names)


def _given(predicate: Predicate) -> list[str]:
    return [name for name in _ALL if getattr(predicate, name) is not None]


def _met(name: str, predicate: Predicate, subject: Subject, at: int) -> bool:
    value: Any = getattr(predicate, name)
    if name in NAMES:
        return bool(getattr(subject, name) == value)
    if name in ("source", "tag"):
        return value in (subject.sources if name == "source" else subject.tags)
    if name == "attributes":
        return bool(value.items() <= subject.attributes.items())
    if name == "older_than_ms":
        return bool(at <= predicate.at - value)
    if name == "prompt_regex":
        return subject.text is not None and compiled(name, value).matches(subject.text, LONGEST_READ)
    return _is_similar(predicate, subject)


def _is_similar(predicate: Predicate, subject: Subject) -> bool:
    """Vectors of two models can't be compared: then nobody knows, and the entry goes."""
    if subject.vector is None:
        return False
    if subject.embedding != predicate.embedding:
        return True
    other = np.frombuffer(predicate.vector or b"", "<f4").astype(np.float64)
    return bool(subject.vector.astype(np.float64) @ other >= predicate.threshold)


def question(text: str | None, messages: bytes | None) -> str | None:
    """What a pattern looks at: the last user message's text, also where there is more to it than text."""
    if text is not None or messages is None:
        return text
    asked = next(one.content for one in reversed(_messages.decode(messages)) if one.role == "user")
    if asked is None or isinstance(asked, str):
        return asked
    texts = [block.get("text") for block in asked]
    return "\n".join(one for one in texts if isinstance(one, str)) or None


def subject_of(record: Record, vector: Vector | None) -> Subject:
    """An entry of the keyspace `responses`."""
    return Subject(
        keyspace=Keyspace.RESPONSES,
        entry_id=record.entry_id,
        agent_type=record.agent_type,
        model=record.model,
        prompt_version=record.prompt_version,
        sources=record.sources,
        tags=record.tags,
        attributes=record.attributes,
        text=question(record.text, record.messages),
        vector=vector,
        embedding=record.embedding,
    )


def tool_subject(record: ToolRecord) -> Subject:
    """An entry of the keyspace `tools`."""
    return Subject(
        keyspace=Keyspace.TOOLS,
        entry_id=record.entry_id,
        agent_type=record.agent_type,
        sources=record.sources,
        tool=record.tool,
    )
