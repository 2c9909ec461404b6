"""Lookup ids: what a store shows to say after which invalidation its lookup was made.

48 bits of the number of the tenant's last invalidation, 48 of the time in ms since 1970, 16 of the
process, 16 that count.
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


def issued(number: int, now: int) -> str:
    """32 hex characters."""
    return f"{number % _NUMBER:012x}{now % _NUMBER:012x}{_process():04x}{next(_count) % _WORD:04x}"


def _process() -> int:
    """Forked ones have the same chance, and other numbers."""
    return (_chance + 40_503 * os.getpid()) % _WORD


def process_of(lookup_id: str) -> int:
    """The process that issued it, 16 bits."""
    return int(lookup_id[24:28], 16)


def ticket(lookup_id: str) -> Ticket:
    """What a lookup id says; of one that isn't ours nothing is known, so it is older than everything."""
    try:
        value = int(lookup_id, 16) if len(lookup_id) == 32 else 0  # noqa: PLR2004 - hex characters
    except ValueError:
        value = 0
    number, at = value >> 80, (value >> 32) % _NUMBER
    return Ticket(number or max(0, at - SKEW_MS), at)
