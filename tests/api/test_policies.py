"""GET and PUT /v1/policies, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.api.auth import Role, create_key
from service.app import create_app
from service.cache import guards
from service.settings import Settings
from service.verifiers.crossencoder import WEIGHTS, digest_of
from service.wiring import Loaded

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
THRESHOLD = Settings().threshold
LOOKUP, STORE, POLICIES = "/v1/cache/lookup", "/v1/cache/store", "/v1/policies"
ASKED = {"agent_type": "support", "prompt": "How do I reset my password?"}
REWORDED = ASKED | {"prompt": "How can I reset my password?"}
GUARDS = [
    *("numbers", "dates", "units", "negation", "antonyms", "entities", "scope_words", "question"),
    "verifier",
]
DEFAULTS = {
    "threshold": THRESHOLD,
    "guards": dict.fromkeys(GUARDS, True),
    "verifier_cut": msgspec.json.decode(WEIGHTS.with_suffix(".json").read_bytes())["cut"],
    "verifier_head": None,
    "verifier_version": digest_of(WEIGHTS.read_bytes()),
    "history": "exact",
    "ttl_s": 86400,
    "ttl_rules": [],
    "max_age_s": None,
    "tiers": ["exact", "semantic"],
    "max_temperature": None,
    "bypass": [],
    "admission": {"min_chars": 1, "forbid": [], "require": [], "refusals": True},
    "admit_after": 1,
    "max_entries": None,
    "mode": "static",
    "max_error_rate": 0.02,
    "threshold_bounds": None,
    "comparison": "similar",
    "shadow": False,
    "decisions_s": 86400,
    "review_sample_rate": 0.0,
    "prompt_cache": False,
}


async def put(http: Http, agent_type: str, policy: Any, **request: Any) -> Any:
    answer = await http.put(POLICIES, params={"agent_type": agent_type}, json=policy, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def get(http: Http, agent_type: str, **request: Any) -> Any:
    answer = await http.get(POLICIES, params={"agent_type": agent_type}, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


@asynccontextmanager
async def another(settings: Settings, models: Loaded) -> AsyncIterator[Http]:
    """A second application over the same Redis."""
    async with AsyncTestClient(create_app(settings, settings.redis_url or "", models)) as http:
        yield http


async def test_a_policy_is_set_as_a_whole(client: Http) -> None:
    assert await get(client, "support") == DEFAULTS
    assert await put(client, "support", {"threshold": 0.9, "guards": {"units": False}}) == DEFAULTS | {
        "threshold": 0.9,
        "guards": DEFAULTS["guards"] | {"units": False},
    }
    second = {"verifier_cut": 0.25, "history": "standalone"}
    assert await put(client, "support", second) == DEFAULTS | second
    assert await get(client, "support") == DEFAULTS | second
    assert await put(client, "support", await get(client, "support")) == DEFAULTS | second
    assert await put(client, "support", {}) == DEFAULTS
    assert await get(client, "sales") == DEFAULTS


async def test_it_is_in_force_with_the_next_lookup(client: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.post(STORE, json=ASKED | {"response": 1})
    assert (await client.post(LOOKUP, json=REWORDED)).json()["outcome"] == "hit"

    await put(client, "support", {"threshold": 0.999})
    miss = (await client.post(LOOKUP, json=REWORDED | {"explain": True})).json()
    assert miss["reason"] == "below_threshold"
    assert miss["decision"]["threshold"] == 0.999
    assert miss["decision"]["policy"]["threshold"] == 0.999
    assert (await client.post(LOOKUP, json=REWORDED | {"threshold": 0.9})).json()["outcome"] == "hit"
    assert (await client.post(LOOKUP, json=ASKED)).json()["tier"] == "exact"

    await put(client, "support", {})
    assert (await client.post(LOOKUP, json=REWORDED)).json()["threshold"] == THRESHOLD

    monkeypatch.setattr(guards, "WORDING", {"question": lambda a, b: a.text[:5] == b.text[:5]})
    miss = (await client.post(LOOKUP, json=REWORDED)).json()
    assert (miss["reason"], miss["rule"]) == ("guard", "question")
    await put(client, "support", {"guards": {"question": False}})
    assert (await client.post(LOOKUP, json=REWORDED)).json()["outcome"] == "hit"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"treshold": 0.5}, "treshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"guards": {"number": False}}, "guards"),
        ({"guards": {"history": False}}, "guards"),
        ({"guards": {"numbers": 1}}, "guards"),
        ({"guards": ["numbers"]}, "guards"),
        ({"verifier_cut": -0.1}, "verifier_cut"),
        ({"history": "any"}, "history"),
        ({"history": None}, "history"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": 1.5}, "max_entries"),
        ({"agent_type": "support"}, "agent_type"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"ttl_s": "60"}, "ttl_s"),
        ({"max_age_s": 0.5}, "max_age_s"),
        ({"ttl_rules": [{"pattern": "a"}]}, "ttl_rules[0].ttl_s"),
        ({"ttl_rules": [{"pattern": "a", "ttl_s": 1}, {"pattern": "(", "ttl_s": 1}]}, "ttl_rules[1].pattern"),
        ({"ttl_rules": [{"pattern": "", "ttl_s": 1}]}, "ttl_rules[0].pattern"),
        ({"ttl_rules": [{"pattern": "a" * 513, "ttl_s": 1}]}, "ttl_rules[0].pattern"),
        ({"ttl_rules": [{"pattern": "a", "ttl_s": None, "name": 1}]}, "ttl_rules[0].name"),
        ({"tiers": []}, "tiers"),
        ({"tiers": ["memory"]}, "tiers[0]"),
        ({"max_temperature": -1}, "max_temperature"),
        ({"bypass": ["creative", "secret"]}, "bypass[1]"),
        ({"bypass": [{"pattern": "(?=a)"}]}, "bypass[0].pattern"),
        ({"bypass": [{"pattern": "(.{500}){500}"}]}, "bypass[0].pattern"),
        ({"bypass": [{"pattern": "\\p{L}{9}"}, {"pattern": "a{1000}b{900}"}]}, "bypass[0].pattern"),
        ({"bypass": [{"pattern": f"{one}{{600}}"} for one in "abc"]}, "bypass[2].pattern"),
        ({"admission": {"min_chars": 0}}, "admission.min_chars"),
        ({"admission": {"forbid": [""]}}, "admission.forbid[0]"),
        ({"admission": {"forbids": []}}, "admission.forbids"),
        ({"admit_after": 0}, "admit_after"),
        ({"threshold_bounds": [0.9, 0.7]}, "threshold_bounds"),
        ({"mode": "verified", "decisions_s": 0}, "decisions_s"),
        ({"shadow": True, "decisions_s": 0}, "decisions_s"),
        ({"mode": "verified", "comparison": "judge"}, "comparison"),
        ({"mode": "perfect"}, "mode"),
        ([], "body"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_changes(client: Http, policy: Any, field: str) -> None:
    await put(client, "support", {"threshold": 0.9})
    answer = await client.put(POLICIES, params={"agent_type": "support"}, json=policy)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await get(client, "support"))["threshold"] == 0.9


@pytest.mark.parametrize(
    ("policy", "known"),
    [
        ({"guards": {"number": False}}, "numbers, dates, units"),
        ({"history": "any"}, "exact, standalone, rewrite"),
        ({"tiers": ["memory"]}, "exact, semantic"),
        ({"bypass": ["secret"]}, "creative, time_sensitive, personal"),
        ({"mode": "perfect"}, "static, adaptive, verified"),
        ({"comparison": "same"}, "equal, similar, judge"),
    ],
)
async def test_a_wrong_name_gets_the_right_ones(client: Http, policy: Any, known: str) -> None:
    answer = await client.put(POLICIES, params={"agent_type": "support"}, json=policy)
    assert known in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b'{"guards":{"\\ud800":true}}', b"[" * 5000, b'{"\xff":1}']
)
async def test_rubbish_is_400(client: Http, body: bytes) -> None:
    answer = await client.put(POLICIES, params={"agent_type": "a"}, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"]


async def test_too_large_is_413(client: Http) -> None:
    answer = await client.put(POLICIES, params={"agent_type": "a"}, content=b" " * (2**20 + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "agent_type"),
        ("?agent_type=", "agent_type"),
        ("?agent_type=a&agent_type=b", "agent_type"),
        ("?agent_type=%ff", "query"),
        ("?agenttype=a", "agenttype"),
        ("?agent_type=a&tenant=b", "tenant"),
        ("?agent_type=" + "%C3%A9" * 300, "agent_type"),
    ],
)
async def test_the_agent_type_is_required_and_exact(client: Http, query: str, field: str) -> None:
    for answer in (await client.get(POLICIES + query), await client.put(POLICIES + query, json={})):
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("name", ["a b", "a+b", "é", "e\u0301", "a&b=c", "a\0b", "{a}", "A B"])
async def test_agent_types_are_exact_bytes(client: Http, name: str) -> None:
    await put(client, name, {"threshold": 0.5})
    assert (await get(client, name))["threshold"] == 0.5
    for other in (name + " ", name.swapcase() + "x", "a"):
        assert (await get(client, other))["threshold"] == THRESHOLD
    assert (await client.post(LOOKUP, json=ASKED | {"agent_type": name, "explain": True})).json()["decision"][
        "threshold"
    ] == 0.5


async def test_roles_and_tenants(guarded: Http, keys_file: Path) -> None:
    def header(tenant: str, role: Role) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {create_key(keys_file, tenant, role)}"}}

    admin, writer, reader = (header("acme", role) for role in (Role.admin, Role.writer, Role.reader))
    other = header("Acme", Role.admin)
    await put(guarded, "support", {"threshold": 0.5}, **admin)
    for refused, status in ((writer, 403), (reader, 403), ({}, 401)):
        answer = await guarded.put(POLICIES, params={"agent_type": "support"}, json={}, **refused)
        assert answer.status_code == status
    assert (await guarded.get(POLICIES, params={"agent_type": "support"})).status_code == 401
    assert (await get(guarded, "support", **reader))["threshold"] == 0.5
    assert await get(guarded, "support", **other) == DEFAULTS
    await put(guarded, "support", {"threshold": 0.7}, **other)
    assert (await get(guarded, "support", **admin))["threshold"] == 0.5
    asked = ASKED | {"explain": True}
    for headers, threshold in ((reader, 0.5), (other, 0.7)):
        answer = await guarded.post(LOOKUP, json=asked, **headers)
        assert answer.json()["decision"]["threshold"] == threshold


async def test_others_follow_without_a_restart(client: Http, settings: Settings, models: Loaded) -> None:
    async def threshold(http: Http) -> float:
        decision = (await http.post(LOOKUP, json=ASKED | {"explain": True})).json()["decision"]
        return float(decision["threshold"])

    await put(client, "support", {"threshold": 0.5})
    async with another(settings, models) as second:
        assert await threshold(second) == 0.5  # also what a restart finds
        await put(client, "support", {"threshold": 0.6})
        with anyio.fail_after(10):
            while await threshold(second) != 0.6:
                await anyio.sleep(0.05)
        await put(second, "support", {"threshold": 0.7})
        assert (await get(client, "support"))["threshold"] == 0.7
        assert await threshold(client) == 0.7  # who asked for it has it


async def test_the_call_is_documented(client: Http) -> None:
    operations = (await client.get("/docs/openapi.json")).json()["paths"][POLICIES]
    for operation in (operations["get"], operations["put"]):
        (parameter,) = operation["parameters"]
        assert (parameter["name"], parameter["in"], parameter["required"]) == ("agent_type", "query", True)
        answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert answered["properties"].keys() == DEFAULTS.keys()
        assert all(field["description"] for field in answered["properties"].values())
    asked = operations["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert asked["additionalProperties"] is False
    assert sorted(asked["properties"]["guards"]["propertyNames"]["enum"]) == sorted(GUARDS)
    assert "requestBody" not in operations["get"]


async def test_metrics_count_policies(client: Http) -> None:
    await put(client, "a-secret-name", {})
    text = (await client.get("/metrics")).text
    assert "semcached_policies 1.0" in text
    assert 'semcached_policies_refused_total{why="mac"}' in text
    assert 'requests_total{call="put_policy",status="200"}' in text
    assert "a-secret-name" not in text
