"""Contenders side by side: a slice each per round, in random order; ratios are made within a round.

What the machine does besides meets all contenders of a round alike, so the median over the rounds of such a
ratio says more than a ratio of medians. Spread is the quartiles of the rounds.
"""

import contextlib
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tqdm import tqdm

from bench.load import Generator, Job, Sample
from bench.lookups import cpu_ns


class Contender(NamedTuple):
    """Who is asked, and whose CPU time counts as its."""

    name: str
    job: Job
    pids: tuple[int, ...] = ()
    redis: int | None = None  # the pid of its Redis, if that runs here


class Slice(NamedTuple):
    """One contender in one round."""

    p50_us: float
    p99_us: float
    per_s: float
    cpu_us: float  # per request, of its processes
    redis_us: float  # per request, of Redis
    load_us: float  # per request, of the load generator


Slices = Mapping[str, Sequence[Slice]]


class Spread(NamedTuple):
    """The median, and the quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of one round, it is three times the same."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def sliced(contender: Contender, load: Generator) -> Slice:
    """Ask for a while."""
    redis = () if contender.redis is None else (contender.redis,)
    before, redis_before = all_cpu_ns(contender.pids), all_cpu_ns(redis)
    sample = load.run(contender.job)
    return slice_of(sample, all_cpu_ns(contender.pids) - before, all_cpu_ns(redis) - redis_before)


def slice_of(sample: Sample, cpu: int = 0, redis_cpu: int = 0) -> Slice:
    """CPU in ns, of the whole sample."""
    if not sample.answers:
        sys.exit("no answer within a slice: give more --seconds")
    each, load = 1000 * max(1, sample.sent), sample.cpu_s * 1e6 / sample.answers
    rate = sample.answers / sample.wall_s
    return Slice(sample.p50_us, sample.p99_us, rate, cpu / each, redis_cpu / each, load)


def all_cpu_ns(pids: Sequence[int]) -> int:
    return sum(cpu_ns(pid) for pid in pids)


def family(pid: int) -> tuple[int, ...]:
    """A process and those it started: a server and its workers, but no Redis."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or b"redis-server" in (entry / "cmdline").read_bytes():
                continue
            if int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1]) in found:
                found.append(int(entry.name))
    return tuple(found)


def rounds(
    contenders: Sequence[Contender],
    load: Generator,
    *,
    count: int,
    words: str = "",
    around: Mapping[str, Callable[[Callable[[], Slice]], Slice]] | None = None,
) -> dict[str, list[Slice]]:
    """By contender, one slice a round. `around` runs a contender's slice inside something."""
    found: dict[str, list[Slice]] = {one.name: [] for one in contenders}
    draw = random.Random(1)  # noqa: S311 - no secret
    for _ in tqdm(range(count), words, leave=False, disable=not sys.stderr.isatty()):
        for one in draw.sample(contenders, len(contenders)):
            measure = (around or {}).get(one.name, lambda run: run())
            found[one.name].append(measure(lambda one=one: sliced(one, load)))
    return found


def ratio(found: Slices, ours: str, theirs: str, field: str) -> Spread:
    """Of `ours` to `theirs`, round by round."""
    pairs = zip(found[ours], found[theirs], strict=True)
    return spread([getattr(one, field) / getattr(other, field) for one, other in pairs])


def difference(found: Slices, ours: str, theirs: str, field: str) -> Spread:
    """`ours` - `theirs`, round by round."""
    pairs = zip(found[ours], found[theirs], strict=True)
    return spread([getattr(one, field) - getattr(other, field) for one, other in pairs])


def told(found: Slices) -> dict[str, Any]:
    """For the JSON: medians and quartiles."""
    return {
        name: {
            field: [round(value, 2) for value in spread([getattr(one, field) for one in slices])]
            for field in Slice._fields
        }
        for name, slices in found.items()
    }


class Goal(NamedTuple):
    """A row of the table at the end."""

    name: str
    wanted: str
    spread: Spread
    reached: bool
    unit: str = ""


def at_most(name: str, limit: float, found: Spread, unit: str = "") -> Goal:
    return Goal(name, f"≤ {limit:g}{unit}", found, found.median <= limit, unit)


def at_least(name: str, limit: float, found: Spread, unit: str = "") -> Goal:
    return Goal(name, f"≥ {limit:g}{unit}", found, found.median >= limit, unit)


def goals_table(goals: Sequence[Goal]) -> str:
    """`goal | measured | spread | reached`."""
    rows = [("goal", "measured", "spread", "reached")]
    for one in goals:
        median, low, high = (f"{value:.4g}" for value in one.spread)
        said = f"{low} to {high}{one.unit}"
        rows.append((f"{one.name} {one.wanted}", median + one.unit, said, "yes" if one.reached else "NO"))
    return table(rows)


def slices_table(kind: str, found: Slices) -> str:
    """Medians of each contender."""
    rows: list[tuple[str, ...]] = [(kind, "p50 µs", "p99 µs", "per s", "its CPU µs", "Redis µs", "load µs")]
    for name, slices in found.items():
        columns = [statistics.median(getattr(one, field) for one in slices) for field in Slice._fields]
        rows.append((name, *(f"{value:,.0f}" for value in columns)))
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, columns aligned."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def as_json(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """The goals, for the JSON."""
    return [
        {
            "goal": one.name,
            "wanted": one.wanted,
            "measured": round(one.spread.median, 4),
            "quartiles": [round(one.spread.low, 4), round(one.spread.high, 4)],
            "reached": one.reached,
        }
        for one in goals
    ]


_URL = re.compile(r"\w+://\S+")
"""What is at hand while measuring; nobody else has it."""


def run_of(module: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Command and machine, for the JSON."""
    return {
        "command": " ".join(["python", "-m", module, *(_URL.sub("URL", one) for one in sys.argv[1:])]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load average at the start": [round(one, 1) for one in os.getloadavg()],
        "at": time.strftime("%Y-%m-%d"),
        "versions": versions,
    }


def numbers(text: str) -> list[int]:
    """`1,2`, for an option."""
    return sorted(int(one) for one in text.split(","))


def names(text: str) -> list[str]:
    """`a,b`, for an option."""
    return text.split(",")


def warm(contenders: Sequence[Contender], load: Generator) -> None:
    """Ask each for a moment: imports, caches and connections are warm then."""
    for one in contenders:
        load.run(msgspec.structs.replace(one.job, seconds=0.2))


def write(result: Mapping[str, Any], output: Path) -> None:
    output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
