"""What does a lookup cost the service: CPU and round trips to Redis, of one version beside another?

    python -m bench.lookups [--other CHECKOUT] [--lookups N] [--rounds N] [--output FILE.json]

Services of both versions run side by side, each over an embedded Redis of its own, and are asked the same
in turns, so that what the machine does besides meets both. CPU is the service process' own, all threads, from
the scheduler; round trips are Redis' count of ECHO, with which each ends. Kinds: `exact`: a hit by id;
`semantic`: a hit by a vector that the request brings; `embedded`: a hit by a text that was never seen, which
the local model embeds; `again`: a text asked before, which is no entry's; `miss`: a new
question with a vector.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import numpy as np
from redis import Redis

from bench.processes import environment, free_port
from bench.raw import connected
from service.model import GuardName

ENTRIES = 200
DIM = 384


class Service(NamedTuple):
    """A version that runs."""

    name: str
    port: int
    pid: int
    redis: Redis


class Spent(NamedTuple):
    """Per lookup."""

    cpu_us: float
    trips: float


@contextmanager
def running(name: str, checkout: Path, folder: Path) -> Iterator[Service]:
    """`semcached serve` of a checkout, by its own environment."""
    port = free_port()
    settings = environment(folder, port=str(port), redis_timeout_s="5", verifier="off")
    program = [str(checkout / ".venv" / "bin" / "semcached"), "serve"]
    with subprocess.Popen(program, env=settings, cwd=checkout, stderr=subprocess.PIPE, text=True) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                while not ready(http, process):
                    time.sleep(0.05)  # until it is asked again whether it is ready
            with Redis(unix_socket_path=str(socket_of(folder))) as redis:
                yield Service(name, port, process.pid, redis)
        finally:
            process.terminate()


def ready(http: httpx.Client, process: subprocess.Popen[str]) -> bool:
    if process.poll() is not None:
        sys.exit(process.stderr.read() if process.stderr else "it ended")
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def socket_of(folder: Path) -> Path:
    return next(path for path in folder.rglob("*") if path.is_socket())


def cpu_ns(pid: int) -> int:
    """On-CPU time of all threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def trips(redis: Redis) -> int:
    info: Any = redis.info("commandstats")
    return int(info.get("cmdstat_echo", {}).get("calls", 0))


def vector(seed: int) -> list[float]:
    values = np.random.default_rng(seed).normal(size=DIM)
    found: list[float] = (values / np.linalg.norm(values)).round(5).tolist()
    return found


def fill(service: Service) -> None:
    off = {"guards": dict.fromkeys(get_args(GuardName), False), "threshold": 0.3}
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=60) as http:
        for name in ("bench", "texts"):  # it isn't asked what is right, but what it costs
            http.put("/v1/policies", params={"agent_type": name}, json=off).raise_for_status()
        for at in range(ENTRIES):
            entry = {
                "agent_type": "bench",
                "prompt": f"What is the price of item number {at}?",
                "response": "x" * 800,
            }
            http.post("/v1/cache/store", json=entry | {"embedding": vector(at)}).raise_for_status()
            text = {
                "agent_type": "texts",
                "prompt": f"How do I return the order of week {at}?",
                "response": "x" * 800,
            }
            http.post("/v1/cache/store", json=text).raise_for_status()


def body(kind: str, at: int, turn: int) -> dict[str, Any]:
    one = at % ENTRIES
    if kind == "exact":
        return {"agent_type": "bench", "prompt": f"What is the price of item number {one}?"}
    if kind == "semantic":
        return {
            "agent_type": "bench",
            "prompt": f"the item's price {turn} {at}",
            "embedding": vector(one),
            "threshold": 0.9,
        }
    if kind == "embedded":
        return {
            "agent_type": "texts",
            "prompt": f"How do I return the order of week {one}, turn {turn}.{at}?",
            "threshold": 0.3,
        }
    if kind == "again":
        return {
            "agent_type": "texts",
            "prompt": f"How do I return the order of week {one}, please?",
            "threshold": 0.3,
        }
    return {
        "agent_type": "bench",
        "prompt": f"else {turn} {at}",
        "embedding": vector(10**6 + at + 10**4 * turn),
    }


async def asked(service: Service, kind: str, turn: int, count: int) -> Spent:
    bodies = [json.dumps(body(kind, at, turn)).encode() for at in range(count)]
    async with connected(service.port) as connection:
        cpu, before = cpu_ns(service.pid), trips(service.redis)
        answers = [await connection.post("/v1/cache/lookup", one) for one in bodies]
        cpu, after = cpu_ns(service.pid) - cpu, trips(service.redis)
    hits = sum(answer.headers["x-cache"] == "HIT" for answer in answers)
    if hits != (0 if kind == "miss" else count):
        sys.exit(f"{service.name}, {kind}: {hits} hits of {count}")
    return Spent(cpu / 1000 / count, (after - before) / count)


KINDS = ("exact", "semantic", "embedded", "again", "miss")


async def measured(services: list[Service], rounds: int, count: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[Spent]]] = {kind: {one.name: [] for one in services} for kind in KINDS}
    for turn in range(rounds):
        for kind in KINDS:
            for service in services[:: 1 if turn % 2 else -1]:
                few = count // 10 if kind in {"embedded", "again"} else count
                found[kind][service.name].append(await asked(service, kind, turn, few))
    return {kind: report(by_name) for kind, by_name in found.items()}


def report(by_name: dict[str, list[Spent]]) -> dict[str, Any]:
    told: dict[str, Any] = {
        name: {
            "cpu_us": round(statistics.median(one.cpu_us for one in spent), 1),
            "least_cpu_us": round(min(one.cpu_us for one in spent), 1),
            "round_trips": round(statistics.median(one.trips for one in spent), 2),
        }
        for name, spent in by_name.items()
    }
    if len(by_name) == 2:
        ours, theirs = by_name.values()
        ratios = [one.cpu_us / other.cpu_us for one, other in zip(ours, theirs, strict=True)]
        told["cpu ratio, median of rounds"] = round(statistics.median(ratios), 3)
        told["cpu ratio, of the least"] = round(
            min(o.cpu_us for o in ours) / min(o.cpu_us for o in theirs), 3
        )
    return told


def main(run: Callable[[Any], Any]) -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--other", type=Path, help="a checkout of another version, with its .venv")
    arguments.add_argument("--lookups", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/lookups.json"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        checkouts = {"this": Path.cwd()} | ({"other": given.other.resolve()} if given.other else {})
        services = []
        for name, checkout in checkouts.items():
            place = Path(folder) / name
            place.mkdir()
            services.append(stack.enter_context(running(name, checkout, place)))
        for service in services:
            fill(service)
        found = run(measured(services, given.rounds, given.lookups))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    given.output.write_text(
        json.dumps({"machine": machine, "lookups": given.lookups, "rounds": given.rounds} | found, indent=1)
        + "\n"
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    import uvloop

    main(uvloop.run)
