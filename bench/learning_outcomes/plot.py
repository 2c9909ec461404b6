"""The plot: how often intervals hold the truth, and where thresholds go. With the pieces of bench/plot.py."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.plot import COLOURS, svg
from bench.quality.plot import line, text

WIDTH, ROW, LEFT = 900, 15, 430
PANEL, TALL = 300, 230
LEAST, MOST = 0.6, 1.0


def drawn(result: Mapping[str, Any]) -> str:
    """The SVG of a run, as it is in its JSON; parts that weren't run are left out."""
    body: list[str] = []
    top = 0.0
    if "rates" in result:
        body += coverage(kinds := result["rates"]["kinds"])
        top = 80 + ROW * len(kinds)
    arms = [(one["set"], arm) for one in result.get("adaptive", {}).get("sets", []) for arm in one["arms"]]
    if arms:
        body += legend(top, [run["told"] for run in arms[0][1]["runs"]])
        top += 40
    for at, (name, arm) in enumerate(arms):
        place = f"translate({at % 3 * PANEL} {top + at // 3 * TALL:.0f})"
        body.append(f'<g transform="{place}">{"".join(went(name, arm))}</g>')
    return svg(WIDTH, round(top + TALL * -(-len(arms) // 3) + 20), "".join(body))


def coverage(kinds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield text(12, 20, "Streams whose truth lies within the 95 % interval, %", bold=True)
    for at, name in enumerate(kinds[0]["methods"]):
        yield dot(LEFT + at * 90, 36, at)
        yield text(LEFT + 8 + at * 90, 40, name)
    for tick in range(0, 101, 20):
        yield line(across(tick / 100), 50, across(tick / 100), 56 + ROW * len(kinds))
        yield text(across(tick / 100), 70 + ROW * len(kinds), str(tick), anchor="middle", size=9)
    for row, one in enumerate(kinds):
        y = 62 + ROW * row
        star = "" if one["promised"] else " *"
        yield text(LEFT - 10, y + 3, f"{one['kind']}{star}: {100 * one['rate']:g} %", anchor="end", size=9)
        for at, found in reversed(list(enumerate(one["methods"].values()))):
            yield dot(across(found["coverage"]["share"]), y, at)


def across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - 20)


def dot(x: float, y: float, at: int) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 - at}" fill="{COLOURS[at]}"/>'


def legend(top: float, told: Sequence[str]) -> Iterator[str]:
    yield text(
        12, top + 14, "Where the threshold goes (up) along the stream (right), by what is reported", bold=True
    )
    for at, name in enumerate(dict.fromkeys(told)):
        yield f'<rect x="{12 + at * 148}" y="{top + 22:.0f}" width="10" height="10" fill="{COLOURS[at]}"/>'
        yield text(26 + at * 148, top + 31, name, size=9)


def went(name: str, arm: Mapping[str, Any]) -> Iterator[str]:
    judged = "all" if arm["exact"] else "semantic"
    yield text(44, 16, f"{name}, {arm['name']}, judged on {judged} hits", bold=True, size=9)
    for tick in (0.6, 0.7, 0.8, 0.9, 1.0):
        yield line(44, up(tick), PANEL - 12, up(tick))
        yield text(38, up(tick) + 3, f"{tick:g}", anchor="end", size=9)
    told = list(dict.fromkeys(run["told"] for run in arm["runs"]))
    for run in arm["runs"]:
        at = told.index(run["told"])
        values = [run["start"], *run["thresholds"]]
        points = [
            f"{44 + place * (PANEL - 56) / (len(values) - 1):.1f},{up(value) + at:.1f}"
            for place, value in enumerate(values)
        ]
        yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS[at]}" stroke-width="1.5"/>'


def up(threshold: float) -> float:
    return TALL - 20 - (threshold - LEAST) / (MOST - LEAST) * (TALL - 50)
