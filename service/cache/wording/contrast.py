"""What two wordings share and what only one of them says."""

from functools import lru_cache
from typing import NamedTuple

from service.cache.wording.words import Word, Wording, once, stem

DIGITS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "ii": "2", "iii": "3"}

STOP = frozenset(
    stem(word)
    for word in (
        "a an the this that these those of in on at for to by with from as and or so then just there here "
        "is are "
        "was were be been being am do does did done doing has have had having can could will would shall "
        "should "
        "may might must i you he she it we they me my mine your our us please tell let get got go going "
        "want need "
        "like know help show give find explain what when where who whom whose which why how if also any "
        "some very "
        "really actually hi hello hey thanks thank about into out up im ok okay way ways it's s t its than "
        "but "
        "make made use used using possible"
    ).split()
)


class Contrast(NamedTuple):
    """Stems in one text only, and how many content words both have."""

    only_a: frozenset[str]
    only_b: frozenset[str]
    shared: int

    def rest(self, *besides: str) -> int:
        """How many content words one text has over the other, at most, leaving some aside."""
        a, b = (len(only - STOP - frozenset(besides)) for only in (self.only_a, self.only_b))
        return max(a, b)


@lru_cache(32)
def contrast(a: Wording, b: Wording) -> Contrast:
    """Made once for a pair: several guards look at it."""
    only_a, only_b = a.stems - b.stems, b.stems - a.stems
    if a.counts and b.counts:  # a word that one text has twice, the other once
        only_a |= (a.counts - b.counts).keys()
        only_b |= (b.counts - a.counts).keys()
    if only_a and only_b:
        short_a, short_b = abbreviated(a, b, only_a), abbreviated(b, a, only_b)
        only_a, only_b = only_a - short_a - short_b, only_b - short_a - short_b
    return Contrast(only_a, only_b, len((a.stems & b.stems) - STOP))


def abbreviated(a: Wording, b: Wording, only_a: frozenset[str]) -> frozenset[str]:
    """Short words of one text only, with the words of the other that they abbreviate: NYC, 2FA."""
    found: set[str] = set()
    for word in a.words:
        if 1 < len(word.fold) < 6 and word.stem in only_a and word.stem not in STOP:  # noqa: PLR2004 - NY, UNESCO
            at = initials(b).find(word.fold)
            if at >= 0:
                found |= {word.stem, *(other.stem for other in b.words[at : at + len(word.fold)])}
    return frozenset(found)


@once
def initials(text: Wording) -> str:
    """The first letter of each word; of a number's name its digit."""
    return "".join(DIGITS.get(word.fold, word.fold[0]) for word in text.words)


@once
def content(text: Wording) -> tuple[Word, ...]:
    """The words that carry the meaning, in order."""
    return tuple(word for word in text.words if word.stem not in STOP)
