"""The plot: p50 of semantic lookups, a bar per contender, a panel per size; times on a log scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.quality.plot import text

WIDTH, LEFT, RIGHT = 900, 210, 90
TOP, BAR, GAP = 62, 16, 8
LEAST, MOST = -1.5, 4.5  # powers of ten, ms
OURS, THEIRS = "#1f5fbf", "#8a8f98"
TICKS = {0.1: "0.1 ms", 1.0: "1 ms", 10.0: "10 ms", 100.0: "100 ms", 1000.0: "1 s", 10_000.0: "10 s"}


def drawn(sizes: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of a run, as it is in its JSON."""
    heights = [height(one) for one in sizes]
    panels = [
        f'<g transform="translate(0 {30 + sum(heights[:at])})">{panel(one)}</g>'
        for at, one in enumerate(sizes)
    ]
    title = text(10, 20, "A semantic lookup, p50: ours over HTTP, theirs in their own process", bold=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{30 + sum(heights)}" '
        f'viewBox="0 0 {WIDTH} {30 + sum(heights)}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{title}{"".join(panels)}</svg>\n'
    )


def height(one: Mapping[str, Any]) -> int:
    return TOP + (len(one["contenders"]) + len(one["absent"])) * (BAR + GAP)


def panel(one: Mapping[str, Any]) -> str:
    inside = [text(10, 24, f"{one['entries']:,} entries", bold=True), *ticks(height(one))]
    for at, (name, found) in enumerate(one["contenders"].items()):
        inside.append(bar(TOP - 20 + at * (BAR + GAP), name, found["semantic"]["p50_of_rounds"]["median"]))
    for at, (name, why) in enumerate(one["absent"].items(), len(one["contenders"])):
        top = TOP - 20 + at * (BAR + GAP) + BAR - 4
        inside += [text(LEFT - 8, top, name, anchor="end"), text(LEFT + 6, top, why[:100], size=9)]
    return "".join(inside)


def bar(top: float, name: str, ms: float) -> str:
    colour = OURS if name.startswith("semcached") else THEIRS
    width = max(x(ms) - LEFT, 1)
    return (
        text(LEFT - 8, top + BAR - 4, name, anchor="end")
        + f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        + text(LEFT + width + 6, top + BAR - 4, f"{ms:,.3g} ms" if ms < 1000 else f"{ms / 1000:,.3g} s")
    )


def ticks(bottom: float) -> list[str]:
    return [
        f'<line x1="{x(ms):.1f}" x2="{x(ms):.1f}" y1="{TOP - 26}" y2="{bottom - 20}" stroke="#e3e5e8"/>'
        + text(x(ms), TOP - 30, label, size=9, anchor="middle")
        for ms, label in TICKS.items()
    ]


def x(ms: float) -> float:
    share = (math.log10(max(ms, 10**LEAST)) - LEAST) / (MOST - LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)
