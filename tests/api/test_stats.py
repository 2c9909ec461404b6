"""What is counted, is counted once; and who may read it."""

from dataclasses import replace
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.api.auth import Role, create_key
from service.app import create_app
from service.settings import Settings
from service.wiring import Loaded
from tests.helpers import vector

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
LOOKUP, STORE, STATS = "/v1/cache/lookup", "/v1/cache/store", "/v1/stats"
USAGE = {"input_tokens": 1000, "output_tokens": 200}


async def figures(http: Http, agent_type: str | None = None, **headers: str) -> dict[str, Any]:
    params = {} if agent_type is None else {"agent_type": agent_type}
    answer = await http.get(STATS, params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asked(n: int, agent_type: str = "a") -> dict[str, Any]:
    return {"agent_type": agent_type, "prompt": f"question {n}", "embedding": vector(n)}


async def test_every_request_is_counted_once(client: Http) -> None:
    for n in range(3):
        entry = asked(n) | {"response": n, "usage": USAGE, "model": "gpt-4o-2024-11-20"}
        assert (await client.post(STORE, json=entry)).status_code == 201
    items = [asked(n, "b") | {"response": n, "usage": {"cost_usd": 0.5}} for n in range(4)]
    items.append(asked(9, "b") | {"response": "  "})
    items.append({"agent_type": "b", "treshold": 1})
    await client.post(STORE + "/batch", json={"items": items})
    for _ in range(2):
        await client.post(LOOKUP, json=asked(0) | {"model": "gpt-4o-2024-11-20"})
    await client.post(LOOKUP, json=asked(0) | {"model": "gpt-4o-2024-11-20", "tiers": ["semantic"]})
    await client.post(LOOKUP, json=asked(0))  # of another scope
    batch = [asked(n, "b") for n in range(6)] + [{"agent_type": "b"}]
    await client.post(LOOKUP + "/batch", json={"items": batch})

    a, b, both = await figures(client, "a"), await figures(client, "b"), await figures(client)
    assert a["requests"] == 4
    assert a["hits"] == {"exact": 2, "semantic": 1}
    assert a["misses"] == {"empty": 1}
    assert a["hit_rate"] == 0.75
    assert a["stores"] == {"stored": 3, "refused": {}, "failed": 0}
    assert a["tokens"] == {"saved_input": 3000, "saved_output": 600, "embedded": 0, "provider_cached": 0}
    assert a["money"]["saved_usd"] == pytest.approx(3 * (1000 * 2.5 + 200 * 10) / 1e6)
    assert a["money"]["net_usd"] == a["money"]["saved_usd"]
    assert a["stages_ms"]["exact"]["count"] == 4
    assert a["latency_ms"]["hit_exact"]["count"] == 2
    assert b["hits"] == {"exact": 4}
    assert b["misses"] == {"below_threshold": 2}
    assert b["stores"] == {"stored": 4, "refused": {"min_chars": 1}, "failed": 0}
    assert b["money"]["saved_usd"] == 2.0
    assert b["stages_ms"]["exact"]["count"] == 1
    assert both["requests"] == 10
    assert [one["entries"] for one in (both, both["tools"], both["embeddings"])] == [7, 0, 0]
    assert (both["scopes"], both["sampled"]) == (2, False)
    assert both["bytes"] > 7 * 1000
    assert {name: one["hits"] for name, one in both["agent_types"].items()} == {"a": 3, "b": 4}
    assert both["since"] is not None
    assert both["others"] is None


async def test_an_agent_type_that_nobody_asked_for_has_zeros(client: Http) -> None:
    none = await figures(client, "nobody")
    assert (none["requests"], none["hit_rate"], none["since"]) == (0, None, None)
    assert [one["entries"] for one in (none, none["tools"], none["embeddings"])] == [0, 0, None]


@pytest.mark.parametrize("query", ["agent_type=", "agent_typ=a", "agent_type=a&agent_type=b"])
async def test_what_is_no_question_is_refused(client: Http, query: str) -> None:
    answer = await client.get(f"{STATS}?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith("agent_typ")


async def test_hits_without_a_price_are_told(client: Http) -> None:
    entries = [
        asked(1) | {"response": 1},
        asked(2) | {"response": 2, "usage": USAGE, "model": "gpt-4o-of-nobody"},
        asked(3) | {"response": 3, "usage": {"cost_usd": 1e300}},
    ]
    for entry in entries:
        await client.post(STORE, json=entry)
        scope = {name: entry[name] for name in entry if name not in {"response", "usage"}}
        assert (await client.post(LOOKUP, json=scope)).json()["outcome"] == "hit"
    found = await figures(client, "a")
    assert found["money"]["unpriced_hits"] == 2
    assert found["money"]["saved_usd"] == 1_000_000
    assert found["tokens"]["saved_input"] == 1000


async def test_tenants_do_not_see_each_others(settings: Settings, models: Loaded) -> None:
    keys = settings.data_dir / "keys.json"
    mine, others = (create_key(keys, name, Role.reader) for name in ("acme", "other"))
    headers = [{"Authorization": f"Bearer {key}"} for key in (mine, others)]
    app = create_app(replace(settings, keys_file=keys), settings.redis_url or "", models)
    async with AsyncTestClient(app) as http:
        await http.post(LOOKUP, json=asked(1), headers=headers[0])
        assert (await figures(http, "a", **headers[0]))["requests"] == 1
        theirs = await figures(http, **headers[1])
        assert (theirs["requests"], theirs["agent_types"]) == (0, {})
        assert (await http.get(STATS)).status_code == 401


async def test_two_services_add_up(settings: Settings, models: Loaded) -> None:
    url = settings.redis_url or ""
    async with (
        AsyncTestClient(create_app(settings, url, models)) as one,
        AsyncTestClient(create_app(settings, url, models)) as two,
    ):
        for n in range(10):
            for http in (one, two):
                await http.post(LOOKUP, json=asked(n))
        await figures(one)
        assert (await figures(two, "a"))["requests"] == 20


async def test_what_was_counted_is_there_after_a_restart(settings: Settings, models: Loaded) -> None:
    for _ in range(2):
        async with AsyncTestClient(create_app(settings, settings.redis_url or "", models)) as http:
            await http.post(LOOKUP, json=asked(1))
    async with AsyncTestClient(create_app(settings, settings.redis_url or "", models)) as http:
        assert (await figures(http, "a"))["misses"] == {"empty": 2}
