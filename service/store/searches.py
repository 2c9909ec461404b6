"""KNN queries to commands, and what comes back to candidates."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any

from service.cache.ports import Search
from service.model import Candidate, Generation
from service.store.client import Command
from service.store.forms import WALK, Forms, count
from service.store.keys import entry_id_of
from service.store.vectors import packed, similarity

PAGE = 10
EXHAUSTIVE_PAGE = 50
# RediSearch's own limit per query, within ours per request: a late answer would be thrown away.
SEARCH_TIMEOUT_MS = 200


class Searches:
    """What is asked of an index in one round trip: searches, and behind them how large their scopes are."""

    def __init__(self, searches: Sequence[Search], index: str, generation: Generation, forms: Forms) -> None:
        self._index, self._generation, self._forms = index, generation, forms
        parts = [_by_place(search, generation) for search in searches]
        self._counts = [len(each) for each in parts]  # commands of each search
        self._flat = [one for each in parts for one in each]
        self._chosen = [forms.form(index, one) for one in self._flat]
        self._scopes = forms.stale(index, self._flat) if generation.placed else []
        self.commands = [
            search_command(index, one, form, generation)
            for one, form in zip(self._flat, self._chosen, strict=True)
        ]
        self.commands += map(count, self._scopes)

    def doubt(self) -> None:
        """Redis did not answer."""
        self._forms.doubt(self._index, self._flat)

    def pages(self, replies: Sequence[Any]) -> list[list[Candidate] | Exception]:
        """Each search's candidates, nearest first, of the commands' replies; an error where one is."""
        self._forms.learn(self._scopes, replies[len(self._flat) :])
        told = zip(self._flat, self._chosen, replies, strict=False)
        self._forms.doubt(self._index, [one for one, form, reply in told if _is_short(form, reply)])
        rest = iter(replies)
        return [candidates(list(islice(rest, many)), self._generation) for many in self._counts]


def any_of(
    field: str, digests: Sequence[str], params: dict[str, str | bytes | int], named: str | None = None
) -> str:
    """A clause for entries that have one of the digests in a tag field; the digests go into `params`."""
    clause, names = _clause(field, named or field, len(digests))
    params.update(zip(names, digests, strict=True))
    return clause


@lru_cache(maxsize=256)
def _clause(field: str, named: str, count: int) -> tuple[str, list[str]]:
    names = [f"{named}{at}" for at in range(count)]
    return f"@{field}:{{{'|'.join('$' + name for name in names)}}}", names


def marks_clauses(marks: Sequence[Sequence[str]], params: dict[str, str | bytes | int]) -> list[str]:
    """A clause for each."""
    return [any_of("attribute", one, params, f"mark{at}_") for at, one in enumerate(marks)]


def _is_short(form: str, reply: Any) -> bool:
    """Whether a walk failed, or found less than a page."""
    return form == WALK and (not isinstance(reply, list) or len(reply) < 1 + 2 * PAGE)


def _by_place(search: Search, generation: Generation) -> list[Search]:
    """A scope lies elsewhere under another secret."""
    if not generation.placed:
        return [search]
    return [search._replace(identities=(one,)) for one in search.identities]


def search_command(index: str, search: Search, form: str, generation: Generation) -> Command:
    """KNN inside tenant, agent_type and scope; each under the current and the previous secret."""
    params: dict[str, str | bytes | int] = {
        "vector": packed(search.vector, search.identities[0].scope, generation)
    }
    clauses = [
        any_of("tenant", [one.tenant for one in search.identities], params),
        any_of("agent_type", [one.agent_type for one in search.identities], params),
        any_of("scope", [one.scope for one in search.identities], params),
        *marks_clauses(search.marks, params),
    ]
    page = max(PAGE, 2 * search.most)
    if search.live_at is not None:
        if not search.any_history:
            clauses.append(any_of("history", [one.history for one in search.identities], params))
        clauses.append("@expires_at:[$now inf]")
        params["now"] = search.live_at
        page = max(page, EXHAUSTIVE_PAGE)
    query = f"({' '.join(clauses)})=>[KNN {page} @vector $vector{form} AS distance]"
    named = [part for pair in params.items() for part in pair]
    return (
        *("FT.SEARCH", index, query, "PARAMS", len(named), *named),
        *("RETURN", 2, "distance", "stored_at", "LIMIT", 0, page, "TIMEOUT", SEARCH_TIMEOUT_MS, "DIALECT", 2),
    )


def candidates(replies: Sequence[Any], generation: Generation) -> list[Candidate] | Exception:
    """[total, key, [b"distance", d, b"stored_at", ms], key, nil, …] → nearest first.

    A document that expired has no fields.
    """
    near: list[tuple[float, bytes, bytes]] = []
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
        near += [
            (float(fields[1]), key, fields[3])
            for key, fields in zip(reply[1::2], reply[2::2], strict=True)
            if fields and fields[2:]
        ]
    near.sort(key=_distance)
    return [
        Candidate(entry_id_of(key), similarity(distance, generation), when(at)) for distance, key, at in near
    ]


_distance = itemgetter(0)


def when(told: bytes) -> int:
    """When a document was stored, in ms since 1970; what somebody else wrote there is no time of ours."""
    return int(told) if told.isdigit() else -1
