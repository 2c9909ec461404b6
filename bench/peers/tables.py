"""The tables of a run."""

from collections.abc import Mapping
from typing import Any

from bench.peers.work import KINDS
from bench.quality.tables import laid_out

HEAD = ["", "p50", "rounds", "p99", "right/wrong/none", "x ours", "rounds", "CPU", "caller/service/Redis"]


def told(one: Mapping[str, Any]) -> str:
    """A size: a table per kind of lookup, one of stores, the goals, and who is absent and why."""
    parts = [f"{one['entries']:,} entries of {one['tenants']} tenants ({one['vectors']}); ms"]
    parts += [f"{kind} lookups\n{lookups(one, kind)}" for kind in KINDS]
    parts += [f"stores\n{stores(one)}", *goals(one)]
    parts += [f"{name}: {why}" for name, why in one["absent"].items()]
    return "\n\n".join(parts) + "\n"


def lookups(one: Mapping[str, Any], kind: str) -> str:
    rows = [HEAD]
    for name, found in one["contenders"].items():
        if kind in found:
            of = found[kind]
            counts = "/".join(str(of[name]) for name in ("right", "wrong", "nothing"))
            ratio = of.get("ratio_to_ours")
            cells = [shown(of["p50_of_rounds"]["median"]), ranged(of["p50_of_rounds"]), shown(of["p99"])]
            ratios = [shown(ratio["median"]), ranged(ratio)] if ratio else ["-", "-"]
            cpu = of["cpu_ms"]
            parts = "/".join(shown(cpu.get(part)) for part in ("caller", "service", "redis"))
            rows.append([name, *cells, counts, *ratios, shown(cpu["all"]), parts])
    return laid_out(rows)


def stores(one: Mapping[str, Any]) -> str:
    rows = [["", "p50", "p99", "fill, s", "bytes per entry"]]
    for name, found in one["contenders"].items():
        of = found["store"]
        kept = found["bytes_per_entry"]
        rows.append(
            [name, shown(of["p50"]), shown(of["p99"]), shown(found["fill_s"]), f"{kept:,}" if kept else "-"]
        )
    return laid_out(rows)


def goals(one: Mapping[str, Any]) -> list[str]:
    return [
        f"goal: {name} takes {found['goal']:,} x our p50 or more: "
        f"{shown(found['semantic']['ratio_to_ours']['median'])} x, {'yes' if found['reached'] else 'NO'}"
        for name, found in one["contenders"].items()
        if "goal" in found
    ]


def ranged(of: Mapping[str, float]) -> str:
    return f"{shown(of['least'])}-{shown(of['most'])}"


def shown(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
