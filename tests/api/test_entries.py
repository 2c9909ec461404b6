"""/v1/cache/entries over HTTP."""

import base64
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
ENTRIES, STORE = "/v1/cache/entries", "/v1/cache/store"


async def kept(http: Http, items: list[dict[str, Any]]) -> list[str]:
    answer = await http.post(STORE + "/batch", json={"items": items})
    return [item["entry_id"] for item in answer.json()["items"]]


async def test_one_entry(client: Http) -> None:
    given = {
        "agent_type": "a",
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "How high is it?"},
        ],
        "model": "m",
        "attributes": {"k": "v"},
        "temperature": 0.5,
        "sources": ["s"],
        "tags": ["t"],
        "metadata": {"a": 1},
        "usage": {"input_tokens": 5},
        "ttl_s": 60,
    }
    raw = msgspec.json.encode(given | {"response": msgspec.Raw(b'{"x": 1.50}')})
    stored = await client.post(STORE, content=raw)
    answer = await client.get(f"{ENTRIES}/{stored.json()['entry_id']}")
    assert answer.status_code == 200
    assert b'"response":{"x": 1.50}' in answer.content
    body = answer.json()
    assert "vector" not in body
    assert body["expires_at"] > body["stored_at"] > "2020-01-01T00:00:00.000Z"
    expected = given | {"prompt": "How high is it?", "response": {"x": 1.5}, "prompt_version": None}
    del expected["ttl_s"]
    assert {name: body[name] for name in expected} == expected


async def test_a_deleted_entry_is_gone(client: Http) -> None:
    (entry_id,) = await kept(client, [{"agent_type": "a", "prompt": "p", "response": "r"}])
    assert (await client.delete(f"{ENTRIES}/{entry_id}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await client.request(method, f"{ENTRIES}/{entry_id}")
        assert (gone.status_code, gone.json()["title"]) == (404, "Not found")
    assert (await client.get(f"{ENTRIES}/%00*")).status_code == 404
    assert (await client.get(ENTRIES)).json() == {"items": [], "cursor": None}


async def test_pages_are_stable(client: Http) -> None:
    """Entries of one batch share their time; new ones come, old ones go, and pages go on where they were."""
    ids = []
    for number in range(6):
        batch = [
            {
                "agent_type": "ab"[at % 2],
                "prompt": f"{number} {at}",
                "response": "r",
                "sources": [f"s{at % 3}"],
            }
            for at in range(7)
        ]
        ids += await kept(client, batch)
    seen: list[dict[str, Any]] = []
    cursor = ""
    pages = 0
    while True:
        page = (await client.get(f"{ENTRIES}?limit=5{cursor}")).json()
        seen += page["items"]
        pages += 1
        await kept(client, [{"agent_type": "a", "prompt": f"new {pages}", "response": "r"}])
        if page["cursor"] is None:
            break
        cursor = "&cursor=" + page["cursor"]
    assert [item["entry_id"] for item in seen] != ids
    assert sorted(item["entry_id"] for item in seen) == sorted(ids)
    times = [item["stored_at"] for item in seen]
    assert times == sorted(times, reverse=True)
    assert pages == 9
    found = (await client.get(f"{ENTRIES}?agent_type=a&source=s0&limit=100")).json()["items"]
    assert {item["prompt"] for item in found} == {f"{n} {at}" for n in range(6) for at in (0, 6)}
    first = (await client.get(f"{ENTRIES}?limit=5")).json()
    second = (await client.get(f"{ENTRIES}?limit=5&cursor={first['cursor']}")).json()
    await client.delete(f"{ENTRIES}/{second['items'][2]['entry_id']}")
    again = (await client.get(f"{ENTRIES}?limit=5&cursor={first['cursor']}")).json()
    second["items"].pop(2)
    assert again["items"][:4] == second["items"]


async def test_bad_parameters_name_themselves(client: Http) -> None:
    forged = base64.urlsafe_b64encode(b"1:x").decode()
    for query, field in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        (f"cursor={forged}", "cursor"),
        ("source=", "source"),
        ("page=1", "page"),
    ]:
        answer = await client.get(f"{ENTRIES}?{query}")
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    for confirm in ("", "?confirm=other", "?confirm="):
        answer = await client.delete(f"/v1/cache{confirm}")
        assert answer.json()["errors"][0]["field"] == "confirm"


async def test_clear(client: Http) -> None:
    await kept(client, [{"agent_type": "a", "prompt": str(at), "response": "r"} for at in range(30)])
    cleared = await client.delete("/v1/cache?confirm=default")
    assert cleared.json() == {"deleted": {"responses": 30, "tools": 0, "embeddings": 30}}
    assert (await client.get(ENTRIES)).json()["items"] == []
