"""An agent_type's rules, over HTTP: every refusal names its rule."""

from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
LOOKUP, STORE, POLICIES = "/v1/cache/lookup", "/v1/cache/store", "/v1/policies"
ASKED = {"agent_type": "support", "prompt": "How do I reset my password?"}


async def put(http: Http, **policy: Any) -> Any:
    answer = await http.put(POLICIES, params={"agent_type": "support"}, json=policy)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("policy", "fields", "rule"),
    [
        ({"bypass": ["personal"]}, {"prompt": "What is my balance?"}, "personal"),
        ({"bypass": ["creative"]}, {"prompt": "Write a poem"}, "creative"),
        ({"bypass": ["time_sensitive"]}, {"prompt": "What time is it in Tokyo?"}, "time_sensitive"),
        ({"bypass": [{"pattern": "(?i)password"}]}, {}, "pattern"),
        ({"max_temperature": 0.7}, {"temperature": 0.8}, "max_temperature"),
    ],
)
async def test_what_passes_by(client: Http, policy: Any, fields: Any, rule: str) -> None:
    asked = ASKED | fields
    await client.post(STORE, json=asked | {"response": 1})
    await put(client, **policy)
    answer = await client.post(LOOKUP, json=asked)
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, "BYPASS")
    assert (answer.json()["reason"], answer.json()["rule"]) == ("policy", rule)
    stored = await client.post(STORE, json=asked | {"response": 2})
    assert (stored.status_code, stored.json()) == (200, {"stored": False, "reason": rule})
    other = ASKED | {"prompt": "What is the refund policy?"}
    assert (await client.post(STORE, json=other | {"response": 1})).status_code == 201
    batch = await client.post(LOOKUP + "/batch", json={"items": [asked, other]})
    assert [one["outcome"] for one in batch.json()["items"]] == ["miss", "hit"]
    assert batch.headers["X-Cache"] == "BYPASS"
    await put(client)
    assert (await client.post(LOOKUP, json=asked)).headers["X-Cache"] == "HIT"


async def test_a_tier_that_the_policy_has_not(client: Http) -> None:
    await put(client, tiers=["exact"])
    answer = await client.post(LOOKUP, json=ASKED | {"tiers": ["semantic"]})
    assert (answer.json()["rule"], answer.headers["X-Cache"]) == ("tiers", "BYPASS")
    answer = await client.post(LOOKUP, json=ASKED | {"explain": True})
    assert (answer.json()["reason"], answer.headers["X-Cache"]) == ("empty", "MISS")
    assert answer.json()["decision"]["tiers"] == ["exact"]
    stored = (await client.post(STORE, json=ASKED | {"response": 1})).json()
    assert (stored["tiers"], stored["exact_only"]) == (["exact"], "policy")


@pytest.mark.parametrize(
    ("policy", "fields", "reason"),
    [
        ({}, {"response": "I'm sorry, but I can't help with that."}, "refusal"),
        ({}, {"response": {"error": "boom"}}, "error"),
        ({}, {"response": "half", "metadata": {"finish_reason": "length"}}, "finish_reason"),
        ({"admission": {"min_chars": 5}}, {"response": "four"}, "min_chars"),
        ({"admission": {"forbid": ["rival"]}}, {"response": "Ask our RIVAL"}, "forbid"),
        ({"admission": {"require": ["acme"]}}, {"response": "Yours"}, "require"),
        ({"admit_after": 2}, {"response": "r"}, "admit_after"),
    ],
)
async def test_what_is_not_stored(client: Http, policy: Any, fields: Any, reason: str) -> None:
    assert (await put(client, **policy))["admit_after"] == policy.get("admit_after", 1)
    refused = {"stored": False, "reason": reason}
    fine = {"response": "A long and good answer of ACME"}
    answer = await client.post(STORE, json=ASKED | fields)
    assert (answer.status_code, answer.json()) == (200, refused)
    items = [ASKED | {"prompt": "another"} | fields, ASKED | fine]
    batch = (await client.post(STORE + "/batch", json={"items": items})).json()["items"]
    assert batch[0] == refused
    assert batch[1]["stored"]  # of two attempts the second


async def test_times_to_live(client: Http) -> None:
    async def left(prompt: str, **fields: Any) -> Any:
        answer = await client.post(STORE, json=ASKED | {"prompt": prompt, "response": 1} | fields)
        return answer.json()["expires_in_s"]

    rules = [{"pattern": "(?i)price", "ttl_s": 60}, {"pattern": "history", "ttl_s": None}]
    await put(client, ttl_s=1000, ttl_rules=rules)
    assert 57 <= await left("The PRICE history?") <= 60
    assert await left("The history?") is None
    assert 950 <= await left("Something else?") <= 1000
    assert await left("The price?", ttl_s=5000) == 5000
    assert await left("The price now?", ttl_s=None) is None
    await put(client, max_age_s=100)
    assert await left("Something new?", ttl_s=None) == 100
    hit = (await client.post(LOOKUP, json=ASKED | {"prompt": "The history?"})).json()
    assert 90 < hit["expires_in_s"] <= 100
