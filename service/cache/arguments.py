"""A tool call's arguments → canonical bytes: key order and number forms don't matter, types do."""

from collections.abc import Collection
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from service.errors import InvalidInputError

SMALL = 10_000
"""Integers below it come again and again."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(raw: msgspec.Raw, ignored: Collection[str] = ()) -> bytes:
    """JSON with sorted keys and one form per number; `ignored` names are left out at the top level.

    Raises:
        InvalidInputError: it is no object.
    """
    try:
        arguments = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError) as error:
        raise InvalidInputError("arguments", f"is no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidInputError("arguments", "must be an object")
    return _encode({name: _form(value) for name, value in arguments.items() if name not in ignored})


def exact(raw: bytes | str) -> bytes:
    """Any JSON value as `canonical` writes it.

    Raises:
        ValueError: it is no JSON.
    """
    return formed(lossless(raw))


def lossless(raw: bytes | str) -> Any:
    """Any JSON value, decoded; fractions stay decimal.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None


def formed(value: Any) -> bytes:
    """What `lossless` gave, as `canonical` writes it.

    Raises:
        ValueError: it is too deep, or has a number that is none.
    """
    try:
        return _encode(_form(value))
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_form(inner) for inner in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -SMALL < value < SMALL:
        return msgspec.Raw(_small(value))
    if isinstance(value, int | Decimal):
        return msgspec.Raw(_number(Decimal(value)).encode())
    return value


@lru_cache(maxsize=4096)
def _small(value: int) -> bytes:
    return _number(Decimal(value)).encode()


def _number(value: Decimal) -> str:
    """Exact: 100, 1e2 and 100.0 are 1e2; floats would make one of numbers that differ in the 17th digit."""
    sign, digits, exponent = value.as_tuple()
    written = "".join(map(str, digits))
    kept = written.rstrip("0")
    if not kept or not isinstance(exponent, int):
        return "0"
    return f"{'-' if sign else ''}{kept.lstrip('0')}e{exponent + len(written) - len(kept)}"
