"""Symbols of units that only their case tells apart: mW and MW, Mb and MB."""

import re
from collections.abc import Sequence

from service.cache.wording.words import LONG, Word, Wording, once

NUMBER = r"(?:\d+(?:\.\d+)?)?"
PREFIXED = re.compile(NUMBER + "([mMpP])(?:W|Wh|g|Hz|hz|V|A|m|s|J|Pa|N|L|F|T|C|eV|Bq|Sv|Gy|mol)")
DATA = re.compile(NUMBER + "[KkMGTP]i?([bB])(?:ps)?")
EITHER = re.compile(PREFIXED.pattern + "|" + DATA.pattern.replace("[Kk", "[KkmgtP"), re.IGNORECASE)
WITH_NUMBER_ONLY = frozenset({"ms", "mm"})
"""Symbols that a capital makes something else where no number stands before: Ms Smith."""


def agree(a: Wording, b: Wording) -> bool:
    """Whether no symbol of one has another meaning in the other."""
    one, other = symbols(a), symbols(b)
    both = one.keys() & other.keys()
    if not both:
        return True
    if [word.fold for word in a.words] == [word.fold for word in b.words]:
        return all(x == y for fold in both for x, y in zip(one[fold], other[fold], strict=True) if x and y)
    return all(set(one[fold]) & set(other[fold]) for fold in both)


@once
def symbols(text: Wording) -> dict[str, list[str]]:
    """What each symbol means where it is written, by its small letters; "": nobody can say."""
    found: dict[str, list[str]] = {}
    others: list[str] = []
    for at, word in enumerate(text.words):
        if len(word.raw) < LONG and EITHER.fullmatch(word.raw):
            found.setdefault(word.fold.lstrip("0123456789."), []).append(_meaning(text.words, at))
        elif word.kind == "word":
            others.append(word.raw)
    careless = others and not any(raw.islower() for raw in others)  # then capitals say nothing
    return {} if careless else {fold: meant for fold, meant in found.items() if any(meant)}


def _meaning(words: Sequence[Word], at: int) -> str:
    """The prefix of a unit, or b or B: bits or bytes."""
    word = words[at]
    counted = word.kind == "code" or (at > 0 and words[at - 1].kind == "number")
    titled = word.raw[:1].isupper() and word.raw[1:].islower()
    if titled and not counted and (at == 0 or word.fold in WITH_NUMBER_ONLY):
        return ""
    found = PREFIXED.fullmatch(word.raw) or (not word.raw.islower() and DATA.fullmatch(word.raw))
    return found.group(1) if found else ""
