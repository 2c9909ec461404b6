"""The calls of the contract, over HTTP."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.api.auth import Role, create_key, read_keys, revoke_key
from service.settings import Settings

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
ASKED = {"agent_type": "support", "prompt": "How do I reset my password?"}


async def test_store_then_hit(client: Http) -> None:
    first = await client.post(LOOKUP, json=ASKED)
    assert (first.status_code, first.headers["x-cache"]) == (200, "MISS")
    miss = first.json()
    assert miss.pop("latency_ms") > 0
    assert len(miss.pop("lookup_id")) == 32
    assert miss == {"outcome": "miss", "reason": "empty", "nearest": None, "lease": False}

    entry = ASKED | {
        "response": "Settings → Security",
        "sources": ["doc:7"],
        "tags": ["t"],
        "attributes": {"lang": "en"},
        "metadata": {"a": [1, None]},
        "usage": {"input_tokens": 5, "cost_usd": 0.01},
        "ttl_s": 60,
        "lookup_id": "0" * 32,
    }
    stored = await client.post(STORE, json=entry)
    assert stored.status_code == 201
    assert stored.json()["stored"] is True
    hit = await client.post(LOOKUP, json=ASKED | {"attributes": {"lang": "en"}})
    assert hit.headers["x-cache"] == "HIT"
    body = hit.json()
    assert body.pop("latency_ms") > 0
    assert 0 <= body.pop("age_s") < 30
    assert 30 < body.pop("expires_in_s") <= 60
    del body["lookup_id"]
    assert body == {
        "outcome": "hit",
        "tier": "exact",
        "entry_id": stored.json()["entry_id"],
        "response": "Settings → Security",
        "similarity": 1.0,
        "threshold": Settings().threshold,
        "sources": ["doc:7"],
        "attributes": {"lang": "en"},
        "metadata": {"a": [1, None]},
    }


async def test_answers_come_back_byte_for_byte(client: Http) -> None:
    raw = '{"b":1.50, "a" : [1e2,"\\u00e9 é"],"b":2}'
    body = f'{{"agent_type":"a","prompt":"p","response":{raw}}}'
    assert (await client.post(STORE, content=body.encode())).status_code == 201
    hit = await client.post(LOOKUP, json={"agent_type": "a", "prompt": "p"})
    assert f'"response":{raw},' in hit.text


async def test_explain_shows_the_decision(client: Http) -> None:
    await client.post(STORE, json=ASKED | {"response": 1})
    asked = ASKED | {"prompt": "How can I reset my password?", "explain": True, "threshold": 0.5}
    decision = (await client.post(LOOKUP, json=asked)).json()["decision"]
    assert decision["threshold"] == 0.5
    assert decision["generation"] == 1
    assert decision["tiers"] == ["exact", "semantic"]
    assert [one["rejected_by"] for one in decision["candidates"]] == [None]
    assert {"exact", "embed", "semantic"} <= decision["stages_ms"].keys()


@pytest.mark.parametrize("response", ["", "  ", None])
async def test_empty_answers_are_refused_by_name(client: Http, response: str | None) -> None:
    answer = await client.post(STORE, json=ASKED | {"response": response})
    assert (answer.status_code, answer.json()) == (200, {"stored": False, "reason": "min_chars"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"treshold": 0.5}, "treshold"),
        ({"agent_type": None}, "agent_type"),
        ({"agent_type": ""}, "agent_type"),
        ({"agent_type": "é" * 300}, "agent_type"),
        ({"prompt": 5}, "prompt"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"prompt": None, "messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"prompt": None, "messages": [{"role": "user", "content": "x", "x": 1}]}, "messages[0].x"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "0.5"}, "threshold"),
        ({"tiers": []}, "tiers"),
        ({"tiers": ["memory"]}, "tiers[0]"),
        ({"attributes": {"k": 1}}, "attributes"),
        ({"attributes": {"": "v"}}, "attributes"),
        ({"attributes": {str(n): "v" for n in range(33)}}, "attributes"),
        ({"embedding": [1, 2]}, "embedding"),
        ({"temperature": True}, "temperature"),
        ({"wait_s": -1}, "wait_s"),
    ],
)
async def test_a_wrong_field_is_named(client: Http, change: dict[str, Any], field: str) -> None:
    answer = await client.post(LOOKUP, json=ASKED | change)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem = answer.json()
    assert problem["status"] == 400
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("ttl", [0, -1, 0.5, 4e9, 10**30, "60", True, [1]])
async def test_ttls_out_of_range_store_nothing(client: Http, ttl: Any) -> None:
    answer = await client.post(STORE, json=ASKED | {"response": "r", "ttl_s": ttl})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "ttl_s"
    assert (await client.post(LOOKUP, json=ASKED)).json()["reason"] == "empty"


async def test_ttl_null_is_none_and_absent_is_a_day(client: Http) -> None:
    left = (await client.post(STORE, json=ASKED | {"response": 1})).json()["expires_in_s"]
    assert 0.95 * 86400 <= left <= 86400
    assert (await client.post(STORE, json=ASKED | {"response": 1, "ttl_s": None})).json()[
        "expires_in_s"
    ] is None
    assert (await client.post(LOOKUP, json=ASKED)).json()["expires_in_s"] is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":1}x', b"[" * 100_000),
        b'{"agent_type":"\xff","prompt":"p"}',
        b'{"agent_type":"a","prompt":"p","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"agent_type":"a","prompt":"\\ud800"}',
        b'{"agent_type":"a","prompt":"p","threshold":NaN}',
        b'{"agent_type":"a","prompt":"p","temperature":1e999}',
    ],
)
@pytest.mark.parametrize("path", [LOOKUP, STORE, LOOKUP + "/batch", STORE + "/batch"])
async def test_rubbish_is_400(client: Http, path: str, body: bytes) -> None:
    answer = await client.post(path, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize("inner", [b'"\xff"', b'"\\ud800"', b"[" * 2000, b"1e999", b"nul", b'{"a":}'])
async def test_rubbish_as_an_answer_is_400_and_not_stored(client: Http, inner: bytes) -> None:
    body = b'{"agent_type":"a","prompt":"p","response":' + inner + b"}"
    assert (await client.post(STORE, content=body)).status_code == 400
    assert (await client.post(LOOKUP, json={"agent_type": "a", "prompt": "p"})).json()["reason"] == "empty"


async def test_too_large_is_413(client: Http) -> None:
    large = ASKED | {"prompt": "x" * 2**20}
    assert (await client.post(LOOKUP, json=large)).status_code == 413
    assert (await client.post(LOOKUP + "/batch", json={"items": [large]})).status_code == 200
    assert (await client.post(STORE + "/batch", content=b" " * (16 * 2**20 + 1))).status_code == 413


async def test_ttls_may_be_fractions(client: Http) -> None:
    stored = await client.post(STORE, json=ASKED | {"response": 1, "ttl_s": 3600.5})
    assert stored.json()["expires_in_s"] == 3600.5


async def test_integers_beyond_64_bits(client: Http) -> None:
    huge = 2**64 + 1
    talk = [
        {"role": "assistant", "tool_calls": [{"id": huge}]},
        {"role": "user", "content": "and what does it mean?"},
    ]
    entry = {"agent_type": "a", "messages": talk, "params": {"seed": huge}, "metadata": {"n": huge}}
    assert (await client.post(STORE, json=entry | {"response": huge})).status_code == 201
    asked = {name: value for name, value in entry.items() if name != "metadata"}
    hit = (await client.post(LOOKUP, json=asked)).json()
    assert (hit["response"], hit["metadata"]) == (huge, {"n": huge})
    other = asked | {"params": {"seed": huge + 1}}
    assert (await client.post(LOOKUP, json=other)).json()["outcome"] == "miss"


async def test_web_pages_from_elsewhere_are_refused_without_keys(client: Http) -> None:
    cases = [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]", 200),
    ]
    for origin, status in cases:
        answer = await client.post(LOOKUP, json=ASKED, headers=[("Origin", origin)])
        assert answer.status_code == status, origin


async def test_deep_nesting_is_told_before_anything_else(client: Http) -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = {"a": [value]}
        return value

    fits, too_deep = nested(31), nested(32)
    for path, name in [(LOOKUP, "params"), (STORE, "response"), (STORE, "metadata")]:
        body = ASKED | ({"response": 1} if path == STORE else {})
        assert (await client.post(path, json=body | {name: fits})).status_code in {200, 201}
        assert (await client.post(path, json=body | {name: too_deep})).status_code == 400
    strings = ASKED | {"params": {"a": "[{" * 1000 + '\\"'}}
    assert (await client.post(LOOKUP, json=strings)).status_code == 200
    one_wrong = {"items": [ASKED | {"response": 1, "metadata": fits}, ASKED | {"response": 1, "metadata": 3}]}
    stored = (await client.post(STORE + "/batch", json=one_wrong)).json()["items"]
    assert [one.get("stored") for one in stored] == [True, None]


@pytest.mark.parametrize(
    "body",
    [
        b"[]" * 65 + b'"' + b'\\"' * 400_000 + b"\\",  # each quote might begin a string
        b'{"' + b" - at `$" * 100_000 + b'\\nx":1}',  # a field's name like msgspec's own words
        b"[" * 900_000,
        b"[]," * 300_000,
    ],
)
async def test_hostile_bodies_take_no_more_time_than_their_size(client: Http, body: bytes) -> None:
    """Quadratic, each of these would take minutes."""
    with anyio.fail_after(20):
        answer = await client.post(LOOKUP, content=body)
    assert answer.status_code == 400
    assert len(answer.content) < 2000


async def test_unknown_routes_are_problems_too(client: Http) -> None:
    for method, path, status in [("GET", "/nowhere", 404), ("GET", LOOKUP, 405)]:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"].startswith("application/problem+json")


async def test_batches_answer_item_by_item(client: Http) -> None:
    items: list[Any] = [ASKED | {"prompt": f"question number {n}", "response": n} for n in range(5)]
    wrong: list[Any] = [{"agent_type": "a"}, 7, ASKED | {"response": ""}]
    stored = (await client.post(STORE + "/batch", json={"items": items + wrong})).json()["items"]
    assert [one.get("stored") for one in stored] == [True] * 5 + [None, None, False]
    assert [one["error"]["status"] for one in stored[5:7]] == [400, 400]
    assert stored[5]["outcome"] == "error"
    asked = [{k: v for k, v in item.items() if k != "response"} for item in items]
    answers = await client.post(LOOKUP + "/batch", json={"items": [*asked, {"agent_type": ""}]})
    assert answers.status_code == 200
    found = answers.json()["items"]
    assert [one.get("response") for one in found] == [0, 1, 2, 3, 4, None]
    assert [one["outcome"] for one in found] == ["hit"] * 5 + ["error"]
    for size in (0, 257):
        refused = await client.post(LOOKUP + "/batch", json={"items": [ASKED] * size})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "items")


async def test_a_given_vector_skips_the_embedder(client: Http) -> None:
    values = np.random.default_rng(1).normal(size=384)
    packed = base64.b64encode(values.astype("<f4").tobytes()).decode()
    await client.post(STORE, json=ASKED | {"response": "r", "embedding": values.tolist()})
    answer = await client.post(LOOKUP, json=ASKED | {"prompt": "words apart", "embedding": packed})
    assert answer.json()["tier"] == "semantic"


async def test_roles_and_tenants(guarded: Http, keys_file: Path) -> None:
    def header(tenant: str, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {create_key(keys_file, tenant, role)}"}

    entry = ASKED | {"response": "acme's"}
    reader, writer, other = (
        header("acme", Role.reader),
        header("acme", Role.writer),
        header("Acme", Role.admin),
    )
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        answer = await guarded.post(LOOKUP, content=b"not even JSON", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await guarded.post(STORE, json=entry, headers=reader)).status_code == 403
    assert (await guarded.post(STORE, json=entry, headers=writer)).status_code == 201
    assert (await guarded.post(LOOKUP, json=ASKED, headers=reader)).json()["response"] == "acme's"
    for headers in (other, {"Authorization": "Bearer the first admin key"}):
        assert (await guarded.post(LOOKUP, json=ASKED, headers=headers)).json()["reason"] == "empty"
    revoke_key(keys_file, read_keys(keys_file)[-1].id)
    assert (await guarded.post(LOOKUP, json=ASKED, headers=other)).status_code == 401
    for path in ("/livez", "/readyz", "/health", "/metrics", "/docs", "/docs/openapi.json"):
        assert (await guarded.get(path)).status_code == 200


async def test_without_keys_any_header_is_the_default_tenant(client: Http) -> None:
    await client.post(STORE, json=ASKED | {"response": 1}, headers={"Authorization": "Bearer x"})
    assert (await client.post(LOOKUP, json=ASKED, headers={"Authorization": "Basic y"})).json()[
        "response"
    ] == 1


def without_description(part: Any, path: str) -> Iterator[str]:
    if isinstance(part, dict):
        for name, field in part.get("properties", {}).items():
            if isinstance(field, dict) and name not in {"items", "outcome"} and not field.get("description"):
                yield f"{path}.{name}"
        for name, inner in part.items():
            yield from without_description(inner, f"{path}.{name}")
    elif isinstance(part, list):
        for inner in part:
            yield from without_description(inner, path)


async def test_every_field_is_described(client: Http) -> None:
    document = (await client.get("/docs/openapi.json")).json()
    for path in (LOOKUP, STORE, LOOKUP + "/batch", STORE + "/batch"):
        operation = document["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        if "items" in schema["properties"]:
            schema = schema["properties"]["items"]["items"]
        assert {"agent_type", "prompt", "messages", "embedding"} <= schema["properties"].keys()
        assert {"200", "default"} <= operation["responses"].keys()
        undescribed = list(without_description(operation, path))
        assert not undescribed


async def test_the_docs_page_loads_nothing_from_elsewhere(client: Http) -> None:
    page = (await client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(loaded) == 4
    for url in loaded:
        assert url == "data:," or (await client.get(url)).status_code == 200, url


async def test_metrics_count_and_tell_no_tales(client: Http) -> None:
    await client.post(LOOKUP, json=ASKED | {"agent_type": "very-secret-name"})
    await client.post(LOOKUP, json={"prompt": 1})
    text = (await client.get("/metrics")).text
    assert 'semcached_lookups_total{detail="empty",outcome="miss",tenant="other"}' in text
    for line in (
        'requests_total{call="lookup",status="200"}',
        'requests_total{call="lookup",status="400"}',
        'request_seconds_count{call="lookup"}',
        "redis_seconds_count",
        "breaker_open 0.0",
        "index_failures 0.0",
        "requests_in_flight 0.0",
    ):
        assert f"semcached_{line}" in text
    assert "very-secret-name" not in text
    assert "password" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
FIELDS = [
    "agent_type",
    "prompt",
    "messages",
    "model",
    "system",
    "temperature",
    "attributes",
    "params",
    "tools",
]
FIELDS += ["context", "embedding", "response", "ttl_s", "sources", "tags", "metadata", "usage", "tiers"]


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), JSON, max_size=8))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_is_a_5xx(client: Http, body: dict[str, Any]) -> None:
    for path in (LOOKUP, STORE):
        answer = await client.post(path, json={"agent_type": "a", "prompt": "p", **body})
        assert answer.status_code in {200, 201, 400}, answer.text


async def test_the_same_answer_again_keeps_what_it_rests_on(client: Http) -> None:
    """Or an invalidation would miss it."""
    known = {"sources": ["doc:7"], "tags": ["t"], "metadata": {"a": 1}, "usage": {"cost_usd": 1.0}}
    await client.post(STORE, json=ASKED | {"response": "9 EUR"} | known)
    await client.post(STORE, json=ASKED | {"response": "9 EUR", "sources": ["doc:8"]})
    hit = (await client.post(LOOKUP, json=ASKED)).json()
    assert (hit["sources"], hit["metadata"]) == (["doc:7", "doc:8"], {"a": 1})
    gone = (await client.post("/v1/invalidate", json={"where": {"source": "doc:7", "tag": "t"}})).json()
    assert gone["deleted"] == 1
    await client.post(STORE, json=ASKED | {"response": "9 EUR"} | known)
    await client.post(STORE, json=ASKED | {"response": "8 EUR"})
    assert (await client.post(LOOKUP, json=ASKED)).json()["sources"] == []
