"""The bench of kills at a tiny size, each way to be killed once; and what it looks at finds what is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from bench.keyspace import Keyspace
from service.api.auth import operator
from service.wiring import Parts
from tests.migrate.test_moving import fill

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def test_kills(tmp_path: Path) -> None:
    output = tmp_path / "kills.json"
    tiny = ["--kills", "1", "--redis-kills", "1", "--pairs", "1", "--entries", "40", "--kinds", "convert"]
    subprocess.run(
        [sys.executable, "-m", "bench.kills", *tiny, "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,  # it ends with an error where one was lost, or both of a pair worked
    )
    (found,) = json.loads(output.read_text())["kinds"]
    assert found["kills"]
    assert found["redis_kills"]
    assert sum(found["pairs"].values()) == found["rolled_back"] == 1
    assert found["changes"] > 0
    assert found["polled"]["polls"] > 0


Spoil = Callable[[Redis, list[bytes], str], object]
SPOILED: dict[str, Spoil] = {
    "records without a document": lambda redis, names, _: redis.unlink(names[0]),
    "documents without a record": lambda redis, names, _: redis.unlink(
        names[0].replace(b":document:1:", b":record:")
    ),
    "documents with another end": lambda redis, names, _: redis.persist(names[0]),
    "documents of another space": lambda redis, names, _: redis.hset(
        names[0].replace(b":document:1:", b":document:2:"), "stored_at", 1
    ),
    "documents without a vector": lambda redis, names, _: redis.hdel(names[0], "vector"),
    "documents that wait for a vector": lambda redis, _, prefix: redis.zadd(
        f"{prefix}:{{0}}:responses:pending:1", {"a" * 32: 1}
    ),
}


@pytest.mark.parametrize("flaw", SPOILED)
async def test_the_keyspace_tells_flaws(parts: Parts, redis: Redis, flaw: str) -> None:
    await fill(parts, parts.keyring.of(operator("acme")), range(5))
    prefix = parts.settings.key_prefix
    keyspace = Keyspace(redis, prefix)
    assert list(keyspace.flaws()) == []
    names = sorted(redis.scan_iter(f"{prefix}:*:responses:document:*"))
    SPOILED[flaw](redis, names, prefix)
    assert f"1 {flaw}" in list(keyspace.flaws())
