"""The form of a KNN query, by how many entries its scope has.

RediSearch reads all of a small scope (ADHOC_BF), or walks the graph and keeps what is of the scope
(BATCHES). It chooses by the scope's share of the index, which at a million entries reads 30,000 vectors
for one query. We choose by number: whether a scope has MANY is asked in the round trip of its first search
and again when KNOWN_S have gone by; until it is known RediSearch chooses.
"""

from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic
from typing import Any

from service.cache.ports import Search
from service.store.client import Command

MANY = 6000
"""From here on the graph is cheaper than reading all, where scopes have places (vectors.py)."""
KNOWN_S = 60.0
MOST_SCOPES = 10_000
READ_ALL = " HYBRID_POLICY ADHOC_BF"
WALK = " HYBRID_POLICY BATCHES BATCH_SIZE 50 EF_RUNTIME 128"
UNKNOWN = ""

Scope = tuple[str, ...]
"""An index, and the digests of a scope under each secret."""


class Forms:
    """What this process was told of scopes; who was told of longest ago is forgotten."""

    def __init__(self, *, walks: bool = True) -> None:
        self.walks = walks
        """Whether the index is a graph."""
        self._many: OrderedDict[Scope, tuple[bool, float]] = OrderedDict()  # and when it was told

    def form(self, index: str, search: Search) -> str:
        """What stands behind the vector's name in the query."""
        if search.live_at is not None:  # exhaustive
            return READ_ALL
        if search.marks or not self.walks:  # few may have them, however many there are in the scope
            return UNKNOWN
        many, _ = self._many.get(_scope(index, search), (None, 0.0))
        return UNKNOWN if many is None else WALK if many else READ_ALL

    def stale(self, index: str, searches: Sequence[Search]) -> list[Scope]:
        """The scopes to ask for, again."""
        scopes = dict.fromkeys(
            _scope(index, one) for one in searches if one.live_at is None and not one.marks
        )
        now = monotonic()
        return [one for one in scopes if now - self._many.get(one, (None, -KNOWN_S))[1] >= KNOWN_S]

    def learn(self, scopes: Sequence[Scope], replies: Sequence[Any]) -> None:
        """What Redis said to `count` of each; an error says nothing."""
        now = monotonic()
        for scope, reply in zip(scopes, replies, strict=True):
            if isinstance(reply, list):
                self._many[scope] = (reply[0] >= MANY, now)
                self._many.move_to_end(scope)
        while len(self._many) > MOST_SCOPES:
            self._many.popitem(last=False)

    def doubt(self, index: str, searches: Sequence[Search]) -> None:
        """They failed, or found too little: their scopes are asked for anew.

        A walk ends when it has found enough: in a scope that lost its entries it goes through all the graph.
        """
        for one in searches:
            self._many.pop(_scope(index, one), None)


def count(scope: Scope) -> Command:
    """Asks for a page behind the first MANY, so that RediSearch counts no further: below 1 ms."""
    index, *digests = scope
    named = [part for at, digest in enumerate(digests) for part in (f"scope{at}", digest)]
    query = f"@scope:{{{'|'.join('$' + name for name in named[::2])}}}"
    return ("FT.AGGREGATE", index, query, "PARAMS", len(named), *named, "LIMIT", MANY, 1, "DIALECT", 2)


def _scope(index: str, search: Search) -> Scope:
    return (index, *(one.scope for one in search.identities))
