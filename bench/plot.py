"""Plots of the speed benches, from their JSON. SVG by hand, with the pieces of bench/quality/plot.py."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from bench.quality.plot import line, text

WIDTH, ROW, LEFT, RIGHT, TOP = 860, 15, 190, 90, 58
COLOURS = ("#1f5fbf", "#8a8f98", "#b9bdc4", "#2f8f5b", "#d98f1f", "#b3323a", "#7a4fb0", "#4a4f57")
TICKS = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
PANEL, HEIGHT, BOTTOM, MARGIN = 430, 410, 124, 58


def svg(width: int, height: int, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{body}</svg>\n'
    )


def log_scale(least: float, most: float, start: float, end: float) -> Any:
    """From ms (or whatever) to a place between `start` and `end`."""
    low, high = math.log10(least), math.log10(max(most, least * 1.001))
    return lambda value: start + (math.log10(max(value, least)) - low) / (high - low) * (end - start)


def latency(result: Mapping[str, Any]) -> str:
    """p50 to p99 of each operation's contenders, at the fewest connections."""
    groups = [
        (f"{name}, {(at := min(found, key=int))} at a time", found[at])
        for name, found in result["measured"].items()
        if found and all(one.isdigit() for one in found)
    ]
    values = [
        one[field][0] / 1000
        for _, found in groups
        for one in found.values()
        for field in ("p50_us", "p99_us")
    ]
    height = TOP + sum(ROW * (len(found) + 2) for _, found in groups) + 30
    if not values:
        return svg(WIDTH, height, "")
    x = log_scale(min(values) / 1.2, max(values) * 1.2, LEFT, WIDTH - RIGHT)
    body = [
        text(12, 20, "From p50 (dot) to p99 (end of the line), ms; service CPU per request, µs", bold=True)
    ]
    for tick in TICKS:
        if min(values) / 1.2 <= tick <= max(values) * 1.2:
            body += [line(x(tick), TOP - 12, x(tick), height - 24)]
            body += [text(x(tick), height - 10, f"{tick:g}", anchor="middle", size=9)]
    top = TOP
    for title, found in groups:
        body.append(text(12, top, title, bold=True))
        for at, (name, one) in enumerate(found.items()):
            top += ROW
            body += bar(top, name, one, x, COLOURS[at % len(COLOURS)])
        top += 2 * ROW
    return svg(WIDTH, height, "".join(body))


def bar(top: float, name: str, one: Mapping[str, Any], x: Any, colour: str) -> Iterator[str]:
    left, right = x(one["p50_us"][0] / 1000), x(one["p99_us"][0] / 1000)
    yield text(LEFT - 8, top, name, anchor="end", size=10)
    yield stroke(left, right, top - 4, colour)
    yield f'<circle cx="{left:.1f}" cy="{top - 4}" r="4" fill="{colour}"/>'
    if one["cpu_us"][0]:
        yield text(WIDTH - 12, top, f"{one['cpu_us'][0]:,.0f}", anchor="end", size=10)


def stroke(left: float, right: float, top: float, colour: str, dashed: str = "") -> str:
    ends = f'x1="{left:.1f}" x2="{right:.1f}" y1="{top:.1f}" y2="{top:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="2"{dashed}/>'


Lines = Mapping[str, Sequence[tuple[float, float]]]


def growth(result: Mapping[str, Any]) -> str:
    """Latency by entries, and by the tenant's size at the most entries; ms."""
    sizes = result["sizes"]
    by_entries = {
        f"{kind}, {name}, {field[:3]}": [
            (float(size), one["latency"][kind][name][field][0] / 1000) for size, one in sizes.items()
        ]
        for kind, name in (("semantic", "semcached"), ("semantic", "raw FT.SEARCH"), ("exact", "semcached"))
        for field in ("p50_us", "p99_us")
    }
    largest = sizes[max(sizes, key=int)]["tenants"]
    by_tenant = {
        f"{name}, {field[:3]}": [
            (float(one["entries"]), one["semantic"][name][field][0] / 1000) for one in largest
        ]
        for name in ("semcached", "raw FT.SEARCH")
        for field in ("p50_us", "p99_us")
    }
    body = panel(0, "ms by entries in the cache", by_entries)
    body += panel(1, "semantic, ms by entries of the tenant", by_tenant)
    return svg(2 * PANEL, HEIGHT, body)


def panel(at: int, title: str, lines: Lines) -> str:
    """Both axes logarithmic."""
    points = [point for found in lines.values() for point in found]
    least, most = min(one for _, one in points) / 1.5, max(one for _, one in points) * 1.5
    x = log_scale(min(one for one, _ in points), max(one for one, _ in points), MARGIN, PANEL - 20)
    y = log_scale(least, most, HEIGHT - BOTTOM, 30)
    body = [text(MARGIN, 18, title, bold=True)]
    for tick in TICKS:
        if least <= tick <= most:
            body += [line(MARGIN, y(tick), PANEL - 20, y(tick))]
            body += [text(MARGIN - 6, y(tick) + 3, f"{tick:g}", anchor="end", size=9)]
    for value in sorted({one for one, _ in points}):
        body += [text(x(value), HEIGHT - BOTTOM + 14, f"{value:,.0f}", anchor="middle", size=9)]
    for place, (name, found) in enumerate(lines.items()):
        colour, dashed = COLOURS[(0, 3, 5)[place // 2]], ' stroke-dasharray="5 3"' * (place % 2)
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in sorted(found))
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        below = HEIGHT - BOTTOM + 34 + 14 * place
        body.append(stroke(MARGIN + 8, MARGIN + 30, below, colour, dashed))
        body.append(text(MARGIN + 36, below + 4, name, size=9))
    return f'<g transform="translate({at * PANEL} 0)">{"".join(body)}</g>'


SMALL, SMALL_HEIGHT, ACROSS = 300, 250, 3


def learning(result: Mapping[str, Any]) -> str:
    """Wrong answers (right) and hits (up) of all requests, a panel per set, each with scales of its own."""
    sets = result["sets"]
    body = [
        text(
            MARGIN, 18, "Hits (up) by wrong answers (right), % of all requests; mean of the seeds", bold=True
        )
    ]
    shown = {"verified": COLOURS[0], "verifier": COLOURS[3], "guards": COLOURS[4], "cosine": COLOURS[1]}
    for at, (name, colour) in enumerate(shown.items()):
        body.append(stroke(MARGIN + at * 200, MARGIN + at * 200 + 22, 36, colour))
        words = "verified, bounds 1, 2, 5 %" if name == "verified" else f"fixed, {name} swept"
        body.append(text(MARGIN + 28 + at * 200, 40, words))
    for at, one in enumerate(sets):
        left, top = at % ACROSS * SMALL, 50 + at // ACROSS * SMALL_HEIGHT
        inside = "".join(small(one, shown))
        body.append(f'<g transform="translate({left} {top})">{inside}</g>')
    return svg(ACROSS * SMALL, 50 + -(-len(sets) // ACROSS) * SMALL_HEIGHT, "".join(body))


def small(one: Mapping[str, Any], shown: Mapping[str, str]) -> Iterator[str]:
    """One set; the service's default is the dot."""
    lines = {name: [*one["fixed"].get(name, {}).values()] for name in shown}
    lines["verified"] = [found for found in one["arms"] if found["arm"] == "verified"]
    (default,), (exact,) = (one["fixed"][name].values() for name in ("default", "exact only"))
    most = 1.5 * max(found["wrong"] for found in [default, *lines["verified"]]) or 0.01
    inner = [
        found for found in [default, exact, *chain.from_iterable(lines.values())] if found["wrong"] <= most
    ]
    low, high = min(found["hit"] for found in inner), max(found["hit"] for found in inner)
    spare = max(high - low, 0.01) / 10
    right, bottom = SMALL - 14, SMALL_HEIGHT - 34

    def place(found: Mapping[str, Any]) -> tuple[float, float]:
        up = (found["hit"] - low + spare) / (high - low + 2 * spare)
        return 44 + found["wrong"] / most * (right - 44), bottom - up * (bottom - 30)

    yield text(44, 22, one["set"], bold=True)
    for step in range(5):
        wrong, hit = most * step / 4, low - spare + (high - low + 2 * spare) * step / 4
        x, y = place({"wrong": wrong, "hit": hit})
        yield line(x, 30, x, bottom) + line(44, y, right, y)
        yield text(x, bottom + 13, f"{100 * wrong:.2f}", anchor="middle", size=8)
        yield text(40, y + 3, f"{100 * hit:.1f}", anchor="end", size=8)
    for name, colour in shown.items():
        points = [place(found) for found in [exact, *lines[name]] if found["wrong"] <= most]
        points = points if name == "verified" else sorted(points)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    x, y = place(default)
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[5]}"/>'
    yield text(x - 7, y + 3, "default", anchor="end", size=8)
