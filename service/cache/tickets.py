"""Lookup ids: what a store shows to say after which invalidation its lookup was made.

48 bits of the number of the tenant's last invalidation, 48 of the time in ms since 1970, 16 of the
process, 14 that count, 1 whether it was explored, 1 whether an answer to it is to be compared with one that
there is.
Whoever forges one only fools himself: a store without one isn't checked either.
"""

import itertools
import os
import random
from typing import NamedTuple

_NUMBER = 2**48
_WORD = 2**16
_chance = random.getrandbits(16)
_count = itertools.count(random.getrandbits(16))
SKEW_MS = 60_000
"""Without a number, since Redis was away, a lookup has that of a minute before: numbers follow clocks."""


class Ticket(NamedTuple):
    """When a lookup was made."""

    number: int  # of the last invalidation before it
    at: int  # ms since 1970


def issued(number: int, now: int, *, fresh: bool = False, explored: bool = False) -> str:
    """32 hex characters.

    Args:
        number: of the last invalidation.
        now: ms since 1970.
        fresh: the answer that follows is to be compared with one that there is.
        explored: it is, because that one might have been served.
    """
    count = next(_count) % (_WORD // 4) * 4 + 2 * explored + (fresh or explored)
    return f"{number % _NUMBER:012x}{now % _NUMBER:012x}{_process():04x}{count:04x}"


def is_fresh(lookup_id: str) -> bool:
    """Whether the answer that follows is to be compared with one that there is."""
    return lookup_id[-1:] in {"1", "3", "5", "7", "9", "b", "d", "f"}


def is_explored(lookup_id: str) -> bool:
    """Whether it is, and that one might have been served."""
    return lookup_id[-1:] in {"3", "7", "b", "f"}


def _process() -> int:
    """Forked ones have the same chance, and other numbers."""
    return (_chance + 40_503 * os.getpid()) % _WORD


def process_of(lookup_id: str) -> int:
    """The process that issued it, 16 bits."""
    return int(lookup_id[24:28], 16)


def is_own(lookup_id: str) -> bool:
    """Whether this process issued it."""
    return process_of(lookup_id) == _process()


def ticket(lookup_id: str) -> Ticket:
    """What a lookup id says; of one that isn't ours nothing is known, so it is older than everything."""
    try:
        value = int(lookup_id, 16) if len(lookup_id) == 32 else 0  # noqa: PLR2004 - hex characters
    except ValueError:
        value = 0
    number, at = value >> 80, (value >> 32) % _NUMBER
    return Ticket(number or max(0, at - SKEW_MS), at)
