"""Hits to be judged, made as agents make them."""

import time
from typing import Any

import httpx

from tests.helpers import near, vector

AGENT = "support"
WAIT_S = 30


def hits(http: httpx.Client, count: int, **fields: Any) -> list[str]:
    """So many semantic hits of an entry each, all in the queue; their lookup ids."""
    sample(http, AGENT)
    made = [hit(http, number, **fields) for number in range(count)]
    queued(http, made)
    return made


def sample(http: httpx.Client, agent_type: str) -> None:
    """Have every hit reviewed."""
    ok(http.put("/v1/policies", params={"agent_type": agent_type}, json={"review_sample_rate": 1}))


def hit(http: httpx.Client, number: int, **fields: Any) -> str:
    """One; `number` tells it from others. Of fields: `asked`, `prompt`, `response`, `agent_type`."""
    asked = fields.pop("asked", f"How can I reset the password of account {number}?")
    common = {"agent_type": AGENT, "prompt": f"How do I reset the password of account {number}?"} | fields
    response = common.pop("response", f"Settings, Security, account {number}.")
    ok(http.post("/v1/cache/store", json=common | {"response": response, "embedding": vector(number)}))
    lookup = common | {"prompt": asked, "embedding": near(number, 0.98)}
    found = ok(http.post("/v1/cache/lookup", json=lookup)).json()
    assert found["outcome"] == "hit", found
    lookup_id: str = found["lookup_id"]
    return lookup_id


def queued(http: httpx.Client, made: list[str]) -> None:
    """Wait until they are written."""
    deadline = time.monotonic() + WAIT_S
    while ok(http.get("/v1/reviews", params={"limit": "1"})).json()["pending"] < len(made):
        assert time.monotonic() < deadline, "they are never queued"
        time.sleep(0.05)


def ok(answer: httpx.Response) -> httpx.Response:
    """It went well."""
    assert answer.is_success, answer.text
    return answer
