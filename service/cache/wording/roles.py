"""Who does what to whom, as far as the order of words says it."""

from service.cache.wording.words import Word, Wording, once, stem


def turned(a: Wording, b: Wording, one: str, other: str) -> bool:
    """Whether the words around `one` in a stand the other way round about `other` in b."""
    mine, yours = _around(a, one), _around(b, other)
    return bool(mine[0] & yours[1] and mine[1] & yours[0])


def _around(text: Wording, pivot: str) -> tuple[frozenset[str], frozenset[str]]:
    stems = [word.stem for word in text.words]
    at = stems.index(pivot)
    before, after = frozenset(stems[:at]), frozenset(stems[at + 1 :])
    return before - after - _LITTLE, after - before - _LITTLE


_LITTLE = frozenset(
    map(stem, "a an the is are was were do does did of to in it and or i my has have be been".split())
)


@once
def ways(text: Wording) -> tuple[tuple[str, str], ...]:
    """From where to where, by the first word of each."""
    stems = [word.stem for word in text.words]
    found = []
    for at, one in enumerate(stems[:-1]):
        if one == "from":
            to = next(
                (place for place in range(at + 2, min(at + 6, len(stems) - 1)) if stems[place] == "to"), None
            )
            if to is not None:
                found.append((_first(stems, at + 1), _first(stems, to + 1)))
    return tuple(found)


def _first(stems: list[str], at: int) -> str:
    return stems[at + 1] if stems[at] in {"the", "a", "an", "my"} and at + 1 < len(stems) else stems[at]


@once
def _to_from(text: Wording) -> tuple[tuple[str, str], ...]:
    """To where from where: the other order."""
    stems = [word.stem for word in text.words]
    found = []
    for at, one in enumerate(stems[:-1]):
        if one == "from":
            to = next((place for place in range(at - 2, max(at - 6, -1), -1) if stems[place] == "to"), None)
            if to is not None:
                found.append((_first(stems, at + 1), _first(stems, to + 1)))
    return tuple(found)


def agree(a: Wording, b: Wording) -> bool:
    """Whether nothing says that the sides have changed places."""
    return not (_led_back(a, b) or _compared_back(a, b) or _done_back(a, b) or _done_back(b, a))


def _led_back(a: Wording, b: Wording) -> bool:
    """From A to B | from B to A."""
    mine, yours = (
        {*ways(a), *(_to_from(a) if not ways(a) else ())},
        {*ways(b), *(_to_from(b) if not ways(b) else ())},
    )
    return any(
        start != end and (end, start) in yours - mine and (start, end) not in yours for start, end in mine
    )


def _compared_back(a: Wording, b: Wording) -> bool:
    """A is cheaper than B | B is cheaper than A, where one of them is a name."""
    if "than" not in a.stems or a.stems - _LITTLE != b.stems - _LITTLE or denied(a, b):
        return False
    return turned(a, b, "than", "than") and any(_name(word) for word in a.words[1:])


def _name(word: Word) -> bool:
    return word.kind == "code" or word.raw[0].isupper()


def denied(a: Wording, b: Wording) -> bool:
    return "not" in a.stems ^ b.stems


def _done_back(a: Wording, b: Wording) -> bool:
    """Does A hate B | is A hated by B: who did it stands where it stood."""
    if "by" not in b.stems or "by" in a.stems or a.stems - _LITTLE != b.stems - _LITTLE - {"by"}:
        return False
    folds = [word.fold for word in b.words]
    at = folds.index("by")
    if (
        not folds[at - 1].endswith(("ed", "en", "n"))
        or not a.stems & {"do", "does", "did"}
        or not b.stems & _BEING
    ):
        return False
    mine, yours = ([word.stem for word in text.words if word.stem not in _LITTLE] for text in (a, b))
    yours.remove("by")
    return mine == yours


_BEING = frozenset(map(stem, "is are was were been be".split()))
