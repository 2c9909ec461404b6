"""Another number in the place of a number, another operator in the place of one."""

from collections.abc import Sequence

from service.cache.wording import operators
from service.cache.wording.contrast import contrast
from service.cache.wording.figures import SPELT
from service.cache.wording.measures import Measure, crowded, equal, left, measures, same_value
from service.cache.wording.words import Wording, stem

MOST_OTHER = 2
"""How many other content words may differ, where the texts share fewer."""

_SPELT = frozenset(map(stem, SPELT))


def agree(a: Wording, b: Wording) -> bool:
    """Whether no number of one stands for another number of the other, nor an operator."""
    if a.tail != b.tail or not operators.agree(a, b):
        return False
    if crowded(a) or crowded(b):
        return _listed(a) == _listed(b)
    if not (measures(a) and measures(b)):
        return True
    mine, yours = left(a, b)
    for one in list(mine):  # the unit guard's
        other = next((other for other in yours if same_value(one.value, other.value)), None)
        if other is not None:
            mine.remove(one)
            yours.remove(other)
    if mine and yours:
        difference = contrast(a, b)
        digits = {one for one in difference.only_a | difference.only_b if one[0].isdecimal()}
        return difference.rest(*_SPELT, *digits) > max(MOST_OTHER, difference.shared)
    return _same_counts(measures(a), measures(b))


def _listed(text: Wording) -> list[str]:
    return sorted(str(one.value) for one in measures(text))


def _same_counts(a: Sequence[Measure], b: Sequence[Measure]) -> bool:
    """Whether two things that both count have not exchanged their numbers: "2 adults, 3 children"."""
    mine, yours = ({stem(one.noun): one for one in some if len(one.noun) > 2} for some in (a, b))  # noqa: PLR2004 - letters
    both = [(mine[noun], yours[noun]) for noun in mine.keys() & yours.keys()]
    return sum(not equal(one, other) for one, other in both) < 2  # noqa: PLR2004 - an exchange takes two
