"""What the client costs: its import, and calls of a `cached_tool` beside the function and a bare request.

    python -m bench.client [--calls N] [--imports N] [--output FILE.json]

Arms take turns, call by call, so that what else the machine does falls on all of them; medians and ratios of
medians. A miss is a lookup, the run and a store, so it stands beside two bare requests. `refused`: nobody
listens; `hung`: connections are taken and nothing is answered: of the first calls the longest
waits for the deadline, 1 s.
"""

import argparse
import asyncio
import json
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx

from bench.processes import free_port, served
from semcached import AsyncClient, Client, cached_tool

IMPORTS = {
    "nothing": "pass",
    "semcached": "import semcached",
    "cached_tool": "from semcached import cached_tool",
    "Client": "from semcached import Client",
    "httpx": "import httpx",
    "httpx and msgspec": "import httpx, msgspec",
}
TOOL, AGENT = "get_maker", "bench"


def plain(x: int) -> dict[str, Any]:
    """A tool of no work: what is measured is what is around it."""
    return {"maker": "one of them", "x": x}


async def plain_async(x: int) -> dict[str, Any]:
    return plain(x)


def imports(times: int) -> dict[str, float]:
    """Milliseconds of an interpreter's start with that import, less those of one without."""
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(times):
        for name, code in IMPORTS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            took[name].append((time.perf_counter() - begun) * 1000)
    nothing = median(took.pop("nothing"))
    return {name: round(median(values) - nothing, 1) for name, values in took.items()}


def in_turns(arms: Mapping[str, Callable[[int], object]], calls: int) -> dict[str, float]:
    """The median call of each arm, µs."""
    took: dict[str, list[float]] = defaultdict(list)
    for n in range(calls):
        for name, call in arms.items():
            begun = time.perf_counter()
            call(n)
            took[name].append((time.perf_counter() - begun) * 1e6)
    return {name: round(median(values), 2) for name, values in took.items()}


async def in_turns_async(
    arms: Mapping[str, Callable[[int], Awaitable[object]]], calls: int
) -> dict[str, float]:
    took: dict[str, list[float]] = defaultdict(list)
    for n in range(calls):
        for name, call in arms.items():
            begun = time.perf_counter()
            await call(n)
            took[name].append((time.perf_counter() - begun) * 1e6)
    return {name: round(median(values), 2) for name, values in took.items()}


def body(x: int, tool: str = TOOL) -> dict[str, Any]:
    return {"agent_type": AGENT, "tool": tool, "arguments": {"x": x}}


def sync_calls(url: str, calls: int) -> dict[str, float]:
    with Client(url) as client, httpx.Client(base_url=url) as http:
        hit = cached_tool(client=client, agent_type=AGENT, name=TOOL)(plain)
        miss = cached_tool(client=client, agent_type=AGENT, name="get_another")(plain)
        hit(0)

        def request(_: int) -> None:
            assert http.post("/v1/tools/lookup", json=body(0)).json()["outcome"] == "hit"  # noqa: S101

        def requests(n: int) -> None:
            asked = body(n, "get_by_request")
            found = http.post("/v1/tools/lookup", json=asked | {"wait_s": 10}).json()
            http.post("/v1/tools/store", json=asked | {"result": plain(n), "lookup_id": found["lookup_id"]})

        arms = {
            "function": plain,
            "request that hits": request,
            "cached_tool, hit": lambda _: hit(0),
            "requests of a miss": requests,
            "cached_tool, miss": miss,
        }
        return in_turns(arms, calls)


async def async_calls(url: str, calls: int) -> dict[str, float]:
    async with AsyncClient(url) as client, httpx.AsyncClient(base_url=url) as http:
        hit = cached_tool(client=client, agent_type=AGENT, name=TOOL)(plain_async)
        await hit(0)

        async def request(_: int) -> None:
            await http.post("/v1/tools/lookup", json=body(0))

        arms = {
            "function": plain_async,
            "request that hits": request,
            "cached_tool, hit": lambda _: hit(0),
        }
        return await in_turns_async(arms, calls)


def away(url: str, calls: int) -> dict[str, float]:
    """Calls one after the other with the service down: the median one, the mean and the longest, µs."""
    with Client(url) as client:
        tool, took, direct = cached_tool(client=client)(plain), [], []
        for n in range(calls):
            begun = time.perf_counter()
            plain(n)
            between = time.perf_counter()
            tool(n)
            took.append((time.perf_counter() - between) * 1e6)
            direct.append((between - begun) * 1e6)
    return {
        "function": round(median(direct), 3),
        "median": round(median(took), 3),
        "median over the function": round(median(took) - median(direct), 3),
        "mean": round(mean(took), 3),
        "longest": round(max(took), 1),
    }


def ratios(found: dict[str, float]) -> dict[str, float]:
    told = {"hit over a request": found["cached_tool, hit"] / found["request that hits"]}
    if "cached_tool, miss" in found:
        told["miss over its two requests"] = found["cached_tool, miss"] / found["requests of a miss"]
    return {name: round(value, 3) for name, value in told.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--calls", type=int, default=2000)
    arguments.add_argument("--imports", type=int, default=20)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/client.json"))
    given = arguments.parse_args()
    results: dict[str, Any] = {"command": "python -m bench.client", "machine": platform.platform()}
    results |= {"calls": given.calls, "import_ms": imports(given.imports)}
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), verifier="off") as service:
        url = f"http://127.0.0.1:{service.port}"
        found = sync_calls(url, given.calls)
        results["sync_us"], results["sync"] = found, ratios(found)
        found = asyncio.run(async_calls(url, given.calls))
        results["async_us"], results["async"] = found, ratios(found)
    results["refused_us"] = away(f"http://127.0.0.1:{free_port()}", 100 * given.calls)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        results["hung_us"] = away(f"http://127.0.0.1:{silent.getsockname()[1]}", 100 * given.calls)
    print(json.dumps(results, indent=1))
    given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
