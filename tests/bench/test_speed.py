"""The benches of latency and growth at a tiny size: each row is there and measures what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bench.captured import commands_of, parsed
from bench.load import NUMBER, Job, generator, redis_request
from bench.paired import Spread, at_least, at_most, goals_table, spread
from service.store.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[2]
BESIDE = {"stores beside", "index being built", "KNN saturates Redis", "from text", "workers"}
OPERATIONS = {"exact", "semantic", "store", "tools lookup", "tools store", "embeddings lookup", "embeddings"}
NO_OPS = {"no-op Litestar", "no-op ASGI"}


def run(output: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Its JSON. An answer that isn't what a row measures ends the bench with an error."""
    tiny = ["--rounds", "1", "--seconds", "0.15", "--output", str(output)]
    subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *arguments, *tiny],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found: dict[str, Any] = json.loads(output.read_text())
    assert output.with_suffix(".svg").read_text().startswith("<svg")
    return found


def test_latency(tmp_path: Path) -> None:
    found = run(tmp_path / "latency.json", "latency", "--entries", "200", "--connections", "2")
    measured = found["measured"]
    assert measured.keys() - {"memory"} == OPERATIONS | BESIDE
    assert measured["exact"]["2"].keys() == {"semcached", "raw GET", "raw GET, joined"} | NO_OPS
    assert (
        measured["semantic"]["2"].keys() == {"semcached", "raw FT.SEARCH", "raw FT.SEARCH, joined"} | NO_OPS
    )
    for name in OPERATIONS:
        ours = measured[name]["2"]["semcached"]
        assert 0 < ours["p50_us"][0] <= ours["p99_us"][0]
        assert ours["cpu_us"][0] > 0
    assert measured["exact"]["2"]["semcached"]["redis_us"][0] > 0
    assert len(found["goals"]) >= 9
    assert all(one.keys() >= {"goal", "wanted", "measured", "reached"} for one in found["goals"])


def test_growth(tmp_path: Path) -> None:
    sizes = ["--sizes", "150,400", "--queries", "24", "--mixed", "64", "--cache", str(tmp_path)]
    found = run(tmp_path / "growth.json", "growth", *sizes, "--reload")
    assert found["sizes"].keys() == {"150", "400"}
    for size in found["sizes"].values():
        assert [one["recall"]["share"] for one in size["tenants"]] == [1] * len(size["tenants"])
        assert all(one["recall"]["asked"] > 20 for one in size["tenants"])
        assert {"semcached", "raw FT.SEARCH"} <= size["latency"]["semantic"].keys()
        assert size["memory"]["bytes per entry"]["document"] > 384 * 2
        assert size["reload s"] > 0
    of_tenants = [one["entries"] for one in found["sizes"]["400"]["tenants"]]
    assert of_tenants == sorted(of_tenants)
    assert of_tenants[0] < 10
    assert of_tenants[-1] > 120
    assert len(found["goals"]) == 8


def test_the_load_is_what_was_asked_for(tmp_path: Path) -> None:
    """Each request once, with numbers that never come twice; and a wrong answer ends the run."""
    with EmbeddedRedis(tmp_path, port=0) as server, generator() as load:
        redis: Any = Redis.from_url(server.url, protocol=2)
        address = server.url.removeprefix("redis://")
        push = redis_request(("RPUSH", "seen", NUMBER))
        for joined in (False, True):
            job = Job(
                protocol="redis", address=address, requests=[push], callers=3, joined=joined, seconds=0.1
            )
            sample = load.run(job)
            assert sample.answers == sample.sent - 3  # each caller's first isn't counted
        seen = redis.lrange("seen", 0, -1)
        assert len(set(seen)) == len(seen) == load.number
        rated = Job(protocol="redis", address=address, requests=[push], callers=2, seconds=0.5, rate=50)
        assert load.run(rated).sent <= 2 + 27
        absent = redis_request(("GET", "absent"))
        with pytest.raises(SystemExit, match="isn't what is measured"):
            load.run(Job(protocol="redis", address=address, requests=[absent], seconds=0.1))


def test_commands_are_seen_as_they_were_sent(tmp_path: Path) -> None:
    value = bytes(range(256)) + b'"\\ \r\n'
    with EmbeddedRedis(tmp_path) as server:
        redis: Any = Redis.from_url(server.url, protocol=2)
        assert commands_of(redis, lambda: redis.set("key", value))[-1] == (b"SET", b"key", value)
    assert parsed(b'1.2 [0 unix:/a] "GET" "a\\x00\\"b\\\\x"') == (b"GET", b'a\x00"b\\x')


def test_goals_say_what_was_reached() -> None:
    assert spread([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
    goals = [at_most("a", 1.3, Spread(1.4, 1.2, 1.5)), at_least("b", 0.75, Spread(0.8, 0.7, 0.9))]
    _, _, first, second = goals_table(goals).splitlines()
    assert [cell.strip() for cell in first.split("|")[1:-1]] == ["a ≤ 1.3", "1.4", "1.2 to 1.5", "NO"]
    assert second.rstrip("| ").endswith("yes")
