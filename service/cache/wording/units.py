"""The same number with another unit, or another unit asked for."""

from service.cache.wording import symbols
from service.cache.wording.measures import Unit, alike, crowded, left, lone_units, same_value
from service.cache.wording.words import Wording


def agree(a: Wording, b: Wording) -> bool:
    """Whether no unit of one stands for another unit of the other."""
    if not symbols.agree(a, b):
        return False
    if crowded(a) or crowded(b):  # the numbers' guard wants them equal
        return True
    mine, yours = left(a, b)
    for one in mine:
        for other in yours:
            if one.unit and other.unit and same_value(one.value, other.value):
                return False
    if mine or yours:
        return True
    only_a, only_b = lone_units(a) - lone_units(b), lone_units(b) - lone_units(a)
    return not any(_rivals(one, other) for one in only_a for other in only_b)


def _rivals(a: Unit, b: Unit) -> bool:
    return bool(a.dimensions & b.dimensions) and not alike(a, b)
