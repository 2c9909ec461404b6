"""Whether a tool's name says that calling it changes something. For tools without a policy that says so."""

import re
from functools import lru_cache

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

READS = frozenset(
    """
    availability balance calculate check compare compute convert count describe details estimate exists fetch
    find forecast geocode get has history info is list load look lookup price query rate read report resolve
    retrieve search show status summarize summary total translate validate verify view
    """.split()
)
WRITES = frozenset(
    """
    add append approve archive assign buy cancel charge commit create delete deploy disable edit enable
    exchange exec execute insert install invite make merge modify notify pay post publish purchase push put
    reboot refund register reject remove rename rent replace reply request reserve reset restart restore
    revoke run save send set ship submit subscribe terminate think transfer trigger uninstall unlock
    unsubscribe update upload upsert withdraw write
    """.split()
)
NOUNS_TOO = frozenset({"book", "play", "schedule", "share"})
"""Verbs only where nothing in the name reads: `book_flight`, not `book_search` or `share_price`."""


@lru_cache(maxsize=1024)
def by_name(tool: str) -> bool:
    """Whether the first word that tells says that it writes: `slack_post_message`, `ReserveCar`."""
    words = [word.lower() for word in _WORD.findall(tool)]
    for word in words:
        if word in READS:
            return False
        if word in WRITES:
            return True
        if word in NOUNS_TOO:
            return not READS.intersection(words)
    return False
