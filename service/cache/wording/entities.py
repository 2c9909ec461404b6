"""Another name, code or address in the place of one; sides exchanged; letters that only look alike."""

import unicodedata
from collections.abc import Iterator
from itertools import islice

from service.cache.wording import roles
from service.cache.wording.contrast import STOP, contrast
from service.cache.wording.dates import DAYS, MONTHS, WEEKDAYS
from service.cache.wording.figures import SPELT
from service.cache.wording.places import exchanged, shared
from service.cache.wording.words import Word, Wording, once

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
OWN_KEYS = str.maketrans("ñçй", "ncи")
"""Letters that those type who leave accents out, and what is below them."""

PAST = ({"o", "ó"}, {"o", "ò"})
"""Endings of Spanish and Italian verbs: termino, I end | terminó, it ended."""

LEAST_PAST = 4
"""Letters beside such an ending."""

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

TYPED_LONG = 20
"""Letters up to which a word is held against others for typos."""

MOST_TYPED = 100
"""Pairs of words that are held against each other for typos; in what is more, a name is another name."""

MOST_MARKED = 100
"""Pairs of words that may differ in accents only."""


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
    mine, yours = _not_said(a, b), _not_said(b, a)
    if not (mine and yours):
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


def _not_said(text: Wording, other: Wording) -> list[Word]:
    """The names of a text that the other hasn't, however it spells them."""
    missing = [name for name in names(text) if name.stem not in other.stems]
    near = [(name.fold, _typed(other).get(name.fold[0], ())) for name in missing if name.kind == "word"]
    if sum(len(folds) for _, folds in near) > MOST_TYPED:
        return missing
    spelt = {one for one, folds in near if any(_misspelt(one, fold) for fold in folds)}
    return [name for name in missing if name.fold not in spelt]


@once
def _typed(text: Wording) -> dict[str, frozenset[str]]:
    """Words that may be typos of others, by their first letter."""
    found: dict[str, set[str]] = {}
    for word in text.words:
        if TYPED <= len(word.fold) <= TYPED_LONG:
            found.setdefault(word.fold[0], set()).add(word.fold)
    return {first: frozenset(folds) for first, folds in found.items()}


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
    begun = _begun(text)
    return any(name.fold[:BEGINNING] in begun for name in mine if name.kind == "word")


@once
def _begun(text: Wording) -> frozenset[str]:
    return frozenset(
        word.fold[:BEGINNING] for word in text.words if len(word.fold) >= BEGINNING and word.stem not in STOP
    )


def _misspelt(a: str, b: str) -> bool:
    """Whether two names differ by a typo: long enough, nearly the same letters."""
    shorter = min(len(a), len(b))
    if not TYPED <= shorter <= TYPED_LONG or abs(len(a) - len(b)) > 1 + shorter // TYPO:
        return False
    if any(char.isdigit() for char in a + b):
        return False
    most = max(1, shorter // TYPO)
    return _edits(a, b, most) <= most


def _edits(a: str, b: str, most: int) -> int:
    """Letters to insert, delete, replace, or exchange with the next one; counted up to `most`."""
    older: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        new = [i]
        for j, y in enumerate(b, start=1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                new[j] = min(new[j], older[j - 2] + 1)
        older, row = row, new
        if min(row) > most:
            break
    return max(row[-1], min(row))


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
    pairs = list(islice(_alike(a, b), MOST_MARKED + 1))
    if len(pairs) > 1 and not (_accented(a) and _accented(b)):  # one is typed without accents
        return True
    return len(pairs) <= MOST_MARKED and not any(_apart(one, other, a, b) for one, other in pairs)


def _alike(a: Wording, b: Wording) -> Iterator[tuple[str, str]]:
    """Words that differ in accents only: in their places, or in one text only."""
    if _flats(a) == _flats(b):
        pairs = zip(a.words, b.words, strict=True)
        return ((one.fold, other.fold) for one, other in pairs if one.fold != other.fold)
    mine, yours = {word.fold for word in a.words}, {word.fold for word in b.words}
    flat: dict[str, list[str]] = {}
    for word in yours - mine:
        flat.setdefault(_flat(word), []).append(word)
    return ((one, other) for one in mine - yours for other in flat.get(_flat(one), ()))


def _apart(one: str, other: str, a: Wording, b: Wording) -> bool:
    if frozenset((one, other)) in FOLDED_APART:
        return True
    if one.replace("ё", "е") == other.replace("ё", "е"):
        return False
    flat = _flat(one)
    if not flat.isascii():
        return not unicodedata.name(flat[0], "").startswith(OPTIONAL_MARKS)
    if {one[-1], other[-1]} in PAST and len(one) > LEAST_PAST:
        return True
    return bool(marked(a) - {one}) and bool(marked(b) - {other})


@once
def _flats(text: Wording) -> list[str]:
    return [_flat(word.fold) for word in text.words]


@once
def _accented(text: Wording) -> bool:
    """Whether a text has any accent; letters with keys of their own say nothing."""
    return any(_flat(bare) != bare for bare in (word.translate(OWN_KEYS) for word in marked(text)))


@once
def marked(text: Wording) -> frozenset[str]:
    """Words with letters that fold to others."""
    return frozenset(word.fold for word in text.words if not word.fold.isascii())


def _flat(word: str) -> str:
    """A word as an embedding model that drops accents sees it."""
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFD", word) if unicodedata.category(char) != "Mn")
