"""Of a thousand callers that miss the same at the same time, how many are told to make the answer?

    python -m bench.stampede [--callers N] [--output FILE.json]

Two service processes over one Redis, half of the callers at each, every one with a connection of its own.
Who gets the lease takes a second to make the answer, and stores it. Then the same with a leader who never
stores, and a store that shows its lease after its source was invalidated. For answers and for tool results.
"""

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from bench.processes import served
from bench.raw import Answer, connected

WORK_S = 1.0


class Kind(NamedTuple):
    """A keyspace's calls, with a question and its answer."""

    lookup: str
    store: str
    question: dict[str, Any]
    answer: dict[str, Any]

    def asked(self, what: str) -> dict[str, Any]:
        """Another question each time."""
        return json.loads(json.dumps(self.question).replace("WHAT", what))  # type: ignore[no-any-return] # JSON


KINDS = {
    "responses": Kind(
        *("/v1/cache/lookup", "/v1/cache/store"),
        {"agent_type": "a", "prompt": "Who makes WHAT?"},
        {"response": "one of them", "sources": ["doc:7"]},
    ),
    "tools": Kind(
        *("/v1/tools/lookup", "/v1/tools/store"),
        {"agent_type": "a", "tool": "get_maker", "arguments": {"of": "WHAT"}},
        {"result": {"maker": 1}, "sources": ["doc:7"]},
    ),
}


async def post(port: int, path: str, body: dict[str, Any]) -> Answer:
    async with connected(port) as connection:
        return await connection.post(path, json.dumps(body).encode())


async def caller(port: int, kind: Kind, what: str, wait_s: float, *, stores: bool) -> str:
    """How a caller fared: `hit`, `led` or `alone`."""
    found = (await post(port, kind.lookup, kind.asked(what) | {"wait_s": wait_s})).json
    if found["outcome"] == "hit":
        return "hit"
    if found["lease"] and stores:
        await asyncio.sleep(WORK_S)
        await post(port, kind.store, kind.asked(what) | kind.answer | {"lookup_id": found["lookup_id"]})
    return "led" if found["lease"] else "alone"


async def crowd(ports: Sequence[int], kind: Kind, what: str, callers: int) -> Counter[str]:
    asking = (caller(ports[at % 2], kind, what, 60, stores=True) for at in range(callers))
    return Counter(await asyncio.gather(*asking))


async def too_late(ports: Sequence[int], kind: Kind) -> str:
    """What a store is answered whose source was invalidated at the other process since it got the lease."""
    found = (await post(ports[0], kind.lookup, kind.asked("late") | {"wait_s": 20})).json
    await post(ports[1], "/v1/invalidate", {"where": {"source": "doc:7"}})
    entry = kind.asked("late") | kind.answer | {"lookup_id": found["lookup_id"]}
    told = (await post(ports[0], kind.store, entry)).json
    return str(told.get("reason", told))


async def measured(ports: Sequence[int], callers: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        at_once = await crowd(ports, kind, "this", callers)
        leader = await caller(ports[0], kind, "that", 2, stores=False)  # it dies
        after = await crowd(ports, kind, "that", callers // 10)
        found[name] = {
            "callers at once": dict(at_once),
            "the leader who dies": leader,
            "those after": dict(after),
            "a store behind an invalidation": await too_late(ports, kind),
        }
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--callers", type=int, default=1000)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/stampede.json"))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first", Path(name) / "second"
        second.mkdir()
        with served(first, secret="a secret of this bench", redis_timeout_s="5") as one:  # noqa: S106 - no secret
            url = f"unix://{next(path for path in first.rglob('*') if path.is_socket())}"
            with served(second, secret="a secret of this bench", redis_timeout_s="5", redis_url=url) as other:  # noqa: S106 - as above
                found = uvloop.run(measured([one.port, other.port], given.callers))
    given.output.write_text(json.dumps({"callers": given.callers} | found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
