"""Request → canonical bytes → scope digest and entry id.

Canonical text serves ids only, never what is stored or embedded. Every encoding below is JSON with sorted
keys and a fixed number of parts, so two different requests can't have the same bytes.
"""

import binascii
import math
import unicodedata
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.cache.digests import DigestKey, TenantKeys
from service.errors import InvalidInputError
from service.model import IDENTIFIER_BYTES, Message, QueryFields

Vector = NDArray[np.float32]
"""[dim], of norm 1."""

Content = str | list[dict[str, Any]] | None
"""What a message holds: text, or blocks."""

LONGEST_TEXT = 8192
"""Characters that the semantic tier takes: comparing costs the whole service's time."""

COMMON_SCOPE = 1024
"""Bytes of a scope whose digest is remembered."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Identity(NamedTuple):
    """A query's digests under one secret."""

    entry_id: str
    tenant: str
    agent_type: str
    scope: str
    history: str


class Query(NamedTuple):
    """A question, ready to be looked up."""

    identities: tuple[Identity, ...]  # the current secret's first
    text: str | None  # what may be embedded; None: the exact tier only
    messages: list[Message] | None  # the conversation, where there is more than the text
    vector: Vector | None  # given by the caller
    agent_type: str
    marks: tuple[str, ...] = ()  # more digests that its entry is found by, beside those of its attributes


def text(value: str) -> str:
    """NFC, CRLF → LF, ends stripped."""
    return unicodedata.normalize("NFC", value).replace("\r\n", "\n").strip()


def query(request: QueryFields, keys: TenantKeys, dim: int | None) -> Query:
    """Check a request and give it its digests; `dim` is the generation's, if known.

    Raises:
        InvalidInputError: names the field.
    """
    _check_identifiers(request)
    system, messages = _conversation(request)
    at = _last_question(messages)
    asked = messages[at]
    turns = [_canonical(message) for message in messages]
    if not turns[at]["content"]:
        raise InvalidInputError(
            "prompt" if request.messages is None else "messages", "asks nothing: it is blank"
        )
    said, since = turns[:at], turns[at + 1 :]
    body = _encode(turns)
    history = _encode([said, since] if since else said) if said or since else b""
    parts = [request.model, system, request.prompt_version, request.attributes]
    open_parts = [request.params, request.tools, request.context]
    # The tenant is in the key of every digest; it stands here too, so that a scope says it.
    scope = _encode([keys.tenant, request.agent_type, *parts, *open_parts])
    plain = None if since else _plain_text(asked)
    return Query(
        identities=tuple(_identity(key, request, scope, body, history) for key in keys.keys),
        text=plain,
        messages=None if len(messages) == 1 and plain is not None else messages,
        vector=None if request.embedding is None else given_vector(request.embedding, dim),
        agent_type=request.agent_type,
    )


def conversation(messages: list[Message]) -> bytes:
    """The canonical bytes of a whole conversation."""
    return _encode([_canonical(message) for message in messages])


def _identity(key: DigestKey, request: QueryFields, scope: bytes, body: bytes, history: bytes) -> Identity:
    temperature = None if request.temperature is None else float(request.temperature)
    scope_digest = key.scope(scope) if len(scope) <= COMMON_SCOPE else key.digest("scope", scope)
    return Identity(
        entry_id=key.digest("entry", _encode([scope_digest, temperature]) + body),
        tenant=key.tenant,
        agent_type=key.agent_type(request.agent_type),
        scope=scope_digest,
        history=key.digest("history", history) if history else key.history,
    )


def _conversation(request: QueryFields) -> tuple[Content, list[Message]]:
    """The system prompt and the messages; `prompt` is one user message."""
    if (request.prompt is None) == (request.messages is None):
        raise InvalidInputError("prompt", "give either `prompt` or `messages`")
    if request.prompt is not None:
        return request.system, [Message(role="user", content=request.prompt)]
    messages = request.messages or []
    if messages and messages[0].role == "system" and _bare(messages[0]):
        if request.system is not None:
            raise InvalidInputError("system", "is given twice: here and as the first message")
        return _unwrapped(messages[0].content), messages[1:]
    return request.system, messages


def _last_question(messages: list[Message]) -> int:
    """Where the last user message stands."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user":
            return at
    raise InvalidInputError("messages", "has no user message")


def said(messages: list[Message]) -> list[str | None]:
    """What users and developers said before the last question; None for a message of more than text."""
    earlier = messages[: _last_question(messages)]
    return [_plain_text(one) for one in earlier if one.role in {"user", "system", "developer"}]


def asked(query: Query) -> str:
    """The last user message's text, as far as there is any."""
    if query.text is not None or query.messages is None:
        return query.text or ""
    content = query.messages[_last_question(query.messages)].content
    if isinstance(content, str) or content is None:
        return content or ""
    texts = (block.get("text") for block in content)
    return "\n".join(one for one in texts if isinstance(one, str))


def _plain_text(message: Message) -> str | None:
    """The text, if that is all there is to the message."""
    content = _unwrapped(message.content)
    return content if isinstance(content, str) and _bare(message) else None


def _bare(message: Message) -> bool:
    """Nothing but a role and what is said."""
    return message.name is None and message.tool_calls is None and message.tool_call_id is None


def _unwrapped(content: Content) -> Content:
    """One text block is its text; more blocks, or blocks of other kinds, are exactly what they are."""
    if isinstance(content, list) and len(content) == 1:
        (block,) = content
        inner = block.get("text")
        if block.keys() == {"type", "text"} and block["type"] == "text" and isinstance(inner, str):
            return inner
    return content


def _canonical(message: Message) -> dict[str, Any]:
    content: Any = _unwrapped(message.content)
    if isinstance(content, str):
        content = text(content)
    turn = {"role": message.role, "content": content}
    if not _bare(message):
        named = {"name": message.name, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
        turn |= {k: v for k, v in named.items() if v is not None}
    return turn


def check_identifier(field: str, value: str) -> None:
    """1 to 512 bytes of UTF-8, any characters.

    Raises:
        InvalidInputError: names `field`.
    """
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:  # a command's argument that was no UTF-8
        raise InvalidInputError(field, "is no UTF-8") from None
    if not 1 <= size <= IDENTIFIER_BYTES:
        raise InvalidInputError(field, f"must have 1 to {IDENTIFIER_BYTES} bytes of UTF-8")


def _check_identifiers(request: QueryFields) -> None:
    check_identifier("agent_type", request.agent_type)
    for field, value in (("model", request.model), ("prompt_version", request.prompt_version)):
        if value is not None:
            check_identifier(field, value)
    for name, value in request.attributes.items():
        check_identifier("attributes", name)
        check_identifier("attributes", value)


def given_vector(given: list[float] | str, dim: int | None) -> Vector:
    """A caller's vector, of norm 1.

    Raises:
        InvalidInputError: not base64, not finite, zero, or not of the index's dimension.
    """
    if isinstance(given, str):
        try:
            raw = binascii.a2b_base64(given, strict_mode=True)
        except (binascii.Error, ValueError):
            raise InvalidInputError("embedding", "is no base64") from None
        if len(raw) % 4:
            raise InvalidInputError("embedding", "is no whole number of float32 values")
        numbers = np.frombuffer(raw, "<f4")
    else:
        numbers = np.array(given, np.float64)
    if dim is not None and numbers.size != dim:
        raise InvalidInputError("embedding", f"has {numbers.size} values, the index {dim}")
    with np.errstate(all="ignore"):  # NaN, a signalling one, too, and infinity; told below
        values = numbers.astype(np.float64)
        norm = math.sqrt(square) if (square := float(values @ values)) >= 0 else square
    if not 1e-30 < norm < 1e30:  # noqa: PLR2004 - no float32 embedding is beyond; false for NaN
        raise InvalidInputError("embedding", "must be finite and not zero")
    return (values / norm).astype(np.float32)
