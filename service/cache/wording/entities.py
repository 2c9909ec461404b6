"""Another name, code or address in the place of one; sides exchanged; letters that only look alike."""

import unicodedata

from service.cache.wording import roles
from service.cache.wording.contrast import STOP, contrast
from service.cache.wording.dates import DAYS, MONTHS, WEEKDAYS
from service.cache.wording.figures import SPELT
from service.cache.wording.places import exchanged, shared
from service.cache.wording.words import LONG, Word, Wording, once

TWO_MEANINGS = frozenset("us it who aids polish turkey china".split())
"""Words that are another word with capitals."""

SHOUTED = 4
"""Letters up to which such a word is written all in capitals."""

FOLDED_APART = frozenset(
    map(
        frozenset,
        (("año", "ano"), ("años", "anos"), ("papá", "papa"), ("pêche", "peche"), ("schön", "schon")),
    )
)
OPTIONAL_MARKS = ("ARABIC", "HEBREW")
NO_NAMES = frozenset(
    {*MONTHS, *WEEKDAYS, *DAYS, *SPELT, "i", "ok", "hi", "hello", "please", "thanks", "faq", "pls"}
)
MOST_OTHER = 1
"""How many other content words may differ."""

BEGINNING = 4
"""Letters by which two names may be forms of one."""

TYPED = 4
"""Letters from which a typo is told from another name."""

TYPO = 6
"""Letters per edit of a typo; one edit is always allowed."""


def agree(a: Wording, b: Wording) -> bool:
    """Whether no name of one stands for another name of the other."""
    return (
        _same_letters(a, b)
        and _same_case(a, b)
        and roles.agree(a, b)
        and _same_places(a, b)
        and _same_names(a, b)
    )


def _same_places(a: Wording, b: Wording) -> bool:
    besides = exchanged(a, b)
    if besides is None:
        return True
    difference = contrast(a, b)
    return difference.rest(*besides) > MOST_OTHER


def _same_names(a: Wording, b: Wording) -> bool:
    mine = [name for name in names(a) if not _said(name, b)]
    if not mine:
        return True
    yours = [name for name in names(b) if not _said(name, a)]
    if not yours:
        return True
    difference = contrast(a, b)
    mine = [
        name for name in mine if name.stem in difference.only_a
    ]  # not what abbreviates words of the other
    yours = [name for name in yours if name.stem in difference.only_b]
    both = shared(a, b)
    if not ({name.stem for name in mine} - both and {name.stem for name in yours} - both):
        return True
    if _short(mine, b) or _short(yours, a):
        return True
    besides = {word.stem for word in (*mine, *yours)}
    return difference.rest(*besides) > MOST_OTHER or difference.shared == 0


def _said(name: Word, text: Wording) -> bool:
    """Whether a text has a name, however it spells it."""
    return name.stem in text.stems or (
        name.kind == "word" and any(_misspelt(name.fold, word.fold) for word in text.words)
    )


@once
def names(text: Wording) -> tuple[Word, ...]:
    """What is certainly a name: capitals inside a cased text, codes, addresses."""
    return tuple(
        word
        for at, word in enumerate(text.words)
        if word.kind in {"code", "address"} or (text.cased and word.kind == "word" and _capital(at, word))
    )


def _capital(at: int, word: Word) -> bool:
    if word.fold in NO_NAMES or word.stem in STOP or not word.raw[0].isupper() or len(word.raw) == 1:
        return False
    return at > 0 or word.raw.isupper() or word.raw[1:] != word.fold[1:]


def _short(mine: list[Word], text: Wording) -> bool:
    """Whether a name and a word of the other text begin alike: Franco | Franconian, Corp | Corporation."""
    return any(
        name.fold[:BEGINNING] == word.fold[:BEGINNING]
        for name in mine
        if name.kind == "word"
        for word in text.words
        if len(word.fold) >= BEGINNING and word.stem not in STOP
    )


def _misspelt(a: str, b: str) -> bool:
    """Whether two names differ by a typo: long enough, nearly the same letters, the same first one."""
    if a == b:
        return True
    shorter = min(len(a), len(b))
    if not TYPED <= shorter < LONG or abs(len(a) - len(b)) > 1 + shorter // TYPO or a[0] != b[0]:
        return False
    if any(char.isdigit() for char in a + b):
        return False
    return _edits(a, b) <= max(1, shorter // TYPO)


def _edits(a: str, b: str) -> int:
    """Letters to insert, delete, replace, or exchange with the next one."""
    older: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        new = [i]
        for j, y in enumerate(b, start=1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                new[j] = min(new[j], older[j - 2] + 1)
        older, row = row, new
    return row[-1]


def _same_case(a: Wording, b: Wording) -> bool:
    """US | us: where both write capitals as sentences do, capitals mean something."""
    if not (a.cased and b.cased and a.stems & TWO_MEANINGS & b.stems):
        return True
    if not (_sentence(a) and _sentence(b)):
        return True
    return all(_cases(a, word) == _cases(b, word) for word in a.stems & TWO_MEANINGS & b.stems)


def _sentence(text: Wording) -> bool:
    return bool(text.words) and text.words[0].raw[:1].isupper()


def _cases(text: Wording, fold: str) -> bool:
    """Whether a word is a name here; at the beginning only all capitals say so."""
    return any(
        word.fold == fold
        and (word.raw.isupper() if len(fold) <= SHOUTED else at > 0 and word.raw[0].isupper())
        for at, word in enumerate(text.words)
    )


def _same_letters(a: Wording, b: Wording) -> bool:
    """Accents: another word where both texts write them, and always in scripts that need them."""
    if not (marked(a) or marked(b)):
        return True
    only_a = {word.fold for word in a.words} - {word.fold for word in b.words}
    only_b = {word.fold for word in b.words} - {word.fold for word in a.words}
    flat: dict[str, list[str]] = {}
    for word in only_b:
        flat.setdefault(_flat(word), []).append(word)
    pairs = [(one, other) for one in only_a for other in flat.get(_flat(one), ())]
    return len(pairs) > 1 or not any(
        _apart(one, other, a, b) for one, other in pairs
    )  # several: no accents typed


def _apart(one: str, other: str, a: Wording, b: Wording) -> bool:
    if frozenset((one, other)) in FOLDED_APART:
        return True
    if one.replace("ё", "е") == other.replace("ё", "е"):
        return False
    if not _flat(one).isascii():
        return not unicodedata.name(_flat(one)[0], "").startswith(OPTIONAL_MARKS)
    return bool(marked(a) - {one}) and bool(marked(b) - {other})


@once
def marked(text: Wording) -> frozenset[str]:
    """Words with letters that fold to others."""
    return frozenset(word.fold for word in text.words if not word.fold.isascii())


def _flat(word: str) -> str:
    """A word as an embedding model that drops accents sees it."""
    return "".join(char for char in unicodedata.normalize("NFD", word) if unicodedata.category(char) != "Mn")
