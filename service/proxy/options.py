"""What a client can say to the cache beside a provider's request: headers that begin with X-Semcached-."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.cache.canonical import check_identifier
from service.errors import InvalidInputError
from service.model import MAX_TTL_S, Tier

PREFIX = "x-semcached-"
AGENT_TYPE = "default"


class Options(Struct, frozen=True, kw_only=True):
    """The headers' values; what is absent is the policy's."""

    agent_type: str = AGENT_TYPE
    attributes: dict[str, str] = {}
    threshold: float | None = None
    tiers: list[Tier] | None = None
    ttl_s: float | UnsetType | None = UNSET
    sources: list[str] = []
    tags: list[str] = []


def options(headers: Sequence[tuple[str, str]]) -> Options:
    """Of the headers that are ours; names in lower case.

    Raises:
        InvalidInputError: names the header.
    """
    found: dict[str, Any] = {}
    for name, value in headers:
        if name.startswith(PREFIX) and name != "x-semcached-key":
            known = _HEADERS.get(name)
            if known is None or known[0] in found:
                raise InvalidInputError(name, "is unknown" if known is None else "is given twice")
            found[known[0]] = known[1](name, value)
    return Options(**found)


def _text(header: str, value: str) -> str:
    """Percent-encoded UTF-8, 1 to 512 bytes."""
    try:
        text = unquote_to_bytes(value).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise InvalidInputError(header, "must be percent-encoded UTF-8") from None
    check_identifier(header, text)
    return text


def _texts(header: str, value: str) -> list[str]:
    """With commas between."""
    texts = [_text(header, one.strip()) for one in value.split(",")]
    if len(texts) > 256:  # noqa: PLR2004 - the contract's
        raise InvalidInputError(header, "has more than 256")
    return texts


def _pairs(header: str, value: str) -> dict[str, str]:
    """As a query string: `user=ann&plan=pro`."""
    try:
        pairs = parse_qsl(
            value, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32
        )
    except ValueError:
        raise InvalidInputError(
            header, "must be as `user=ann&plan=pro`, percent-encoded, 32 at most"
        ) from None
    for one in (part for pair in pairs for part in pair):
        check_identifier(header, one)
    if len(dict(pairs)) < len(pairs):
        raise InvalidInputError(header, "has a name twice")
    return dict(pairs)


def _tiers(header: str, value: str) -> list[Tier]:
    try:
        return [Tier(one.strip()) for one in value.split(",")]
    except ValueError:
        raise InvalidInputError(header, "must be `exact`, `semantic`, or both with a comma between") from None


def _threshold(header: str, value: str) -> float:
    return _number(header, value, -1, 1)


def _ttl(header: str, value: str) -> float | None:
    return None if value == "none" else _number(header, value, 1, MAX_TTL_S)


def _number(header: str, value: str, least: float, most: float) -> float:
    try:
        number = msgspec.convert(value, float, strict=False)
    except msgspec.ValidationError:
        number = float("nan")
    if not least <= number <= most:
        raise InvalidInputError(header, f"must be a number from {least} to {most}")
    return number


_HEADERS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    PREFIX + "agent-type": ("agent_type", _text),
    PREFIX + "attributes": ("attributes", _pairs),
    PREFIX + "threshold": ("threshold", _threshold),
    PREFIX + "tiers": ("tiers", _tiers),
    PREFIX + "ttl": ("ttl_s", _ttl),
    PREFIX + "sources": ("sources", _texts),
    PREFIX + "tags": ("tags", _texts),
}
"""Header → field, and what reads its value."""
