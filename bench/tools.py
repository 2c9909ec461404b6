"""Are tool results reused safely? Recorded agents' calls replayed over HTTP, in the order they were made.

    python -m bench.tools --data ../shared/data [--output FILE.json]

Each call is looked up; a miss is stored with its recorded result, errors too: refusing them is the service's
work. Two arms: `declared` has a policy for every tool that changes something (the data say which), and the
tools that answer for the user who asks are given the user as an argument, as their callers must; `nothing`
has no policy at all, so that names alone decide.
"""

import argparse
import gzip
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bench.processes import served

PER_USER = {"Alarm_1.GetAlarms", "Banks_2.CheckBalance"}
"""Of sgd: tools whose result depends on who asks, and whose arguments don't say who."""


class Called(NamedTuple):
    """One recorded call."""

    user: str  # a session
    tool: str
    arguments: dict[str, Any]
    writes: bool
    failed: bool
    result: Any
    digest: str  # of the whole result


def sgd(folder: Path) -> Iterator[Called]:
    for row in rows(folder / "sgd_tool_calls"):
        tool, failed = f"{row['service']}.{row['method']}", False
        result = {"sha": row["result_sha"], "first": row["first_result"], "n": row["n_results"]}
        yield Called(
            row["dialogue"],
            tool,
            row["params"],
            bool(row["transactional"]),
            failed,
            result,
            row["result_sha"],
        )


def tau(folder: Path) -> Iterator[Called]:
    for row in rows(folder / "tau_airline_tool_calls"):
        writes, failed = row["effect"] != "read", bool(row["error"])
        yield Called(
            row["session"], row["tool"], row["args"], writes, failed, row["result"], row["result_sha"]
        )


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(folder / "public" / "calls.jsonl.gz", "rt") as lines:
        yield from map(json.loads, lines)


SETS = {"sgd_tool_calls": sgd, "tau_airline_tool_calls": tau}


def replayed(http: httpx.Client, agent_type: str, calls: list[Called], *, declared: bool) -> Counter[str]:
    """What happened, counted."""
    if declared:
        for tool in sorted({call.tool for call in calls if call.writes}):
            http.put("/v1/tools/policies", json={"tool": tool, "cacheable": False}).raise_for_status()
    seen: dict[str, str] = {}
    stored_by: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for call in calls:
        per_user = call.tool in PER_USER
        arguments = call.arguments | ({"user": call.user} if declared and per_user else {})
        asked = {"agent_type": agent_type, "tool": call.tool, "arguments": arguments}
        name = json.dumps([call.tool, arguments], sort_keys=True)
        counted["calls"] += 1
        repeats = name in seen and not call.writes
        counted["repeats"] += repeats
        counted["repeats with the same result"] += repeats and seen[name] == call.digest
        found = http.post("/v1/tools/lookup", json=asked).raise_for_status().json()
        if found["outcome"] == "hit":
            counted["served"] += 1
            counted["writes served"] += call.writes
            counted["errors served"] += isinstance(found["result"], str) and found["result"].startswith(
                "Error"
            )
            counted["another user's served"] += per_user and stored_by[name] != call.user
            counted["another result served"] += found["result"] != call.result
            continue
        kept = http.post("/v1/tools/store", json=asked | {"result": call.result}).raise_for_status().json()
        counted["stored"] += kept["stored"]
        counted[f"refused: {kept.get('reason', '')}"] += not kept["stored"]
        if kept["stored"]:
            stored_by[name] = call.user
        if not call.failed:
            seen.setdefault(name, call.digest)
    return counted


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--output", type=Path, default=Path("bench/results/tools.json"))
    given = arguments.parse_args()
    if not (given.data / "sgd_tool_calls").exists():
        sys.exit(f"{given.data}: no sgd_tool_calls there; --data names the folder of the data sets")
    results: dict[str, Any] = {"command": "python -m bench.tools", "machine": platform.platform()}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), redis_timeout_s="5") as service:
        for name, read in SETS.items():
            calls = list(read(given.data))
            for arm in ("nothing", "declared"):  # in this order: policies are by tool, not by agent_type
                counted = replayed(service.http, f"{name} {arm}", calls, declared=arm == "declared")
                results[f"{name}, {arm}"] = dict(counted) | {
                    "hit rate": round(counted["served"] / counted["calls"], 4),
                    "of repeats": round(counted["served"] / counted["repeats"], 4),
                }
                print(name, arm, json.dumps(results[f"{name}, {arm}"], indent=1))
    given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
