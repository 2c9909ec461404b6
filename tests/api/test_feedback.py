"""POST /v1/feedback, GET /v1/reviews and POST /v1/reviews/{id}, over HTTP."""

from typing import Any

import anyio
import msgspec
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from redis import Redis

from service.api.auth import Role, create_key
from service.cache.tickets import issued
from service.store import ledger
from service.store import reviews as reviews_of
from service.wiring import now_ms

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
AGENT = "support"
ASKED = {"agent_type": AGENT, "prompt": "How do I reset my password?"}
REWORDED = ASKED | {"prompt": "How can I reset my password?"}


async def call(http: Http, method: str, path: str, body: Any = None, **more: Any) -> Any:
    answer = await http.request(method, path, json=body, **more)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


async def store(http: Http, **fields: Any) -> Any:
    return await call(http, "POST", "/v1/cache/store", ASKED | {"response": "Settings, Security."} | fields)


async def look(http: Http, **fields: Any) -> Any:
    return await call(http, "POST", "/v1/cache/lookup", ASKED | fields)


async def judge(http: Http, lookup_id: str, *, correct: bool, **more: Any) -> Any:
    return await call(http, "POST", "/v1/feedback", {"lookup_id": lookup_id, "correct": correct, **more})


async def reviews(http: Http, **params: Any) -> Any:
    """When what was sampled is written."""
    await anyio.sleep(3 * ledger.EVERY_S)  # flushed by the clock
    return await call(http, "GET", "/v1/reviews", params={"status": "pending", **params})


async def test_a_right_answer_stays(client: Http) -> None:
    stored = await store(client)
    hit = await look(client)
    assert await judge(client, hit["lookup_id"], correct=True) == {
        "recorded": True,
        "entry_id": stored["entry_id"],
        "quarantined": False,
    }
    assert (await look(client))["outcome"] == "hit"


async def test_a_wrong_answer_goes_and_another_may_come(client: Http) -> None:
    stored = await store(client)
    hit = await look(client)
    assert hit["tier"] == "exact"
    told = await judge(client, hit["lookup_id"], correct=False)
    assert told == {"recorded": True, "entry_id": stored["entry_id"], "quarantined": True}
    assert (await look(client))["outcome"] == "miss"
    again = await store(client, response="Settings, Privacy.")
    assert again["tiers"] == ["exact", "semantic"]
    assert await judge(client, hit["lookup_id"], correct=False) == told | {"quarantined": False}
    assert (await look(client))["response"] == "Settings, Privacy."


async def test_wrong_for_other_words_it_answers_its_own_only(client: Http) -> None:
    """Until a reviewer says that it was right."""
    await call(client, "PUT", "/v1/policies", {"review_sample_rate": 1}, params={"agent_type": AGENT})
    await store(client)
    hit = await look(client, prompt=REWORDED["prompt"])
    assert hit["tier"] == "semantic"
    await judge(client, hit["lookup_id"], correct=False)
    assert (await look(client))["outcome"] == "miss"
    again = await store(client)
    assert again["tiers"] == ["exact"]
    assert again["exact_only"] == "quarantined"
    shown = await call(client, "GET", f"/v1/cache/entries/{again['entry_id']}")
    assert shown["exact_only"] == "quarantined"
    assert (await look(client))["tier"] == "exact"
    assert (await look(client, prompt=REWORDED["prompt"]))["outcome"] == "miss"
    (item,) = [one for one in (await reviews(client))["items"] if one["id"] == hit["lookup_id"]]
    assert item["asked"] == REWORDED["prompt"]
    await call(client, "POST", f"/v1/reviews/{item['id']}", {"verdict": "correct"})
    assert (await store(client))["tiers"] == ["exact", "semantic"]
    assert (await look(client, prompt=REWORDED["prompt"]))["tier"] == "semantic"


async def test_a_store_on_its_way_is_too_late(client: Http) -> None:
    await store(client)
    miss = await look(client, tiers=["semantic"], prompt="something else altogether")
    hit = await look(client)
    await judge(client, hit["lookup_id"], correct=False)
    late = await store(client, lookup_id=miss["lookup_id"])
    assert late == {"stored": False, "reason": "invalidated"}


async def test_the_queue(client: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least certain first, both questions with the answer; judged ones are gone."""
    monkeypatch.setattr(reviews_of, "ANYWHERE", 0.0)
    await call(client, "PUT", "/v1/policies", {"review_sample_rate": 1}, params={"agent_type": AGENT})
    stored = await store(client, response={"steps": ["Settings", "Security"]})
    exact = await look(client)
    semantic = await look(client, prompt=REWORDED["prompt"])
    found = await reviews(client)
    assert found["pending"] == 2
    assert [one["id"] for one in found["items"]] == [semantic["lookup_id"], exact["lookup_id"]]
    first = found["items"][0]
    assert first["asked"] == REWORDED["prompt"]
    assert first["stored"] == ASKED["prompt"]
    assert first["response"] == {"steps": ["Settings", "Security"]}
    assert first["entry_id"] == stored["entry_id"]
    assert first["similarity"] == pytest.approx(semantic["similarity"], abs=1e-4)
    page = await reviews(client, limit=1)
    assert len(page["items"]) == 1
    (second,) = (await reviews(client, limit=1, cursor=page["cursor"]))["items"]
    assert second["id"] == exact["lookup_id"]
    other = await reviews(client, agent_type="other")
    assert (other["items"], other["pending"]) == ([], 0)
    assert (await reviews(client, agent_type=AGENT))["pending"] == 2
    told = await call(client, "POST", f"/v1/reviews/{first['id']}", {"verdict": "correct"})
    assert told == {"recorded": True, "entry_id": stored["entry_id"], "quarantined": False}
    assert [one["id"] for one in (await reviews(client))["items"]] == [exact["lookup_id"]]
    await call(client, "POST", f"/v1/reviews/{first['id']}", {"verdict": "wrong"})  # on second thoughts
    assert (await look(client))["outcome"] == "miss"


async def test_clearing_takes_the_texts_along(client: Http, redis: Redis, prefix: str) -> None:
    """Judged ones, and those that aren't written yet."""
    await call(client, "PUT", "/v1/policies", {"review_sample_rate": 1}, params={"agent_type": AGENT})
    await store(client)
    hit = await look(client)
    await look(client)
    assert (await reviews(client))["pending"] == 2
    await verdict(client, hit["lookup_id"], "correct")
    await look(client)
    await call(client, "DELETE", "/v1/cache", params={"confirm": "default"})
    assert (await reviews(client))["pending"] == 0
    assert [*redis.scan_iter(f"{prefix}:*:reviews:*")] == []


async def test_what_is_invalidated_takes_its_texts_along(client: Http, redis: Redis, prefix: str) -> None:
    """Of other entries they stay; and of one that was found wrong, for who reviews it."""
    await call(client, "PUT", "/v1/policies", {"review_sample_rate": 1}, params={"agent_type": AGENT})
    prompts = ["Where is the first?", "Who is the second?", "Why is there a third?", "How many are four?"]
    hits = []
    for prompt in prompts:
        await store(client, prompt=prompt, sources=[prompt[-4:]])
        hits.append(await look(client, prompt=prompt))
    assert (await reviews(client))["pending"] == 4
    await verdict(client, hits[0]["lookup_id"], "correct")
    await call(client, "POST", "/v1/invalidate", {"where": {"source": "rst?"}})
    await client.delete(f"/v1/cache/entries/{hits[1]['entry_id']}")
    await judge(client, hits[2]["lookup_id"], correct=False)
    left = {one["stored"] for one in (await reviews(client))["items"]}
    assert left == {prompts[2], prompts[3]}
    items = {one.decode().rpartition(":")[2] for one in redis.scan_iter(f"{prefix}:*:reviews:item:*")}
    assert items == {hits[2]["lookup_id"], hits[3]["lookup_id"]}


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        ("x" * 20_000, "x" * 16_383 + " …"),
        ("x" * 16_382 + '"' * 9, "x" * 16_382 + " …"),
        ("x" * 16_375 + "\0" * 9, "x" * 16_375 + "\0" + " …"),
        (["x" * 20_000], '["' + "x" * 16_382 + " …"),
    ],
)
async def test_a_long_answer_is_shown_by_its_beginning(client: Http, response: Any, shown: str) -> None:
    await call(client, "PUT", "/v1/policies", {"review_sample_rate": 1}, params={"agent_type": AGENT})
    body = msgspec.json.encode(ASKED | {"response": response})
    assert (await client.post("/v1/cache/store", content=body)).status_code == 201
    await look(client)
    (item,) = (await reviews(client))["items"]
    assert item["response"] == shown


async def test_a_complaint_is_reviewed(client: Http) -> None:
    """Also of a hit that wasn't sampled."""
    await store(client)
    hit = await look(client)
    await judge(client, hit["lookup_id"], correct=False, note="it is under Privacy")
    (item,) = (await reviews(client))["items"]
    assert item["note"] == "it is under Privacy"
    assert item["asked"] is None
    assert item["response"] == "Settings, Security."


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"correct": True}, "lookup_id"),
        ({"lookup_id": "1" * 32}, "correct"),
        ({"lookup_id": "1" * 31, "correct": True}, "lookup_id"),
        ({"lookup_id": "1" * 32, "correct": 1}, "correct"),
        ({"lookup_id": "1" * 32, "correct": True, "notes": ""}, "notes"),
    ],
)
async def test_a_wrong_field_is_named(client: Http, body: Any, field: str) -> None:
    answer = await client.post("/v1/feedback", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field


async def test_what_was_no_hit_has_no_verdict(client: Http) -> None:
    miss = await look(client)
    answer = await client.post("/v1/feedback", json={"lookup_id": miss["lookup_id"], "correct": True})
    assert answer.status_code == 400
    unknown = {"lookup_id": issued(1, now_ms()), "correct": True}
    assert (await client.post("/v1/feedback", json=unknown)).status_code == 404
    gone = await client.post(f"/v1/reviews/{'1' * 32}", json={"verdict": "wrong"})
    assert gone.status_code == 404
    assert "decisions_s" in gone.json()["detail"]
    odd = await client.post(f"/v1/reviews/{'1' * 32}", json={"verdict": "maybe"})
    assert "known are correct, wrong" in odd.json()["detail"]
    assert (await client.get("/v1/reviews", params={"status": "done"})).status_code == 400
    assert (await client.get("/v1/reviews", params={"limit": "0"})).status_code == 400
    assert (await client.get("/v1/reviews", params={"cursor": "x"})).status_code == 400


async def test_roles_and_tenants(guarded: Http, keys_file: Any) -> None:
    """A writer judges hits of its tenant; reviews are an admin's."""
    headers = {
        (tenant, role): {"Authorization": f"Bearer {create_key(keys_file, tenant, role)}"}
        for tenant in ("acme", "other")
        for role in (Role.reader, Role.writer, Role.admin)
    }
    own = headers["acme", Role.writer]
    await anyio.sleep(1.1)  # until the file of keys is read again
    await guarded.post("/v1/cache/store", json=ASKED | {"response": "r"}, headers=own)
    hit = (await guarded.post("/v1/cache/lookup", json=ASKED, headers=own)).json()
    body = {"lookup_id": hit["lookup_id"], "correct": True}
    sent = {
        name: (await guarded.post("/v1/feedback", json=body, headers=one)).status_code
        for name, one in headers.items()
    }
    assert sent["acme", Role.reader] == 403
    assert sent["acme", Role.writer] == 200
    assert sent["other", Role.writer] == sent["other", Role.admin] == 404
    assert (await guarded.get("/v1/reviews", headers=own)).status_code == 403
    assert (await guarded.get("/v1/reviews", headers=headers["acme", Role.admin])).status_code == 200


async def wrong(http: Http) -> Any:
    """A semantic hit on what is stored, found wrong."""
    hit = await look(http, prompt=REWORDED["prompt"])
    assert hit["tier"] == "semantic"
    assert (await judge(http, hit["lookup_id"], correct=False))["quarantined"]
    return hit


async def verdict(http: Http, lookup_id: str, word: str) -> Any:
    return await call(http, "POST", f"/v1/reviews/{lookup_id}", {"verdict": word})


async def test_another_lookups_review_lifts_no_quarantine(client: Http) -> None:
    await store(client)
    other = await look(client)
    second = await look(client, prompt=REWORDED["prompt"])
    hit = await wrong(client)
    await judge(client, second["lookup_id"], correct=False)
    await verdict(client, other["lookup_id"], "correct")
    assert (await store(client))["exact_only"] == "quarantined"
    await verdict(client, hit["lookup_id"], "correct")
    assert (await store(client))["exact_only"] == "quarantined"  # as the second still says
    await judge(client, second["lookup_id"], correct=True)
    assert (await store(client))["tiers"] == ["exact", "semantic"]


async def test_who_erred_takes_back_his_own_word(client: Http) -> None:
    """Not a reviewer's."""
    await store(client)
    hit = await wrong(client)
    await judge(client, hit["lookup_id"], correct=True)
    assert (await store(client))["tiers"] == ["exact", "semantic"]
    assert (await verdict(client, hit["lookup_id"], "wrong"))["quarantined"]
    await judge(client, hit["lookup_id"], correct=True)
    assert (await store(client))["exact_only"] == "quarantined"
    await verdict(client, hit["lookup_id"], "correct")
    assert (await store(client))["tiers"] == ["exact", "semantic"]


async def test_a_reviewers_word_holds_over_a_users(client: Http) -> None:
    """Also of a hit that was never queued."""
    await store(client)
    hit = await look(client, prompt=REWORDED["prompt"])
    assert (await verdict(client, hit["lookup_id"], "correct"))["quarantined"] is False
    assert (await judge(client, hit["lookup_id"], correct=False))["quarantined"] is False
    assert (await look(client, prompt=REWORDED["prompt"]))["tier"] == "semantic"
    assert (await store(client))["tiers"] == ["exact", "semantic"]


async def test_said_again_it_changes_nothing(client: Http) -> None:
    """What was stored anew with the same answer answers its own words, and stays."""
    await store(client)
    second = await look(client, prompt=REWORDED["prompt"])
    exact = await look(client)
    hit = await wrong(client)
    await store(client)
    for one in (hit, second):
        assert (await judge(client, one["lookup_id"], correct=False))["quarantined"] is False
        assert (await look(client))["tier"] == "exact"
    assert (await judge(client, exact["lookup_id"], correct=False))["quarantined"]
    await store(client)
    assert (await judge(client, exact["lookup_id"], correct=False))["quarantined"] is False
    assert (await look(client))["tier"] == "exact"


async def test_a_full_redis_serves_it_no_more(client: Http, redis: Redis) -> None:
    """Whoever said so says it again, when there is room."""
    stored = await store(client)
    hit = await look(client, prompt=REWORDED["prompt"])
    said = {"lookup_id": hit["lookup_id"], "correct": False, "note": "it is under Privacy"}
    redis.config_set("maxmemory", 1)
    try:
        assert (await client.post("/v1/feedback", json=said)).status_code == 507
        assert (await look(client, prompt=REWORDED["prompt"]))["outcome"] == "miss"
        assert (await client.get(f"/v1/cache/entries/{stored['entry_id']}")).status_code == 404
    finally:
        redis.config_set("maxmemory", 0)
    await store(client)
    assert await judge(client, **said) == {
        "recorded": True,
        "entry_id": stored["entry_id"],
        "quarantined": True,
    }
    assert (await store(client))["exact_only"] == "quarantined"
    (item,) = (await reviews(client))["items"]
    assert item["note"] == "it is under Privacy"


async def test_a_complaint_about_what_is_gone_is_queued(client: Http) -> None:
    """With what is known."""
    await store(client)
    first, second = await look(client), await look(client)
    await judge(client, first["lookup_id"], correct=False)
    await judge(client, second["lookup_id"], correct=False, note="it is under Privacy")
    (item,) = (await reviews(client))["items"]
    assert (item["id"], item["note"]) == (second["lookup_id"], "it is under Privacy")
    assert (item["asked"], item["stored"], item["response"]) == (None, None, None)
