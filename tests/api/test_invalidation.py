"""/v1/invalidate, rules and events, over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from redis import Redis

from service.api.auth import Role, create_key

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
LOOKUP, STORE, INVALIDATE = "/v1/cache/lookup", "/v1/cache/store", "/v1/invalidate"
EVENTS, RULES = "/v1/events", "/v1/invalidation-rules"


async def kept(http: Http, prompt: str, **fields: Any) -> str:
    answer = await http.post(STORE, json={"agent_type": "a", "prompt": prompt, "response": "r"} | fields)
    assert answer.status_code == 201, answer.text
    entry_id: str = answer.json()["entry_id"]
    return entry_id


async def invalidated(http: Http, where: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await http.post(INVALIDATE, json={"where": where} | fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def left(http: Http) -> set[str]:
    items = (await http.get("/v1/cache/entries?limit=100")).json()["items"]
    return {item["prompt"] for item in items}


async def wrong(http: Http, path: str, body: Any) -> list[dict[str, str]]:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    errors: list[dict[str, str]] = answer.json()["errors"]
    return errors


@pytest.mark.parametrize(
    ("where", "gone"),
    [
        ({"agent_type": "b"}, {"two"}),
        ({"model": "m"}, {"one"}),
        ({"prompt_version": "7"}, {"one"}),
        ({"source": "doc:1"}, {"one", "two"}),
        ({"source": "doc:1", "agent_type": "a"}, {"one"}),
        ({"source": "doc:1, doc:2"}, {"three"}),
        ({"source": "DOC:1"}, set()),
        ({"tag": "t"}, {"one"}),
        ({"attributes": {"lang": "en"}}, {"one", "two"}),
        ({"attributes": {"lang": "en", "tier": "gold"}}, {"two"}),
        ({"attributes": {"lang": "gold"}}, set()),
        ({"older_than_s": 0}, {"one", "two", "three"}),
        ({"older_than_s": 3600}, set()),
        ({"prompt_regex": "^t"}, {"two", "three"}),
        ({"prompt_regex": "O|w"}, {"two"}),
        ({"tool": "search"}, set()),
        ({"entry_id": "0" * 32}, set()),
    ],
)
async def test_each_criterion_deletes_just_its_own(client: Http, where: Any, gone: set[str]) -> None:
    await kept(
        client,
        *("one",),
        sources=["doc:1", "doc:3"],
        tags=["t", "u"],
        model="m",
        prompt_version="7",
        attributes={"lang": "en"},
    )
    await kept(
        client,
        "two",
        agent_type="b",
        sources=["doc:1"],
        attributes={"lang": "en", "tier": "gold"},
        tags=["T"],
    )
    await kept(client, "three", sources=["doc:1, doc:2"])
    found = await invalidated(client, where, dry_run=True)
    assert (found["matched"], found["deleted"], len(found["sample"])) == (len(gone), 0, len(gone))
    assert await left(client) == {"one", "two", "three"}
    assert await invalidated(client, where, keyspaces=["tools"]) == {"matched": 0, "deleted": 0, "sample": []}
    done = await invalidated(client, where)
    assert (done["matched"], done["deleted"]) == (len(gone), len(gone))
    assert set(done["sample"]) == set(found["sample"])
    assert await left(client) == {"one", "two", "three"} - gone


async def test_by_meaning(client: Http) -> None:
    await kept(client, "How do I reset my password?")
    await kept(client, "How can I reset my password?", system="another scope")
    await kept(client, "What is the capital of France?")
    where = {"similar_to": {"prompt": "How do I reset the password?", "threshold": 0.8}}
    assert (await invalidated(client, where, dry_run=True))["matched"] == 2
    assert len(await left(client)) == 3
    assert (await invalidated(client, where))["deleted"] == 2
    assert await left(client) == {"What is the capital of France?"}


async def test_a_conversation_is_found_by_its_last_question(client: Http) -> None:
    said = [{"role": "user", "content": "about Paris"}, {"role": "assistant", "content": "yes?"}]
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    for last in ("weather tomorrow", [{"type": "text", "text": "weather in this picture"}, image]):
        stored = await client.post(
            STORE,
            json={"agent_type": "a", "messages": [*said, {"role": "user", "content": last}], "response": "r"},
        )
        assert stored.status_code == 201
    assert (await invalidated(client, {"prompt_regex": "Paris"}))["matched"] == 0
    assert (await invalidated(client, {"prompt_regex": "weather"}))["deleted"] == 2


async def test_bad_requests_name_the_field(client: Http) -> None:
    for where, field in [
        ({}, "where"),
        ({"source": None}, "where"),
        ({"attributes": {}}, "where.attributes"),
        ({"sauce": "x"}, "where.sauce"),
        ({"source": "é" * 300}, "where.source"),
        ({"prompt_regex": "("}, "where.prompt_regex"),
        ({"prompt_regex": r"(a)\1"}, "where.prompt_regex"),
        ({"prompt_regex": "a" * 513}, "where.prompt_regex"),
        ({"prompt_regex": "((a{100}){100}){100}"}, "where.prompt_regex"),
        ({"older_than_s": -1}, "where.older_than_s"),
        ({"similar_to": {"prompt": "x"}}, "where.similar_to.threshold"),
        ({"similar_to": {"prompt": " ", "threshold": 0.9}}, "where.similar_to.prompt"),
        ({"similar_to": {"prompt": "word " * 3000, "threshold": 0.9}}, "where.similar_to.prompt"),
    ]:
        errors = await wrong(client, INVALIDATE, {"where": where})
        assert [error["field"] for error in errors] == [field], errors
    assert (await wrong(client, INVALIDATE, {"where": {"tag": "t"}, "keyspaces": ["all"]}))[0]["field"] == (
        "keyspaces[0]"
    )


async def test_a_pattern_cannot_hang_the_service(client: Http) -> None:
    await kept(client, "a" * 5000 + "!")
    assert (await invalidated(client, {"prompt_regex": "^(a+)+$"}))["matched"] == 0
    assert (await invalidated(client, {"prompt_regex": "(a?){80}a{80}"}))["matched"] == 1


async def test_a_store_behind_an_invalidation_is_refused(client: Http) -> None:
    async def lookup_id(prompt: str) -> str:
        answer = await client.post(LOOKUP, json={"agent_type": "a", "prompt": prompt})
        name: str = answer.json()["lookup_id"]
        return name

    async def store(prompt: str, lookup: str, **fields: Any) -> dict[str, Any]:
        entry = {"agent_type": "a", "prompt": prompt, "response": "r", "lookup_id": lookup} | fields
        body: dict[str, Any] = (await client.post(STORE, json=entry)).json()
        return body

    before = await lookup_id("p")
    assert (await store("p", before, sources=["doc:1"]))["stored"] is True
    assert (await invalidated(client, {"source": "doc:1"}, dry_run=True))["matched"] == 1
    assert (await store("p", before, sources=["doc:1"]))["stored"] is True
    assert (await invalidated(client, {"source": "doc:1"}))["deleted"] == 1
    refused = {"stored": False, "reason": "invalidated"}
    assert await store("p", before, sources=["doc:1"]) == refused
    assert (await store("p", before, sources=["doc:2"]))["stored"] is True
    after = await lookup_id("q")
    assert (await store("q", after, sources=["doc:1"]))["stored"] is True
    similar = {"similar_to": {"prompt": "How do I reset my password?", "threshold": 0.8}}
    await invalidated(client, similar)
    assert await store("How can I reset my password?", after) == refused
    assert (await store("What is the capital of France?", after))["stored"] is True
    await invalidated(client, {"older_than_s": 3600})
    assert (await store("q", after, sources=["doc:3"]))["stored"] is True
    assert (await client.delete("/v1/cache?confirm=default")).status_code == 200
    assert await store("What is the capital of France?", after) == refused
    batch = await client.post(
        STORE + "/batch",
        json={
            "items": [
                {"agent_type": "a", "prompt": "1", "response": "r", "lookup_id": after},
                {"agent_type": "a", "prompt": "2", "response": "r"},
            ]
        },
    )
    assert [item["stored"] for item in batch.json()["items"]] == [False, True]
    assert await left(client) == {"2"}


async def test_events(client: Http) -> None:
    for number in (7, 8):
        await kept(client, f"about {number}", sources=[f"product:{number}"])
    await kept(client, "in {braces}", tags=["{x}"])
    await kept(client, "Anne has 2+2 of it")
    assert (await client.post(EVENTS, json={"type": "product_updated"})).json() == {
        "rules": [],
        "matched": 0,
        "deleted": 0,
    }
    rules = {
        "by source": {"event": "product_updated", "where": {"source": "product:{product_id}"}},
        "braces": {"event": "braces", "where": {"tag": "{{{name}}}"}},
        "by text": {"event": "text", "where": {"prompt_regex": "^{name} has {sum}"}},
        "by scope": {"event": "scope", "where": {"attributes": {"user": "{user}"}, "agent_type": "a"}},
    }
    for name, rule in rules.items():
        put = await client.put(f"{RULES}/{name}", json=rule)
        assert (put.status_code, put.json()) == (200, {"name": name} | rule)
    listed = (await client.get(RULES)).json()["items"]
    assert listed == [{"name": name} | rules[name] for name in sorted(rules)]

    async def event(kind: str, **data: Any) -> Any:
        return (await client.post(EVENTS, json={"type": kind, "data": data})).json()

    fired = await event("product_updated", product_id=7, price=9.99, more=[None])
    assert fired == {"rules": ["by source"], "matched": 1, "deleted": 1}
    assert (await event("braces", name="x"))["deleted"] == 1
    assert (await event("text", name=".*", sum="2+2"))["deleted"] == 0
    assert (await event("text", name="Anne", sum="2+2"))["deleted"] == 1
    assert (await event("scope", user="u"))["deleted"] == 0
    assert await left(client) == {"about 8"}

    await client.put(f"{RULES}/z", json={"event": "product_updated", "where": {"source": "{other}"}})
    for data, field in [
        ({"product_id": 8}, "data.other"),
        ({"product_id": 8, "other": 1.5}, "data.other"),
        ({"product_id": 8, "other": True}, "data.other"),
        ({"product_id": 8, "other": ""}, "rules.z.where.source"),
        ({"product_id": 8, "other": "x" * 600}, "rules.z.where.source"),
    ]:
        errors = await wrong(client, EVENTS, {"type": "product_updated", "data": data})
        assert [error["field"] for error in errors] == [field]
    assert await left(client) == {"about 8"}
    assert (await client.delete(f"{RULES}/z")).status_code == 204
    assert (await client.delete(f"{RULES}/z")).status_code == 404
    assert (await event("product_updated", product_id=8))["deleted"] == 1


async def test_rules_are_checked_when_they_are_put(client: Http) -> None:
    for where, field in [
        ({}, "where"),
        ({"sauce": "x"}, "where.sauce"),
        ({"source": "a{b"}, "where.source"),
        ({"source": "a}b"}, "where.source"),
        ({"source": "{}"}, "where.source"),
        ({"attributes": {"a": "{"}}, "where.attributes.a"),
        ({"prompt_regex": "({x}"}, "where.prompt_regex"),
        ({"similar_to": {"prompt": "{x", "threshold": 0.5}}, "where.similar_to.prompt"),
    ]:
        answer = await client.put(f"{RULES}/r", json={"event": "e", "where": where})
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await client.get(RULES)).json() == {"items": []}


async def test_roles_and_tenants(guarded: Http, keys_file: Path) -> None:
    def headers(tenant: str, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {create_key(keys_file, tenant, role)}"}

    reader, writer = headers("acme", Role.reader), headers("acme", Role.writer)
    admin, other = headers("acme", Role.admin), headers("other", Role.admin)
    rule = {"event": "e", "where": {"tag": "t"}}
    for method, path, body, least in [
        ("POST", INVALIDATE, {"where": {"tag": "t"}}, 2),
        ("POST", EVENTS, {"type": "e"}, 2),
        ("GET", RULES, None, 1),
        ("PUT", f"{RULES}/r", rule, 3),
        ("DELETE", f"{RULES}/nothing", None, 3),
        ("GET", "/v1/cache/entries", None, 1),
        ("GET", f"/v1/cache/entries/{'0' * 32}", None, 1),
        ("DELETE", f"/v1/cache/entries/{'0' * 32}", None, 2),
        ("DELETE", "/v1/cache?confirm=acme", None, 3),
    ]:
        for level, who in ((1, reader), (2, writer), (3, admin)):
            answer = await guarded.request(method, path, json=body, headers=who)
            assert (answer.status_code == 403) is (level < least), (method, path, level)
    entry = {"agent_type": "a", "prompt": "p", "response": "r", "tags": ["t"]}
    ids = {}
    for who in (admin, other):
        ids[who["Authorization"]] = (await guarded.post(STORE, json=entry, headers=who)).json()["entry_id"]
    theirs = ids[other["Authorization"]]
    assert (await guarded.get(f"/v1/cache/entries/{theirs}", headers=admin)).status_code == 404
    assert (await guarded.delete(f"/v1/cache/entries/{theirs}", headers=admin)).status_code == 404
    named = {"where": {"entry_id": theirs}}
    assert (await guarded.post(INVALIDATE, json=named, headers=admin)).json()["matched"] == 0
    assert (await guarded.get(RULES, headers=other)).json() == {"items": []}
    assert (await guarded.post(EVENTS, json={"type": "e"}, headers=other)).json()["rules"] == []
    assert (await guarded.post(EVENTS, json={"type": "e"}, headers=writer)).json()["deleted"] == 1
    assert (await guarded.delete("/v1/cache?confirm=other", headers=admin)).status_code == 400
    assert (await guarded.get(f"/v1/cache/entries/{theirs}", headers=other)).status_code == 200


async def test_a_rule_that_was_altered_is_no_rule_and_stops_events(
    client: Http, redis: Redis, prefix: str
) -> None:
    """Who sends the event must hear that not all of it was done."""
    for name in ("r", "s"):
        await client.put(f"{RULES}/{name}", json={"event": "e", "where": {"tag": name}})
    (key,) = redis.scan_iter(f"{prefix}:*:invalidations:rules:*")
    field, *_ = redis.hkeys(key)
    redis.hset(key, field, b"\x01 not ours")
    assert len((await client.get(RULES)).json()["items"]) == 1
    answer = await client.post(EVENTS, json={"type": "e"})
    assert (answer.status_code, "can't be read" in answer.json()["detail"]) == (503, True)
    for name in ("r", "s"):
        await client.put(f"{RULES}/{name}", json={"event": "e", "where": {"tag": name}})
    assert (await client.post(EVENTS, json={"type": "e"})).json()["rules"] == ["r", "s"]
