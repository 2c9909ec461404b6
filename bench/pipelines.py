"""What does a call to Redis cost the service, alone and among others, of one version beside another?

    python -m bench.pipelines [--other CHECKOUT] [--calls N] [--rounds N] [--output FILE.json]

A call is what an exact lookup sends: MGET of a record of 1.2 kB and HGET of its document's time. So many
callers at once make one after the other. Each measurement is a process of its own, of each version in turns,
over one embedded Redis; CPU is that process' own, all threads, from the scheduler. `CHECKOUT` runs on this
environment.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CALLERS = (1, 16, 64)
ROOT = Path(__file__).parents[1]


def cpu_ns() -> int:
    """On-CPU time of all threads of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def measured(url: str, callers: int, calls: int) -> dict[str, float]:
    """Of whatever version is imported here."""
    from service.store.client import connected  # noqa: PLC0415 - the version that PYTHONPATH names

    async with connected(url, 5, "bench:probe") as redis:
        await redis.call("SET", "bench:record", b"x" * 1200)
        await redis.call("HSET", "bench:document", "stored_at", 1_700_000_000_000)

        async def one(count: int) -> None:
            for _ in range(count):
                (record, _), at = await redis.run(
                    [("MGET", "bench:record", "bench:number"), ("HGET", "bench:document", "stored_at")]
                )
                if len(record) != 1200 or at != b"1700000000000":
                    sys.exit("a wrong reply")

        await asyncio.gather(*[one(5) for _ in range(callers)])
        each = max(calls // callers, 1)
        cpu, begun = cpu_ns(), time.perf_counter()
        await asyncio.gather(*[one(each) for _ in range(callers)])
        cpu, took = cpu_ns() - cpu, time.perf_counter() - begun
        return {"cpu_us": cpu / 1000 / (each * callers), "calls_per_s": each * callers / took}


def asked(checkout: Path, url: str, callers: int, calls: int) -> dict[str, float]:
    """By a process of its own."""
    program = [sys.executable, __file__, "--one", url, str(callers), str(calls)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    told = subprocess.run(program, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, float] = json.loads(told)
    return found


def report(by_name: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: {field: round(statistics.median(one[field] for one in rows), 1) for field in rows[0]}
        for name, rows in by_name.items()
    }
    if len(by_name) == 2:
        ours, theirs = by_name.values()
        ratios = [one["cpu_us"] / other["cpu_us"] for one, other in zip(ours, theirs, strict=True)]
        told["cpu ratio, median of rounds"] = round(statistics.median(ratios), 3)
    return told


def compared(checkouts: dict[str, Path], calls: int, rounds: int) -> dict[str, Any]:
    from service.store.embedded import EmbeddedRedis  # noqa: PLC0415 - not in the measuring processes

    found: dict[int, dict[str, list[dict[str, float]]]] = {
        callers: {name: [] for name in checkouts} for callers in CALLERS
    }
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        for turn in range(rounds):
            for callers in CALLERS:
                for name in list(checkouts)[:: 1 if turn % 2 else -1]:
                    found[callers][name].append(asked(checkouts[name], server.url, callers, calls))
    return {f"{callers} at once": report(by_name) for callers, by_name in found.items()}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--other", type=Path, help="a checkout of another version")
    arguments.add_argument("--calls", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/pipelines.json"))
    given = arguments.parse_args()
    checkouts = {"this": ROOT} | ({"other": given.other.resolve()} if given.other else {})
    found = compared(checkouts, given.calls, given.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    about = {"machine": machine, "calls": given.calls, "rounds": given.rounds}
    given.output.write_text(json.dumps(about | found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        import uvloop

        url, callers, calls = sys.argv[2:]
        print(json.dumps(uvloop.run(measured(url, int(callers), int(calls)))))
    else:
        main()
