"""Two real processes over one Redis: what one changes, the other doesn't serve from its memory."""

import time
from pathlib import Path
from typing import Any

from bench.processes import Served, served
from service.cache.memory import LONGEST_S
from service.store.embedded import EmbeddedRedis
from tests.acl import as_service

QUESTION = {"agent_type": "a", "prompt": "How do I reset my password?"}


def asked(service: Served) -> Any:
    return service.http.post("/v1/cache/lookup", json=QUESTION).json()


def recalled(service: Served) -> Any:
    """Ask until it comes from memory."""
    answer, until = asked(service), time.monotonic() + 20
    while time.monotonic() < until:
        if answer.get("tier") == "memory":
            return answer
        time.sleep(0.01)
        answer = asked(service)
    raise AssertionError(answer)


def test_two_processes(tmp_path: Path, redis_server: EmbeddedRedis, prefix: str) -> None:
    shared = {
        "redis_url": as_service(redis_server.url),
        "key_prefix": prefix,
        "secret": "a secret of the tests, 1",
        "verifier": "off",
    }
    with served(tmp_path / "near", **shared) as near, served(tmp_path / "far", **shared) as far:
        for turn in range(10):
            stored = {**QUESTION, "response": turn, "tags": ["t"]}
            assert near.http.post("/v1/cache/store", json=stored).status_code == 201
            assert recalled(near)["response"] == recalled(far)["response"] == turn
            far.http.post("/v1/cache/store", json={**stored, "response": "new"})
            assert asked(far)["response"] == "new"
            time.sleep(LONGEST_S)
            assert asked(near)["response"] == "new"
            recalled(near)
            far.http.post("/v1/invalidate", json={"where": {"tag": "t"}})
            assert asked(far)["outcome"] == "miss"
            time.sleep(LONGEST_S)
            assert asked(near)["outcome"] == "miss"
        told = near.http.get("/metrics").text
        assert "semcached_memory_invalidations_total" in told
        assert near.http.get("/v1/stats").json()["hits"]["memory"] >= 20
