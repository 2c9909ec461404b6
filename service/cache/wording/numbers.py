"""Another number in the place of a number."""

from collections.abc import Sequence

from service.cache.wording.measures import Measure, equal, left, measures, same_value
from service.cache.wording.words import Wording, stem


def agree(a: Wording, b: Wording) -> bool:
    """Whether no number of one stands for another number of the other."""
    if not (measures(a) and measures(b)):
        return True
    mine, yours = left(a, b)
    for one in list(mine):  # the unit guard's
        other = next((other for other in yours if same_value(one.value, other.value)), None)
        if other is not None:
            mine.remove(one)
            yours.remove(other)
    return not (mine and yours) and _same_counts(measures(a), measures(b))


def _same_counts(a: Sequence[Measure], b: Sequence[Measure]) -> bool:
    """Whether what both count, they count alike: "2 adults, 3 children"."""
    counted = {stem(one.noun): one for one in a if len(one.noun) > 2}  # noqa: PLR2004 - nouns are longer
    for other in b:
        one = counted.get(stem(other.noun))
        if one is not None and not any(equal(other, any_) for any_ in a if stem(any_.noun) == stem(other.noun)):
            return False
    return True
