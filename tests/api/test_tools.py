"""Tool results over HTTP."""

import json
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import AsyncTestClient
from redis import Redis

from service.api.auth import Role, create_key

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
LOOKUP, STORE, POLICIES = "/v1/tools/lookup", "/v1/tools/store", "/v1/tools/policies"
CALL = {"agent_type": "support", "tool": "get_weather", "arguments": {"city": "Paris", "days": 2}}


async def ask(client: Http, call: dict[str, Any] = CALL, **more: Any) -> dict[str, Any]:
    answer = await client.post(LOOKUP, json=call | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def keep(client: Http, result: Any = "sun", call: dict[str, Any] = CALL, **more: Any) -> dict[str, Any]:
    answer = await client.post(STORE, json=call | {"result": result} | more)
    assert answer.status_code in {200, 201}, answer.text
    found: dict[str, Any] = answer.json()
    assert found["stored"] == (answer.status_code == 201)
    return found


async def policy(client: Http, **fields: Any) -> None:
    answer = await client.put(POLICIES, json={"tool": "get_weather", **fields})
    assert answer.status_code == 200, answer.text


async def test_store_then_hit(client: Http) -> None:
    miss = await ask(client)
    assert len(miss.pop("lookup_id")) == 32
    assert miss == {"outcome": "miss", "reason": "empty", "lease": False}
    stored = await keep(client, {"celsius": 21}, sources=["station:7"], ttl_s=60)
    assert stored.pop("entry_id")
    assert stored == {"stored": True, "expires_in_s": 60}
    answer = await client.post(LOOKUP, json=CALL)
    assert answer.headers["x-cache"] == "HIT"
    hit = answer.json()
    assert 0 <= hit.pop("age_s") < 30
    assert 30 < hit.pop("expires_in_s") <= 60
    assert hit == {
        "outcome": "hit",
        "result": {"celsius": 21},
        "stale": False,
        "sources": ["station:7"],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"agent_type": "other"},
        {"tool": "get_climate"},
        {"version": "2"},
        {"arguments": {"city": "Paris", "days": "2"}},
        {"arguments": {"city": "Paris"}},
    ],
)
async def test_another_call_misses(client: Http, change: dict[str, Any]) -> None:
    await keep(client)
    assert (await ask(client))["outcome"] == "hit"
    assert (await ask(client, **change))["outcome"] == "miss"


async def test_results_come_back_byte_for_byte(client: Http) -> None:
    for raw in ('{"b":1.50, "a" : [1e2,"\\u00e9 é"],"b":2}', "null", '""', "1.0", '"%s"' % ("long " * 1000)):
        body = f'{{"agent_type":"a","tool":"t","arguments":{{}},"result":{raw}}}'
        assert (await client.post(STORE, content=body.encode())).status_code == 201
        hit = await client.post(LOOKUP, json={"agent_type": "a", "tool": "t", "arguments": {}})
        assert f'"result":{raw},' in hit.text


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    result=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    )
)
async def test_any_json_comes_back(client: Http, result: Any) -> None:
    if not (await keep(client, result))["stored"]:
        assert "rror" in json.dumps(result)
        return
    assert (await ask(client))["result"] == result


async def test_large_results_are_compressed(client: Http, redis: Redis, prefix: str) -> None:
    await keep(client, "word " * 20_000)
    (key,) = redis.scan_iter(f"{prefix}:*tools:record:*")
    assert redis.strlen(key) < 10_000
    assert (await ask(client))["result"] == "word " * 20_000


@pytest.mark.parametrize(
    "result",
    [
        {"error": "no such city"},
        {"isError": True, "content": []},
        {"errors": [{"message": "x"}]},
        {"ok": False},
        {"status": 502, "title": "Bad Gateway"},
        {"content": [{"type": "text", "text": "Error: no such city"}]},
        "Error: not enough seats",
    ],
)
async def test_errors_are_never_stored(client: Http, result: Any) -> None:
    assert await keep(client, result) == {"stored": False, "reason": "error"}
    assert (await ask(client))["outcome"] == "miss"


async def test_a_tool_with_side_effects_is_never_cached_and_says_so(client: Http) -> None:
    await keep(client)
    await policy(client, cacheable=False)
    answer = await client.post(LOOKUP, json=CALL | {"wait_s": 5})
    assert answer.headers["x-cache"] == "BYPASS"
    miss = answer.json()
    assert (miss["reason"], miss["rule"], miss["lease"]) == ("policy", "cacheable", False)
    assert await keep(client) == {"stored": False, "reason": "cacheable"}
    await policy(client, cacheable=True)
    assert (await ask(client))["outcome"] == "hit"


async def test_names_that_change_something_need_a_policy(client: Http) -> None:
    call = CALL | {"tool": "book_flight"}
    assert (await ask(client, call))["rule"] == "side_effects"
    assert await keep(client, call=call) == {"stored": False, "reason": "side_effects"}
    await policy(client, tool="book_flight", cacheable=True)
    assert (await keep(client, call=call))["stored"]


async def test_ignored_arguments(client: Http) -> None:
    await policy(client, ignore_arguments=["request_id"])
    await keep(client, call=CALL | {"arguments": {"city": "Paris", "request_id": 1}})
    assert (await ask(client, arguments={"request_id": "b", "city": "Paris"}))["outcome"] == "hit"
    assert (await ask(client, arguments={"city": "paris"}))["outcome"] == "miss"


async def test_the_policys_ttl_with_jitter_and_the_callers_exactly(client: Http) -> None:
    assert 285 <= (await keep(client))["expires_in_s"] <= 300
    await policy(client, ttl_s=1000)
    assert 950 <= (await keep(client, 1))["expires_in_s"] <= 1000
    assert (await keep(client, 2, ttl_s=10))["expires_in_s"] == 10
    assert (await keep(client, 3, ttl_s=None))["expires_in_s"] is None
    assert (await keep(client, 3, ttl_s=10))["expires_in_s"] is None  # the same again: never shortened
    await policy(client, ttl_s=None)
    assert (await keep(client, 4))["expires_in_s"] is None


async def test_a_stale_result_is_served_while_one_refreshes(client: Http) -> None:
    await policy(client, stale_while_revalidate_s=60)
    await keep(client, "old", ttl_s=1)
    with anyio.fail_after(10):
        while (await client.post(LOOKUP, json=CALL)).json().get("stale") is False:
            await anyio.sleep(0.1)
    # The question that ended the loop was told to refresh.
    answers = [await ask(client) for _ in range(5)]
    assert {(one["outcome"], one["stale"], one["result"], one["expires_in_s"]) for one in answers} == {
        ("hit", True, "old", 0)
    }
    await keep(client, "new")
    fresh = await ask(client)
    assert (fresh["result"], fresh["stale"]) == ("new", False)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"argument": {}}, "argument"),
        ({"arguments": []}, "arguments"),
        ({"arguments": None}, "arguments"),
        ({"tool": ""}, "tool"),
        ({"tool": "é" * 300}, "tool"),
        ({"agent_type": 1}, "agent_type"),
        ({"version": ""}, "version"),
        ({"wait_s": 61}, "wait_s"),
        ({"result": 1}, "result"),
    ],
)
async def test_a_wrong_field_is_named(client: Http, change: dict[str, Any], field: str) -> None:
    answer = await client.post(LOOKUP, json=CALL | change)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"ttl_s": 0}, "ttl_s"), ({"sources": [""]}, "sources[0]"), ({"sources": ["é" * 300]}, "sources")],
)
async def test_a_wrong_field_of_a_store_is_named(client: Http, change: dict[str, Any], field: str) -> None:
    answer = await client.post(STORE, json=CALL | {"result": 1} | change)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await ask(client))["outcome"] == "miss"


async def test_rubbish_as_a_result_is_400(client: Http) -> None:
    for inner in (b'"\xff"', b"[" * 2000, b"nul", b""):
        body = b'{"agent_type":"a","tool":"t","arguments":{},"result":' + inner + b"}"
        assert (await client.post(STORE, content=body)).status_code == 400


async def test_policies_are_listed_as_they_are_in_force(client: Http) -> None:
    assert (await client.get(POLICIES)).json() == {"items": []}
    await policy(client, tool="send_mail", ttl_s=5)
    await policy(client, tool="a")
    assert (await client.get(POLICIES)).json()["items"] == [
        {"tool": "a", "ttl_s": 300, "cacheable": True, "ignore_arguments": [], "stale_while_revalidate_s": 0},
        {
            "tool": "send_mail",
            "ttl_s": 5,
            "cacheable": False,
            "ignore_arguments": [],
            "stale_while_revalidate_s": 0,
        },
    ]
    wrong = await client.put(POLICIES, json={"tool": "a", "ttl": 5})
    assert wrong.json()["errors"][0]["field"] == "ttl"


async def test_tenants_and_roles(guarded: Http, keys_file: Any) -> None:
    def key(tenant: str, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {create_key(keys_file, tenant, role)}"}

    writer, reader, stranger = key("acme", Role.writer), key("acme", Role.reader), key("b", Role.admin)
    assert (await guarded.post(STORE, json=CALL | {"result": 1}, headers=writer)).status_code == 201
    assert (await guarded.post(LOOKUP, json=CALL, headers=reader)).json()["outcome"] == "hit"
    assert (await guarded.post(LOOKUP, json=CALL, headers=stranger)).json()["outcome"] == "miss"
    assert (await guarded.post(STORE, json=CALL | {"result": 1}, headers=reader)).status_code == 403
    assert (await guarded.put(POLICIES, json={"tool": "a"}, headers=writer)).status_code == 403
    other = CALL | {"tool": "find"}
    assert not (await guarded.post(LOOKUP, json=other | {"wait_s": 5}, headers=reader)).json()["lease"]
    assert (
        await guarded.put(POLICIES, json={"tool": "find", "ttl_s": 9}, headers=stranger)
    ).status_code == 200
    assert (await guarded.get(POLICIES, headers=reader)).json() == {"items": []}


async def test_an_altered_record_is_a_miss(client: Http, redis: Redis, prefix: str) -> None:
    await keep(client, "sun", ttl_s=None)
    (key,) = redis.scan_iter(f"{prefix}:*tools:record:*")
    blob = redis.get(key)
    assert isinstance(blob, bytes)
    for harm in (blob[:-1] + b"x", b"", b"\x01", b"\x02" + blob[1:], blob + b"x"):
        redis.set(key, harm)
        assert (await ask(client))["outcome"] == "miss"
    redis.delete(key)
    redis.hset(key, "a", "b")
    assert (await ask(client))["outcome"] == "miss"


async def test_the_same_result_again_keeps_its_sources(client: Http) -> None:
    await keep(client, "sun", sources=["a"])
    await keep(client, "sun", sources=["b"])
    assert (await ask(client))["sources"] == ["a", "b"]
    await keep(client, "rain")
    assert (await ask(client))["sources"] == []
