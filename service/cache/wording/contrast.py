"""What two wordings share and what only one of them says."""

from functools import lru_cache
from typing import NamedTuple

from service.cache.wording.words import Word, Wording, once, stem

STOP = frozenset(
    stem(word)
    for word in (
        "a an the this that these those of in on at for to by with from as and or so then just there here is are "
        "was were be been being am do does did done doing has have had having can could will would shall should "
        "may might must i you he she it we they me my mine your our us please tell let get got go going want need "
        "like know help show give find explain what when where who whom whose which why how if also any some very "
        "really actually hi hello hey thanks thank about into out up im ok okay way ways it's s t its than but "
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
    return Contrast(a.stems - b.stems, b.stems - a.stems, len((a.stems & b.stems) - STOP))


@once
def content(text: Wording) -> tuple[Word, ...]:
    """The words that carry the meaning, in order."""
    return tuple(word for word in text.words if word.stem not in STOP)
