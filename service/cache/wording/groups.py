"""Words of which one stands where the other stood."""

from collections.abc import Mapping
from typing import NamedTuple

from service.cache.wording.contrast import contrast
from service.cache.wording.words import Wording, stem


class Place(NamedTuple):
    """A word's group, and which of its members it is: synonyms have the same."""

    group: int
    member: int


Index = Mapping[str, frozenset[Place]]


def index(groups: str) -> Index:
    """Lines of members parted by `|`, synonyms parted by `/`."""
    found: dict[str, set[Place]] = {}
    for group, line in enumerate(groups.strip().splitlines()):
        for member, words in enumerate(line.split("|")):
            for word in words.split("/"):
                found.setdefault(stem(word.strip()), set()).add(Place(group, member))
    return {word: frozenset(places) for word, places in found.items()}


def replaced(a: Wording, b: Wording, words: Index) -> list[tuple[str, str]]:
    """Pairs of a word of one text only and another word of its group of the other text only."""
    difference = contrast(a, b)
    mine = [word for word in difference.only_a if word in words]
    if not mine:
        return []
    yours: dict[int, set[str]] = {}
    for word in difference.only_b:
        for place in words.get(word, ()):
            yours.setdefault(place.group, set()).add(word)
    near = {(one, other) for one in mine for place in words[one] for other in yours.get(place.group, ())}
    return [(one, other) for one, other in near if exclusive(words[one], words[other])]


def exclusive(a: frozenset[Place], b: frozenset[Place]) -> bool:
    """Whether two words share a group, and are synonyms in none."""
    return not a & b and bool({place.group for place in a} & {place.group for place in b})
