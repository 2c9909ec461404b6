"""What decorators take, checked where they are written: later it would only be logged."""

import math
from typing import Any

from msgspec import UNSET

SHORTEST_S, LONGEST_WAIT_S = 1.0, 60.0
"""The service's limits of `ttl` and `wait`."""


def checked_options(*, ttl: Any = UNSET, wait: Any = None, timeout_s: float = 1.0, sources: Any = ()) -> None:
    """Whether the service can take them.

    Raises:
        TypeError: one is of a wrong type.
        ValueError: a number is out of its range.
    """
    if ttl is not UNSET and ttl is not None:
        _number("ttl", ttl)
        if ttl < SHORTEST_S:
            raise ValueError(f"ttl: must be {SHORTEST_S:g} s or more, or None, not {ttl}")
    if wait is not None:
        _number("wait", wait)
        if not 0 <= wait <= LONGEST_WAIT_S:
            raise ValueError(f"wait: must be 0 to {LONGEST_WAIT_S:g} s, or None, not {wait}")
    _number("timeout_s", timeout_s)
    if timeout_s <= 0:
        raise ValueError(f"timeout_s: must be above 0, not {timeout_s}")
    if isinstance(sources, str):
        raise TypeError("sources: must be a list of names, or a function that makes one, not a text")


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: must be finite")
