"""The plot: rewordings served against traps served, a panel per group of sets. SVG by hand."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from bench.quality.sets import GROUPS

WIDTH, HEIGHT, COLUMNS = 300, 250, 3
LEFT, TOP, RIGHT, BOTTOM = 44, 34, 18, 40
LOWEST = 3.5  # powers of ten shown: 10^-3.5 to 1
LEGEND = 72
COLOURS = {"cosine": "#8a8f98", "guards": "#d98f1f", "verifier": "#2f8f5b", "semcached": "#1f5fbf"}
PEER_COLOUR = "#b3323a"
NAMES = {
    "cosine": "cosine alone",
    "guards": "cosine and guards",
    "verifier": "verifier alone",
    "semcached": "semcached",
}
TICKS = {0.001: "0.1 %", 0.01: "1 %", 0.1: "10 %", 1.0: "100 %"}


def drawn(result: Mapping[str, Any]) -> str:
    """The SVG of a run's pairs, as they are in its JSON."""
    panels = [(name, members) for name, names in GROUPS.items() if (members := of(result["sets"], names))]
    height = LEGEND + HEIGHT * max(1, math.ceil(len(panels) / COLUMNS))
    body = "".join(panel(at, name, members, result["curve_at"]) for at, (name, members) in enumerate(panels))
    lines = [name for name in COLOURS if any(name in one["deciders"] for _, found in panels for one in found)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * COLUMNS}" height="{height}" '
        f'viewBox="0 0 {WIDTH * COLUMNS} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{legend(lines)}{body}</svg>\n'
    )


def of(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The measured sets of a panel that have both labels."""
    return [one for one in results if one["set"] in names and "curve" in one["deciders"]["cosine"]]


def legend(lines: Sequence[str]) -> str:
    found = [
        text(
            LEFT,
            18,
            "Rewordings served (up) against traps served (right); mean of each group's sets",
            bold=True,
        )
    ]
    for at, name in enumerate(lines):
        x = LEFT + at * 150
        found.append(
            f'<line x1="{x}" x2="{x + 22}" y1="36" y2="36" stroke="{COLOURS[name]}" stroke-width="2.5"/>'
        )
        found.append(text(x + 28, 40, NAMES[name]))
    found.append(f'<circle cx="{LEFT + 8}" cy="56" r="4" fill="{COLOURS["semcached"]}"/>')
    found.append(text(LEFT + 28, 60, "semcached by default"))
    found.append(cross(LEFT + 188, 56))
    found.append(
        text(
            LEFT + 200,
            60,
            "a peer by default, on our vectors; swept, each draws cosine's line",
        )
    )
    return "".join(found)  # fmt: skip


def panel(at: int, name: str, members: Sequence[Mapping[str, Any]], rates: Sequence[float]) -> str:
    left, top = at % COLUMNS * WIDTH, LEGEND + at // COLUMNS * HEIGHT
    sets = ", ".join(one["set"] for one in members)
    inside = [text(LEFT, TOP - 18, name, bold=True), text(LEFT, TOP - 7, sets, size=7), *axes()]
    for decider, colour in COLOURS.items():
        curves = [found["curve"] for one in members if (found := one["deciders"].get(decider))]
        if curves:
            points = [
                (x(rate), y(sum(curve[place] for curve in curves) / len(curves)))
                for place, rate in enumerate(rates)
                if rate >= 10**-LOWEST
            ]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            inside.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    inside.extend(dots(members))
    return f'<g transform="translate({left} {top})">{"".join(inside)}</g>'


def dots(members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the defaults are; peers in one place share a cross."""
    places: dict[tuple[float, float], list[str]] = {}
    for name in members[0]["deciders"]:
        defaults = [one["deciders"][name]["default"] for one in members]
        at = tuple(
            sum(one[label]["share"] for one in defaults) / len(defaults) for label in ("label_0", "label_1")
        )
        if name not in COLOURS:
            places.setdefault((x(at[0]), y(at[1])), []).append(name)
        elif name == "semcached":
            yield f'<circle cx="{x(at[0]):.1f}" cy="{y(at[1]):.1f}" r="4.5" fill="{COLOURS[name]}"/>'
    for (left, top), names in places.items():
        yield cross(left, top)
        yield text(left - 7, top - 3, ", ".join(names), size=8, anchor="end")


def axes() -> Iterator[str]:
    for rate, name in TICKS.items():
        yield line(x(rate), y(0), x(rate), y(1))
        yield text(x(rate), HEIGHT - BOTTOM + 14, name, anchor="middle", size=9)
    for step in range(0, 101, 20):
        yield line(x(0), y(step / 100), x(1), y(step / 100))
        yield text(LEFT - 5, y(step / 100) + 3, f"{step} %", anchor="end", size=9)


def x(rate: float) -> float:
    """Logarithmic; what is less than the lowest is at the edge."""
    share = 1 + math.log10(max(rate, 10**-LOWEST)) / LOWEST
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def y(rate: float) -> float:
    return HEIGHT - BOTTOM - rate * (HEIGHT - TOP - BOTTOM)


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e3e5e8"/>'


def cross(left: float, top: float) -> str:
    path = f"M{left - 4:.1f} {top - 4:.1f}l8 8m0 -8l-8 8"
    return f'<path d="{path}" stroke="{PEER_COLOUR}" stroke-width="2" fill="none"/>'


def text(
    left: float, top: float, words: str, *, bold: bool = False, size: int = 11, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{left:.1f}" y="{top:.1f}" font-size="{size}" text-anchor="{anchor}"{weight} '
        f'fill="#30343a">{escape(words)}</text>'
    )
