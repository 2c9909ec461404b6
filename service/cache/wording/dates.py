"""Days, months, years, times of day: another one in its place."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from service.cache.wording.contrast import contrast
from service.cache.wording.figures import ORDINALS, figures
from service.cache.wording.words import Word, Wording, once, stem

MONTHS = {
    name: value
    for value, names in enumerate(
        "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sept sep|"
        "october oct|november nov|december dec".split("|"),
        start=1,
    )
    for name in names.split()
}
WEEKDAYS = {
    name: value
    for value, names in enumerate(
        "monday mon mondays|tuesday tue tues tuesdays|wednesday wed wednesdays|thursday thu thur thurs "
        "thursdays|"
        "friday fri fridays|saturday sat saturdays|sunday sun sundays".split("|")
    )
    for name in names.split()
}
DAYS = {"today": 0, "tonight": 0, "tomorrow": 1, "tomorrows": 1, "yesterday": -1}
PARTS = {
    "morning": 1, "mornings": 1, "noon": 2, "midday": 2, "afternoon": 2, "afternoons": 2,
    "evening": 3, "evenings": 3, "night": 3, "nights": 3, "tonight": 3, "midnight": 3,
}  # fmt: skip
SEASONS = {"spring": 1, "summer": 2, "autumn": 3, "fall": 3, "winter": 4}
QUARTERS = {"q1": 1, "q2": 2, "q3": 3, "q4": 4}
NAMED = {"month": MONTHS, "weekday": WEEKDAYS, "day": DAYS, "part": PARTS, "season": SEASONS}
DOUBTFUL = frozenset("may march mar mon sat sun wed fri jan dec".split())
"""Names of dates only beside a number, or where they are written with a capital inside a cased text."""

NUMERIC = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{2,4})")
SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})")
CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::\d\d)?")
DECADE = re.compile(r"(\d\d)?(\d0)s")
DAYS_OF_MONTH = range(1, 32)
YEARS = range(1000, 2101)
NEAR_YEAR = frozenset(
    "in since of by from until till to year after before during around early late mid season for".split()
)


DATED = frozenset(
    stem(word) for word in (*MONTHS, *WEEKDAYS, "tomorrow", "yesterday") if word not in DOUBTFUL
)
"""Words that make a question one about another time than now."""

ADDED_OTHER = 0
"""How many other content words may differ beside a date that one text has."""


class Dates(NamedTuple):
    """What a text says of time. A day or a time of day that can be read in two ways has both."""

    kinds: Mapping[str, frozenset[int]]
    days: tuple[frozenset[tuple[int, int]], ...]
    clocks: tuple[frozenset[int], ...]  # minutes since midnight
    used: frozenset[int]  # the words that are no numbers of anything else


def agree(a: Wording, b: Wording) -> bool:
    """Whether no date of one stands for another date of the other."""
    one, other = dates(a), dates(b)
    if one is None or other is None:
        return not _added(a, b, one or other)
    if any(
        values - other.kinds.get(kind, values) and other.kinds[kind] - values
        for kind, values in one.kinds.items()
    ):
        return False
    return _meet(one.days, other.days) and _meet(one.clocks, other.clocks)


def _added(a: Wording, b: Wording, said: Dates | None) -> bool:
    """Whether only one text has a date, of another time than now, and else they say the same."""
    if said is None or a.repaired or b.repaired:
        return False
    difference = contrast(a, b)
    only = difference.only_a | difference.only_b
    added = only & DATED | {one for one in only if one.isdecimal() and len(one) == 4}  # noqa: PLR2004 - years
    return bool(added) and difference.rest(*added) <= ADDED_OTHER


def _meet(a: tuple[frozenset[object], ...], b: tuple[frozenset[object], ...]) -> bool:
    """Whether not both have one that the other hasn't."""
    only_a = [one for one in a if not any(one & other for other in b)]
    return not only_a or not b or all(any(one & other for other in a) for one in b)


@once
def dates(text: Wording) -> Dates | None:
    """What a text says of time; None: nothing."""
    kinds: dict[str, set[int]] = {}
    days: list[frozenset[tuple[int, int]]] = []
    clocks: list[frozenset[int]] = []
    used: set[int] = set()
    for at, word in enumerate(text.words):
        for kind, value in _named(text, at, word):
            kinds.setdefault(kind, set()).add(value)
        if word.fold in MONTHS and _certain(text, at):
            days += _day(text, at, used)
        elif word.kind == "number":
            found, clock = list(_numeric(word.raw, kinds)), list(_clock(text, at))
            days, clocks = days + found, clocks + clock
            used |= {at} if found or clock else set()
    if not (kinds or days or clocks):
        return None
    known = {kind: frozenset(values) for kind, values in kinds.items()}
    return Dates(known, tuple(days), tuple(clocks), frozenset(used))


def _named(text: Wording, at: int, word: Word) -> Iterator[tuple[str, int]]:
    fold = word.fold
    if word.kind == "number":
        yield from _year(text, at)
    elif word.kind == "code":
        decade = DECADE.fullmatch(fold)
        if decade:
            yield "decade", int(decade.group(2))
        if fold in QUARTERS:
            yield "quarter", QUARTERS[fold]
    else:
        for kind, names in NAMED.items():
            if fold in names and _certain(text, at):
                yield kind, names[fold]
        if (
            fold in ORDINALS
            and at + 1 < len(text.words)
            and text.words[at + 1].fold in {"quarter", "century"}
        ):
            yield text.words[at + 1].fold, ORDINALS[fold]


def _certain(text: Wording, at: int) -> bool:
    """Whether a word is a date's name here."""
    word = text.words[at]
    if word.fold not in DOUBTFUL:
        return True
    beside = text.words[max(at - 1, 0) : at + 2]
    return any(other.kind == "number" for other in beside) or (
        text.cased and at > 0 and word.raw[:1].isupper()
    )


def _year(text: Wording, at: int) -> Iterator[tuple[str, int]]:
    raw, words = text.words[at].raw, text.words
    if len(raw) == 4 and raw.isdecimal() and int(raw) in YEARS:  # noqa: PLR2004 - a year's digits
        before = words[at - 1].fold if at else ""
        if (
            before in NEAR_YEAR
            or before in MONTHS
            or before in SEASONS
            or at + 1 == len(words)
            or (words[at - 1].kind == "number" and at > 1)
        ):
            yield "year", int(raw)
    if raw.isdecimal() and at + 2 < len(words) and words[at + 1].fold in {"st", "nd", "rd", "th"}:
        unit = words[at + 2].fold
        if unit in {"quarter", "century"} and len(raw) <= 2:  # noqa: PLR2004 - digits and calendar
            yield unit, int(raw)


def _day(text: Wording, at: int, used: set[int]) -> Iterator[frozenset[tuple[int, int]]]:
    """The day beside a month: August 3rd, 3 August, 3rd of August, August the 3rd."""
    folds = [word.fold for word in text.words]
    for figure in figures(text):
        after = figure.start == at + 1 or (figure.start == at + 2 and folds[at + 1] == "the")
        before = figure.end == at or (figure.end == at - 1 and folds[at - 1] == "of")
        value = int(figure.value) if _padded(figure.value) else figure.value
        if (after or before) and not isinstance(value, str) and value in DAYS_OF_MONTH:
            used.add(figure.start)
            yield frozenset({(MONTHS[folds[at]], int(value))})
            return


def _padded(value: float | str) -> bool:
    return isinstance(value, str) and len(value) == 2 and value.isdecimal()  # noqa: PLR2004 - 03


def _numeric(raw: str, kinds: dict[str, set[int]]) -> Iterator[frozenset[tuple[int, int]]]:
    """3/8/2021, 2021-08-03, 08/03: month and day, both ways round where nobody can know."""
    whole, short = NUMERIC.fullmatch(raw), SLASHED.fullmatch(raw)
    if whole:
        first, second, third = (int(whole.group(group)) for group in (1, 3, 4))
        if len(whole.group(1)) == 4:  # noqa: PLR2004 - the year leads
            kinds.setdefault("year", set()).add(first)
            yield from _readings(second, third, both=False)
        else:
            kinds.setdefault("year", set()).add(third if third > 99 else 2000 + third)  # noqa: PLR2004 - digits and calendar
            yield from _readings(first, second, both=True)
    elif short and ("0" in (short.group(1)[0], short.group(2)[0]) or max(map(int, short.groups())) > 12):  # noqa: PLR2004 - digits and calendar
        yield from _readings(int(short.group(1)), int(short.group(2)), both=True)


def _readings(first: int, second: int, *, both: bool) -> Iterator[frozenset[tuple[int, int]]]:
    options = [(first, second), (second, first)] if both else [(first, second)]
    found = frozenset((month, day) for month, day in options if 1 <= month <= 12 and 1 <= day <= 31)  # noqa: PLR2004 - digits and calendar
    if found:
        yield found


def _clock(text: Wording, at: int) -> Iterator[frozenset[int]]:
    """3 pm, 15:00, 3:30: both halves of the day where nothing says which."""
    raw = text.words[at].raw
    after = text.words[at + 1].fold if at + 1 < len(text.words) else ""
    found = CLOCK.fullmatch(raw)
    if found:
        hour, minute = int(found.group(1)), int(found.group(2))
    elif raw.isdecimal() and len(raw) <= 2 and after in {"am", "pm", "oclock"}:  # noqa: PLR2004 - digits and calendar
        hour, minute = int(raw), 0
    else:
        return
    if after in {"am", "pm"}:
        hour = hour % 12 + (12 if after == "pm" else 0)
    elif 1 <= hour <= 12:  # noqa: PLR2004 - digits and calendar
        yield frozenset({hour % 12 * 60 + minute, (hour % 12 + 12) * 60 + minute})
        return
    yield frozenset({hour * 60 + minute})
