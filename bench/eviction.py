"""What is left of a full cache? The same load under several maxmemory policies.

    python bench/eviction.py [POLICY…] [--entries N]

Redis gets room for about three quarters of the entries. While they are stored, in the order of their ends,
each batch is followed by exact lookups of the first HOT of them: the most used, and the first
to end. Then counts: entries whole, records without their document and documents without their record, keys of
the layout, stores that failed, and which of the hot ones still hit in each tier.
"""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
from redis import Redis

from bench.processes import served
from bench.sizing import AGENT_TYPE, entries
from service.store.embedded import EmbeddedRedis

POLICIES = ["volatile-ttl", "volatile-lru", "volatile-lfu", "allkeys-lru", "noeviction"]
HOT, BATCH, ROOM = 64, 64, 5_000


def ids(redis: Redis, kind: str) -> set[bytes]:
    return {key.rsplit(b":", 1)[1] for key in redis.scan_iter(f"*:responses:{kind}:*", count=1000)}


def hits(http: httpx.Client, asked: list[dict[str, str]], tier: str) -> int:
    items = [one | {"tiers": [tier]} for one in asked]
    answers = http.post("/v1/cache/lookup/batch", json={"items": items}).raise_for_status().json()["items"]
    return sum(answer["outcome"] == "hit" for answer in answers)


def load(http: httpx.Client, stored: Iterator[dict[str, str]], asked: list[dict[str, str]]) -> int:
    """Stores that failed."""
    failed = 0
    ending = (one | {"ttl_s": ttl_s} for ttl_s, one in enumerate(stored, 3600))
    for items in iter(lambda: list(islice(ending, BATCH)), []):
        answers = http.post("/v1/cache/store/batch", json={"items": items}).raise_for_status().json()
        failed += sum(not answer.get("stored") for answer in answers["items"])
        hits(http, asked, "exact")
    return failed


def run(policy: str, count: int) -> str:
    """A row of the table."""
    options = ("--maxmemory-policy", policy)
    asked = [
        {"agent_type": AGENT_TYPE, "prompt": one["prompt"], "embedding": one["embedding"]}
        for one in entries(HOT, 1)
    ]
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedRedis(Path(name) / "redis", options=options) as server,
    ):
        redis = Redis.from_url(server.url, protocol=2)
        with served(Path(name) / "service", redis_url=server.url, redis_timeout_s="10") as service:
            redis.config_set("maxmemory", redis.info("memory")["used_memory"] + count * ROOM)
            failed = load(service.http, entries(count, 1_200), asked)
            layout = sum(1 for _ in redis.scan_iter("*{meta}*"))
            records, documents = ids(redis, "record"), ids(redis, "document")
            exact, semantic = (hits(service.http, asked, tier) for tier in ("exact", "semantic"))
    return (
        f"{policy:13} {len(records & documents):6} {len(records - documents):7} {len(documents - records):9} "
        f"{layout:7} {failed:7} {exact:6} {semantic:9}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("policies", nargs="*", default=POLICIES, help="maxmemory-policy; several if absent")
    parser.add_argument("--entries", type=int, default=8_000)
    arguments = parser.parse_args()
    print(f"of {arguments.entries} entries, {HOT} of them hot")
    print("policy         whole records documents  layout  failed    hot       hot")
    print("                left   alone     alone    keys  stores  exact  semantic")
    for policy in arguments.policies:
        print(run(policy, arguments.entries), flush=True)


if __name__ == "__main__":
    main()
