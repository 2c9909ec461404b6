"""Two answers in nearly the same words.

Stricter than the guards, which compare questions that a verifier reads afterwards: here nobody does. A word
in another's place may be its synonym or its opposite, and words in another order may tell of others who did
it, so both are taken for something else.
"""

import unicodedata

from service.cache.wording.entities import names
from service.cache.wording.language import ENGLISH, FOREIGN, foreign
from service.cache.wording.negation import LIKE_NOT, NOT
from service.cache.wording.opposites import opposites
from service.cache.wording.scope import GROUPS
from service.cache.wording.words import LONGEST, Word, Wording, once, stem

LITTLE = frozenset(
    stem(word)
    for word in (
        "a an the this that these those which is are be been being am do does has have having of in on at "
        "as and so just it its also please hi hello thanks thank really actually very okay "
        "ok s t"
    ).split()
)
"""English words that come and go without telling anything else."""

WEIGHTY = frozenset(
    stem(word)
    for word in (
        "may might must should shall could would can will was were had did if unless until till except "
        "excluding including almost nearly about approximately roughly around least most more less fewer up "
        "under over above below before after since while during sometimes often usually always rarely "
        "seldom partly some any all every each both either other another first last next or but to from by "
        "per between against i you we they he she him her them me us my your our his their"
    ).split()
)
"""Words that change what is told where one text has them and the other hasn't, beside the guards' own."""

MOST_ADDED = 1
"""Words that one text may have over the other: measured, see docs/learning.md."""


def readable(text: Wording) -> bool:
    """Whether a text is prose of which every word was read."""
    return bool(_told(text)) and len(text.words) < LONGEST and "```" not in text.text


def agree(a: Wording, b: Wording) -> bool:
    """Whether both tell the same in the same order, and one at most a word more.

    Of another language than English nobody knows the little words, nor the weighty ones: all are compared.
    """
    if _signs(a) != _signs(b):
        return False
    if _foreign(a) or _foreign(b) or not (_english(a) or _english(b)):
        return [word.fold for word in a.words] == [word.fold for word in b.words]
    mine, yours = sorted((_told(a), _told(b)), key=len)
    if len(yours) - len(mine) > MOST_ADDED:
        return False
    added = _added(mine, yours)
    known = {*names(a), *names(b)}
    return added is not None and not any(_weighs(word) or word in known for word in added)


@once
def _told(text: Wording) -> tuple[Word, ...]:
    return tuple(word for word in text.words if word.stem not in LITTLE)


def _english(text: Wording) -> bool:
    return any(word.fold in ENGLISH for word in text.words)


def _foreign(text: Wording) -> bool:
    return foreign(text.text) or any(word.fold in FOREIGN for word in text.words)


def _added(mine: tuple[Word, ...], yours: tuple[Word, ...]) -> list[Word] | None:
    """What the longer one has over the other; None: they differ otherwise, too."""
    left, added = iter(mine), []
    wanted = next(left, None)
    for word in yours:
        if wanted is not None and word.stem == wanted.stem:
            wanted = next(left, None)
        else:
            added.append(word)
    return added if wanted is None else None


def _weighs(word: Word) -> bool:
    """Whether a word tells of something: most of all what has an opposite, or others in its place."""
    if word.kind != "word" or word.fold in NOT:
        return True
    return any(word.stem in known for known in (WEIGHTY, LIKE_NOT, GROUPS, opposites()))


@once
def _signs(text: Wording) -> str:
    """Its symbols in order: operators, currencies, emoji."""
    return "".join(char for char in text.text if unicodedata.category(char)[0] == "S")
