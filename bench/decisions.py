"""What do decisions cost a lookup, and Redis?

    python -m bench.decisions [--lookups N] [--rounds N] [--output FILE.json]

Two services run side by side and are asked the same in turns, as in `bench.lookups`: one keeps each lookup's
decision, the other none (`decisions_s` 0). Then the decisions' keys are weighed.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import httpx
from redis import Redis

from bench.lookups import Service, fill, measured, running
from bench.paired import write
from service.model import GuardName
from service.store.ledger import EVERY_S

NAMES = ("with", "without")


def told(service: Service, *, keeps: bool) -> None:
    """Set the policies of both agent_types."""
    policy = {
        "guards": dict.fromkeys(get_args(GuardName), False),
        "threshold": 0.3,
        "decisions_s": 86_400 if keeps else 0,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=60) as http:
        for name in ("bench", "texts"):
            http.put("/v1/policies", params={"agent_type": name}, json=policy).raise_for_status()


def weighed(redis: Redis) -> dict[str, float]:
    """Bytes of the keys, by Redis' own account, and how many decisions they have."""
    names = [one for one in redis.scan_iter("*:decisions:*") if b":list:" not in one]
    size = sum(int(redis.memory_usage(one, samples=0) or 0) for one in redis.scan_iter("*:decisions:*"))
    body = sum(len(blob) for name in names for blob in redis.hvals(name))
    return {"hashes": len(names), "bytes": size, "of_these_sealed": body}


def main(run: Callable[[Any], Any]) -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--lookups", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/decisions.json"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        services = []
        for name in NAMES:
            place = Path(folder) / name
            place.mkdir()
            services.append(stack.enter_context(running(name, Path.cwd(), place)))
        for service in services:
            fill(service)
            told(service, keeps=service.name == "with")
        begun = time.time()
        found = run(measured(services, given.rounds, given.lookups))
        time.sleep(3 * EVERY_S)  # until all is written
        keys = [weighed(service.redis) for service in services]
    if keys[1]["hashes"]:
        sys.exit("the one that keeps none has some")
    kinds = {"exact": 1.0, "semantic": 1.0, "embedded": 0.1, "again": 0.1, "miss": 1.0}
    count = sum(given.rounds * int(given.lookups * share) for share in kinds.values())
    per_1000 = round(1000 * keys[0]["bytes"] / count)
    print(f"{count} decisions in {time.time() - begun:.0f} s: {per_1000} bytes per 1,000 of them in Redis")
    for kind, one in found.items():
        print(f"{kind:9} cpu {one['cpu ratio, median of rounds']} times, {one['with']}, {one['without']}")
    write(
        {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "command": "python -m bench.decisions",
            "decisions": count,
            "bytes_per_1000": per_1000,
            "keys": keys[0],
        }
        | found,
        given.output,
    )


if __name__ == "__main__":
    import uvloop

    main(uvloop.run)
