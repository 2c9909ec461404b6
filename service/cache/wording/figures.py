"""Numbers in digits and in words."""

from collections.abc import Sequence
from typing import NamedTuple

from service.cache.wording.words import Word, Wording, once

UNITS = {
    name: value
    for value, name in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen "
        "seventeen eighteen nineteen".split()
    )
}
TENS = {
    name: 10 * value
    for value, name in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "millions": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
SHORT_SCALES = {"k": 1000, "m": 10**6, "mn": 10**6, "bn": 10**9, "b": 10**9}
OTHERS = {"dozen": 12, "half": 0.5, "twice": 2, "thrice": 3, "couple": 2}
ORDINALS = {
    name: value
    for value, name in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
        "fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split(),
        start=1,
    )
}
ROMANS = {
    roman: value
    for value, roman in enumerate("II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI".split(), start=2)
}
NOT_COUNTED = frozenset(
    "which the this that no any every each another other good new right only some first next last wrong "
    "with".split()
)
SPELT = frozenset({*UNITS, *TENS, *SCALES, *OTHERS, *ORDINALS, *(roman.casefold() for roman in ROMANS)})
EXACT_DIGITS = 15


class Figure(NamedTuple):
    """A number and the words it takes; `value` is text where it is an id or a version."""

    value: float | str
    start: int
    end: int
    ordinal: bool = False


@once
def figures(text: Wording) -> tuple[Figure, ...]:
    """The numbers of a text, in order. Years and days are among them."""
    words = text.words
    if not any(word.kind == "number" or word.fold in SPELT for word in words):
        return ()
    found = []
    at = 0
    while at < len(words):
        figure = _figure(words, at)
        if figure is None:
            at += 1
        else:
            found.append(figure)
            at = figure.end
    return tuple(found)


def _figure(words: Sequence[Word], at: int) -> Figure | None:  # noqa: PLR0911 - one return per shape
    word = words[at]
    if word.kind == "number":
        return _digits(words, at)
    fold = word.fold
    if fold in UNITS or fold in TENS or (fold in SCALES and at and words[at - 1].fold == "a"):
        return _spelt(words, at) if fold != "one" or _counted(words, at) else None
    if fold in ORDINALS:
        return _ordinal(words, at)
    if fold in {"dozen", "twice", "thrice"} or (fold == "half" and _halves(words, at)):
        return Figure(OTHERS[fold], at, at + 1)
    if fold == "couple" and _next(words, at) == "of":
        return Figure(2, at, at + 2)
    if word.raw in ROMANS and at and words[at - 1].raw[:1].isupper() and word.raw not in {"V", "X"}:
        return Figure(ROMANS[word.raw], at, at + 1)
    return None


def _digits(words: Sequence[Word], at: int) -> Figure:
    raw = words[at].raw.replace(",", "").replace("⁄", "/")
    after = _next(words, at)
    if after in {"st", "nd", "rd", "th"}:
        return Figure(_value(raw), at, at + 2, ordinal=True)
    scale = SCALES.get(after) or SHORT_SCALES.get(after)
    money = at > 0 and words[at - 1].kind == "sign"
    if scale is None or (after in {"m", "b"} and not money):  # metres, bytes
        return Figure(_value(raw), at, at + 1)
    value = _value(raw)
    return Figure(value * scale if not isinstance(value, str) else value, at, at + 2)


def _value(raw: str) -> float | str:
    """What digits stand for; text where a float would lose some of it."""
    if len(raw) > EXACT_DIGITS or (raw[0] == "0" and len(raw) > 1 and "." not in raw and "/" not in raw):
        return raw
    above, _, below = raw.partition("/")
    try:
        return float(above) / float(below) if below else float(raw)
    except (ValueError, ZeroDivisionError, OverflowError):  # 1.2.3, 12:30, 1/0
        return raw


def _spelt(words: Sequence[Word], at: int) -> Figure:
    total, current, end = 0.0, 0.0, at
    while end < len(words):
        fold = words[end].fold
        if fold in SCALES:
            current = (current or 1) * SCALES[fold]
            if SCALES[fold] >= 1000:  # noqa: PLR2004 - two thousand | three hundred
                total, current = total + current, 0.0
        elif fold in TENS and current % 100 == 0:
            current += TENS[fold]
        elif fold in UNITS and _fits(current, UNITS[fold]) and (end == at or current or total):
            current += UNITS[fold]
        elif not (fold == "and" and (current >= 100 or total) and _next(words, end) in SPELT):  # noqa: PLR2004 - one hundred
            break
        end += 1
    value = total + current
    if [word.fold for word in words[end : end + 3]] == ["and", "a", "half"]:
        return Figure(value + 0.5, at, end + 3)
    return Figure(value, at, end)


def _fits(current: float, unit: int) -> bool:
    return current % 10 == 0 and (unit < 10 or current % 100 == 0)  # noqa: PLR2004 - twenty | one


def _ordinal(words: Sequence[Word], at: int) -> Figure | None:
    before = words[at - 1].fold if at else ""
    if words[at].fold == "second" and (
        words[at - 1].kind == "number" or before in {"per", "a", "each", "every", "one"}
    ):
        return None
    if words[at].fold == "first" and (not at or _next(words, at) in {"", "of", "and"}):
        return None
    return Figure(ORDINALS[words[at].fold], at, at + 1, ordinal=True)


def _counted(words: Sequence[Word], at: int) -> bool:
    """Whether "one" is a number here, not a pronoun."""
    before = words[at - 1].fold if at else ""
    after = _next(words, at)
    if not after:
        return before in {"for", "a", "to", "at", "of"}
    return before not in NOT_COUNTED and after not in {
        "of",
        "is",
        "can",
        "should",
        "that",
        "who",
        "to",
        "in",
        "for",
    }


def _halves(words: Sequence[Word], at: int) -> bool:
    return _next(words, at) in {"an", "a", "of", "the", "hour", "price", "day", "dozen"}


def _next(words: Sequence[Word], at: int) -> str:
    return words[at + 1].fold if at + 1 < len(words) else ""
