"""The figures as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.learning.figures import SWEPT
from bench.quality.tables import laid_out

DECIMALS = 2
SHOWN_AT = (0, 1, 2, 4, 9, 14, 19)


def percent(value: float) -> str:
    return f"{100 * value:.{DECIMALS}f}"


def told(result: Mapping[str, Any]) -> Iterator[str]:
    """A set's tables."""
    yield learned(result)
    yield fixed(result)
    yield along(result)


def learned(result: Mapping[str, Any]) -> str:
    """Each arm: was the bound kept, what was served, and what fixed thresholds serve at the same error."""
    head = ["arm", "bound", "wrong", "worst seed", "p", "hit", "semantic", "wrong/semantic", "asked again"]
    more = [f"{family}, {limit}" for limit in ("same", "bound") for family in SWEPT]
    return laid_out([[*head, *more], *map(arm, result["arms"])])


def arm(one: Mapping[str, Any]) -> list[str]:
    """A line."""
    rates = ("hit", "semantic", "wrong_of_semantic", "explored")
    return [
        one["arm"],
        *map(percent, (one["bound"], one["wrong"], max(one["wrong_by_seed"]))),
        f"{one['least_p']:.2g}",
        *(percent(one[name]) for name in rates),
        *(percent(one["oracles"][limit][family]) for limit in one["oracles"] for family in SWEPT),
    ]


def fixed(result: Mapping[str, Any]) -> str:
    """Thresholds."""
    lines = [["fixed", "wrong", "worst seed", "hit", "semantic", "wrong/semantic"]]
    for family, choices in result["fixed"].items():
        for choice, one in choices.items():
            cells = [one["wrong"], max(one["wrong_by_seed"]), one["hit"], one["semantic"]]
            lines.append([f"{family} {choice}", *map(percent, [*cells, one["wrong_of_semantic"]])])
    return laid_out(lines)


def along(result: Mapping[str, Any]) -> str:
    """Some thousands of the stream."""
    found = result["along"]
    shown = [at for at in SHOWN_AT if at < len(found["verified"])]
    lines = [["thousand", *(str(at + 1) for at in shown)]]
    lines += [
        [f"{name}, {field}", *(percent(parts[at][field]) for at in shown)]
        for name, parts in found.items()
        for field in ("hit", "wrong")
    ]
    return laid_out(lines)
