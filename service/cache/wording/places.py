"""Countries, states, cities, rivers: known without capitals, under all their names."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from service.cache.wording.words import Wording, once

SHORT = {
    "usa": "united states",
    "uk": "united kingdom",
    "nyc": "new york city",
    "uae": "united arab emirates",
    "dc": "district of columbia",
}
IN = frozenset({"in", "to", "from", "the"})
"""Words behind which "us" is the country."""


class Place(NamedTuple):
    """A name in a text; two names may mean the same place where they share a meaning."""

    words: frozenset[str]  # stems
    meanings: frozenset[int]


Names = Mapping[str, Mapping[tuple[str, ...], frozenset[int]]]
"""First word → names in words → meanings."""


@cache
def known() -> Names:
    """All places. The file is read when the first text is compared."""
    lines = files(__package__).joinpath("places.tsv").read_text("utf-8").splitlines()
    meanings: dict[str, set[int]] = {}
    for number, line in enumerate(lines):
        for name in () if line.startswith("#") else line.split("\t"):
            meanings.setdefault(name, set()).add(number)
    for short, name in SHORT.items():
        meanings.setdefault(short, set()).update(meanings.get(name, ()))
    found: dict[str, dict[tuple[str, ...], frozenset[int]]] = {}
    for name, numbers in meanings.items():
        words = tuple(name.replace("-", " ").split())
        found.setdefault(words[0], {})[words] = frozenset(numbers)
    return found


@once
def places(text: Wording) -> tuple[Place, ...]:
    """The places of a text, each by its longest name."""
    names = known()
    folds = [word.fold for word in text.words]
    found: list[Place] = []
    end = 0
    for at, word in enumerate(text.words):
        fold = "usa" if _states(text, at) else word.fold
        if at < end or fold not in names:
            continue
        options = [
            (name, numbers)
            for name, numbers in names[fold].items()
            if tuple(folds[at + 1 : at + len(name)]) == name[1:]
        ]
        if options:
            longest, numbers = max(options, key=lambda option: len(option[0]))
            end = at + len(longest)
            found.append(Place(frozenset(one.stem for one in text.words[at:end]), numbers))
    return tuple(found)


def _states(text: Wording, at: int) -> bool:
    """Whether a word is "US", or an "us" that can only be that."""
    word = text.words[at]
    if word.fold != "us":
        return False
    return (word.raw == "US" and text.cased) or (at > 0 and text.words[at - 1].fold in IN)


def exchanged(a: Wording, b: Wording) -> frozenset[str] | None:
    """The stems of places, where each text has one that the other lacks; None: not so."""
    mine, yours = places(a), places(b)
    if not (mine and yours):
        return None
    only_a, only_b = _only(mine, yours, b), _only(yours, mine, a)
    if not (only_a and only_b):
        return None
    return frozenset().union(*(place.words for place in (*only_a, *only_b)))


def shared(a: Wording, b: Wording) -> frozenset[str]:
    """The stems of places that both name, by whatever name."""
    mine, yours = places(a), places(b)
    both = [place.words | other.words for place in mine for other in yours if place.meanings & other.meanings]
    return frozenset().union(*both)


def _only(mine: tuple[Place, ...], yours: tuple[Place, ...], text: Wording) -> list[Place]:
    return [
        place
        for place in mine
        if not place.words <= text.stems and not any(place.meanings & other.meanings for other in yours)
    ]
