"""What JSON gives back exactly as it was."""

import math
from typing import Any

import msgspec


def exact(value: Any) -> msgspec.Raw | None:
    """JSON of a value that comes back equal and of the same types; None of any other.

    A tuple would come back as a list, a key 1 as "1", NaN as null.
    """
    try:
        return msgspec.Raw(msgspec.json.encode(value)) if _plain(value) else None
    except (
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
    ):  # lone surrogates, a number of 5,000 digits, a cycle
        return None


def _plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(name) is str and _plain(inner) for name, inner in value.items())
    if kind is list:
        return all(map(_plain, value))
    if kind is float:
        return math.isfinite(value)
    return kind in _SCALARS


_SCALARS = frozenset({str, int, bool, type(None)})
