"""The figures as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def covered(kinds: Sequence[Mapping[str, Any]]) -> str:
    """Coverage and width of each method; a star where an assumption is broken."""
    methods = list(kinds[0]["methods"])
    out = [f"{'':66}{'wrong':>6}{'told':>6}{'verdicts':>9}" + "".join(f"{name:>15}" for name in methods)]
    for one in kinds:
        figures = "".join(
            f"{100 * found['coverage'].share:8.1f}{100 * found['width']:7.2f}"
            for found in one["methods"].values()
        )
        name = one["kind"] + ("" if one["promised"] else " *")
        out.append(
            f"{name:66}{100 * one['truth']:6.2f}{100 * one['estimate']:6.2f}{one['verdicts']:9.0f}{figures}"
        )
    return "\n".join([*out, "* an assumption is broken"])


def steadied(kinds: Sequence[Mapping[str, Any]]) -> str:
    """Shares of streams in which it moved."""
    out = [f"{'right':>7}{'cliff':>7}{'up':>7}{'down':>7}{'turned':>8}{'most turns':>12}{'mean end':>10}"]
    for one in kinds:
        shares = "".join(f"{100 * one[name]:7.1f}" for name in ("up", "down", "turned"))
        cliff = one["cliff"] or "none"
        out.append(
            f"{100 * one['accuracy']:7.1f}{cliff:>7}{shares}{one['most_turns']:13}{one['mean_end']:10.3f}"
        )
    return "\n".join(out)


def went(result: Mapping[str, Any]) -> str:
    """Of each arm: static thresholds, then what adapted."""
    return "\n\n".join("\n".join(_arm(arm)) for arm in result["arms"])


def _arm(arm: Mapping[str, Any]) -> Iterator[str]:
    yield f"{arm['name']}; judged on {'all' if arm['exact'] else 'semantic'} hits"
    yield (
        f"  {'':38}{'end':>16}{'moves':>7}{'wrong':>8}{'semantic %':>11}{'hits %':>8}"
        f"{'wrong of them %':>17}{'of all hits':>12}"
    )
    for one in arm["static"]:
        yield f"  {'static':24}{one['start']:>14.3f}{'':>23}" + _shares(one)
    for one in arm["runs"]:
        ends = f"{min(one['ends']):.3f}-{max(one['ends']):.3f}"
        yield f"  {one['told']:32}{one['start']:>6.2f}{ends:>16}{one['moved']:7.1f}" + _shares(one)


def _shares(one: Mapping[str, Any]) -> str:
    found = one["all"]
    return (
        f"{found['wrong']:8.0f}{100 * found['semantic']:11.1f}{100 * found['hits']:8.1f}"
        f"{100 * found['wrong_of_semantic']:17.2f}{100 * found['wrong_of_hits']:12.2f}"
    )
