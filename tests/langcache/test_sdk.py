"""Every call of the unmodified LangCache SDK, sync and async, over a real socket."""

import re
from collections import Counter
from datetime import datetime

import anyio
import msgspec
import pytest
from langcache.models import SearchStrategy

from tests.langcache.conftest import Caller, Service, calling

pytestmark = pytest.mark.anyio

ASKED = "How do I reset my password?"
ALIKE = "How can I reset my password?"
ELSE = "What does the premium plan cost per month?"
SAID = "Settings, Security, Reset password."
AWKWARD = [
    "a,b",
    "nul \0 in it",
    "line\nline",
    "  ends  ",
    "{$x|@y}",
    "*",
    "%2C",
    "é e\u0301",
    "x" * 30_000,
    "",
]


async def test_what_was_set_is_found_by_the_same_words(cache: Caller) -> None:
    kept = await cache("set", prompt=ASKED, response=SAID, attributes={"lang": "en"})
    assert re.fullmatch("[0-9a-f]{32}", kept.entry_id)
    (found,) = (await cache("search", prompt=ASKED, attributes={"lang": "en"})).data
    assert found.model_dump() == {
        "id": kept.entry_id,
        "prompt": ASKED,
        "response": SAID,
        "attributes": {"lang": "en"},
        "similarity": 1.0,
        "search_strategy": "exact",
    }


async def test_and_by_others_that_mean_the_same(cache: Caller) -> None:
    kept = await cache("set", prompt=ASKED, response=SAID)
    (found,) = (await cache("search", prompt=ALIKE)).data
    assert (found.id, found.search_strategy) == (kept.entry_id, "semantic")
    assert 0.8 < found.similarity < 1
    assert (await cache("search", prompt=ELSE)).data == []


async def test_the_threshold_is_on_langcaches_scale(cache: Caller) -> None:
    await cache("set", prompt=ASKED, response=SAID)
    (found,) = (await cache("search", prompt=ALIKE)).data
    at = await cache("search", prompt=ALIKE, similarity_threshold=found.similarity)
    assert [one.id for one in at.data] == [found.id]
    above = await cache("search", prompt=ALIKE, similarity_threshold=found.similarity + 1e-6)
    assert above.data == []


async def test_strategies(cache: Caller) -> None:
    await cache("set", prompt=ASKED, response=SAID)
    exact, semantic = SearchStrategy.EXACT, SearchStrategy.SEMANTIC
    assert (await cache("search", prompt=ALIKE, search_strategies=[exact])).data == []
    for order, first in (
        ([exact, semantic], "exact"),
        ([semantic, exact], "semantic"),
        ([semantic], "semantic"),
    ):
        (found,) = (await cache("search", prompt=ASKED, search_strategies=order)).data
        assert found.search_strategy == first
        assert found.similarity == pytest.approx(1, abs=1e-4)


async def test_a_search_may_name_fewer_attributes_than_an_entry_has(cache: Caller) -> None:
    has = {"lang": "en", "plan": "pro", "region": "eu"}
    kept = await cache("set", prompt=ASKED, response=SAID, attributes=has)
    for prompt, found_by in ((ASKED, "exact"), (ALIKE, "semantic")):
        for named in ({}, {"plan": "pro"}, {"region": "eu", "lang": "en"}, has):
            (found,) = (await cache("search", prompt=prompt, attributes=named)).data
            assert (found.id, found.search_strategy, found.attributes) == (kept.entry_id, found_by, has)
        for named in ({"plan": "free"}, {"plan": "pro", "other": ""}, has | {"other": "x"}, {"pro": "plan"}):
            assert (await cache("search", prompt=prompt, attributes=named)).data == []


async def test_entries_that_differ_in_attributes_are_several(cache: Caller) -> None:
    plans = {
        plan: await cache("set", prompt=ASKED, response=plan, attributes={"plan": plan}) for plan in "abc"
    }
    assert len({one.entry_id for one in plans.values()}) == 3
    for plan in "abc":
        (found,) = (await cache("search", prompt=ASKED, attributes={"plan": plan})).data
        assert found.response == plan
    exact = await cache("search", prompt=ASKED, max_results=3, search_strategies=["exact"])
    assert [one.response for one in exact.data] == ["c", "b", "a"]  # the newest first
    near = await cache("search", prompt=ALIKE, max_results=3)
    assert {one.response for one in near.data} == set("abc")


async def test_several_results_come_best_first_and_none_twice(cache: Caller) -> None:
    for prompt in (ASKED, ALIKE, "How to reset my password?", ELSE):
        await cache("set", prompt=prompt, response=prompt)
    found = (await cache("search", prompt=ASKED, max_results=10, similarity_threshold=0.8)).data
    assert found[0].prompt == ASKED
    assert {one.prompt for one in found} == {ASKED, ALIKE, "How to reset my password?"}
    likeness = [one.similarity for one in found]
    assert likeness == sorted(likeness, reverse=True)
    assert [one.search_strategy for one in found] == ["exact", "semantic", "semantic"]
    assert len((await cache("search", prompt=ASKED, max_results=2, similarity_threshold=0.8)).data) == 2
    assert len((await cache("search", prompt=ASKED, max_results=10_000, similarity_threshold=0.8)).data) == 3


@pytest.mark.parametrize("value", AWKWARD)
async def test_values_are_opaque(cache: Caller, value: str) -> None:
    kept = await cache(
        "set", prompt=ASKED, response=value + "!", attributes={"v": value, "n\0,\n" + value[:9]: "x"}
    )
    for named in ({"v": value}, {"n\0,\n" + value[:9]: "x"}):
        (found,) = (await cache("search", prompt=ASKED, attributes=named)).data
        assert (found.id, found.attributes["v"], found.response) == (kept.entry_id, value, value + "!")
    for other in (value + " ", value + ",", value[:-1] if value else "x", value + "\0"):
        assert (await cache("search", prompt=ASKED, attributes={"v": other})).data == []
    assert (await cache("delete_query", attributes={"v": value + "\0"})).deleted_entries_count == 0
    assert (await cache("delete_query", attributes={"v": value})).deleted_entries_count == 1


async def test_setting_again_replaces_the_answer(cache: Caller) -> None:
    first = await cache("set", prompt=ASKED, response="old", attributes={"a": "1"})
    second = await cache("set", prompt=ASKED, response="new", attributes={"a": "1"})
    assert first.entry_id == second.entry_id
    (found,) = (await cache("search", prompt=ASKED)).data
    assert found.response == "new"


async def test_an_entry_ends_when_it_was_told_to(cache: Caller, service: Service, cache_id: str) -> None:
    kept = await cache("set", prompt=ASKED, response=SAID, ttl_millis=3_600_000)
    entry = service.native("GET", f"/v1/cache/entries/{kept.entry_id}")
    assert entry["agent_type"] == f"langcache:{cache_id}"
    lives = msgspec.convert(entry["expires_at"], type=datetime) - msgspec.convert(
        entry["stored_at"], type=datetime
    )
    assert lives.total_seconds() == 3600
    await cache("set", prompt=ELSE, response=SAID, ttl_millis=1)
    assert (await cache("search", prompt=ELSE)).data == []


async def test_deleting_by_id(cache: Caller, service: Service) -> None:
    kept = await cache("set", prompt=ASKED, response=SAID)
    async with calling(service.url, service.keys["writer"], "elsewhere", sync=True) as other:
        with pytest.raises(Exception, match="no entry of that id"):
            await other("delete_by_id", entry_id=kept.entry_id)
    assert len((await cache("search", prompt=ASKED)).data) == 1
    await cache("delete_by_id", entry_id=kept.entry_id)
    for prompt in (ASKED, ALIKE):
        assert (await cache("search", prompt=prompt)).data == []


async def test_deleting_by_attributes(cache: Caller) -> None:
    for at in range(7):
        given = {"parity": "odd" if at % 2 else "even", "n": str(at)}
        await cache("set", prompt=f"{ASKED} {at}", response=SAID, attributes=given)
    assert (await cache("delete_query", attributes={"parity": "odd", "n": "2"})).deleted_entries_count == 0
    assert (await cache("delete_query", attributes={"parity": "odd"})).deleted_entries_count == 3
    assert (await cache("delete_query", attributes={"parity": "odd"})).deleted_entries_count == 0
    assert (await cache("delete_query", attributes={"parity": "even", "n": "2"})).deleted_entries_count == 1
    left = [
        at
        for at in range(7)
        if (await cache("search", prompt=f"{ASKED} {at}", search_strategies=["exact"])).data
    ]
    assert left == [0, 4, 6]


async def test_flushing_empties_this_cache_and_no_other(
    cache: Caller, service: Service, cache_id: str
) -> None:
    await cache("set", prompt=ASKED, response=SAID, attributes={"a": "1"})
    native = {"agent_type": cache_id, "prompt": ASKED, "response": "native"}
    service.native("POST", "/v1/cache/store", native)
    async with (
        calling(service.url, service.keys["writer"], cache_id + "2", sync=True) as beside,
        calling(service.url, service.keys["other"], cache_id, sync=True) as stranger,
    ):
        for one in (beside, stranger):
            await one("set", prompt=ASKED, response="theirs")
        await cache("flush")
        assert (await cache("search", prompt=ASKED)).data == []
        assert (await cache("search", prompt=ALIKE)).data == []
        for one in (beside, stranger):
            assert [found.response for found in (await one("search", prompt=ASKED)).data] == ["theirs"]
    asked = {"agent_type": cache_id, "prompt": ASKED}
    assert service.native("POST", "/v1/cache/lookup", asked)["response"] == "native"


async def test_caches_tenants_and_agent_types_never_meet(
    cache: Caller, service: Service, cache_id: str
) -> None:
    for prompt in (ASKED, ALIKE):
        await cache("set", prompt=prompt, response="cache")
    for agent_type in (cache_id, f"langcache:{cache_id}"):
        for prompt in (ASKED, ALIKE, "How to reset my password?"):
            asked = {"agent_type": agent_type, "prompt": prompt}
            for params in (None, {"langchain": list[str]()}):
                assert (
                    service.native("POST", "/v1/cache/lookup", asked | {"params": params})["outcome"]
                    == "miss"
                )
        named = {"agent_type": agent_type, "prompt": ASKED, "response": "native"}
        service.native("POST", "/v1/cache/store", named)
    async with (
        calling(service.url, service.keys["writer"], cache_id + "2", sync=True) as beside,
        calling(service.url, service.keys["other"], cache_id, sync=True) as stranger,
    ):
        for one in (beside, stranger):
            assert (await one("search", prompt=ASKED, max_results=9)).data == []
            assert (await one("search", prompt=ALIKE, max_results=9)).data == []
    found = (await cache("search", prompt=ASKED, max_results=9)).data
    assert {one.response for one in found} == {"cache"}


async def test_policy_stats_and_entries_know_it_by_name(
    cache: Caller, service: Service, cache_id: str
) -> None:
    path = f"/v1/policies?agent_type=langcache:{cache_id}"
    service.native("PUT", path, {"bypass": [{"pattern": "(?i)today"}], "admission": {"forbid": ["oops"]}})
    with pytest.raises(Exception, match="forbid"):
        await cache("set", prompt=ASKED, response="Oops, that failed.")
    with pytest.raises(Exception, match="pattern"):
        await cache("set", prompt="What is today's menu?", response=SAID)
    await cache("set", prompt=ASKED, response=SAID)
    assert len((await cache("search", prompt=ASKED)).data) == 1
    assert (await cache("search", prompt="What is today's menu?")).data == []
    stats = service.native("GET", f"/v1/stats?agent_type=langcache:{cache_id}")
    assert stats["requests"] == 2
    listed = service.native("GET", f"/v1/cache/entries?agent_type=langcache:{cache_id}")["items"]
    assert [one["prompt"] for one in listed] == [ASKED]


async def test_in_shadow_nothing_is_served(cache: Caller, service: Service, cache_id: str) -> None:
    await cache("set", prompt=ASKED, response=SAID)
    path = f"agent_type=langcache:{cache_id}"
    service.native("PUT", f"/v1/policies?{path}", {"shadow": True})
    for prompt in (ASKED, ALIKE):
        for most in (1, 9):
            assert (await cache("search", prompt=prompt, max_results=most)).data == []
    learned = service.native("GET", f"/v1/learning?{path}")
    assert learned["shadow"]["hits"] == 4


async def test_verified_is_refused_for_what_could_never_learn(service: Service, cache_id: str) -> None:
    answer = service.served.http.put(
        f"{service.url}/v1/policies?agent_type=langcache:{cache_id}",
        json={"mode": "verified"},
        headers={"Authorization": f"Bearer {service.keys['admin']}"},
    )
    assert answer.status_code == 400
    assert "mode" in answer.text


def counted(service: Service) -> Counter[str]:
    """Lookups and stores by outcome, as the metrics have them."""
    lines = re.findall(
        r'^semcached_(?:lookups|stores)_total\{.*?outcome="(\w+)".*\} (\S+)$',
        service.served.http.get("/metrics").text,
        re.MULTILINE,
    )
    total: Counter[str] = Counter()
    for outcome, value in lines:
        total[outcome] += int(float(value))
    return total


async def test_every_search_says_what_the_cache_did(cache: Caller, service: Service, cache_id: str) -> None:
    before = counted(service)
    await cache("set", prompt=ASKED, response=SAID)
    path = f"{service.url}/v1/caches/{cache_id}/entries/search"
    headers = {"Authorization": f"Bearer {service.keys['reader']}", "content-type": "text/plain"}
    said = {}
    for prompt in (ASKED, ELSE):
        answer = service.served.http.post(
            path, content=msgspec.json.encode({"prompt": prompt, "later": 1}), headers=headers
        )
        assert answer.status_code == 200
        said[prompt] = answer.headers["x-cache"]
    assert said == {ASKED: "HIT", ELSE: "MISS"}
    assert counted(service) - before == Counter(hit=1, miss=1, stored=1)


async def test_a_conversation_without_context_is_a_search(cache: Caller) -> None:
    await cache("set", prompt=ASKED, response=SAID)
    for context in (None, list[str]()):
        found = await cache("conversational_search", prompt=ALIKE, context=context)
        assert found.actual_prompt == ALIKE
        assert [one.response for one in found.data] == [SAID]


async def test_in_a_conversation_only_what_stands_alone_is_looked_up(cache: Caller) -> None:
    follow_up = "And what about the second one?"
    for prompt in (ASKED, follow_up):
        await cache("set", prompt=prompt, response=SAID)
    context = ["What does the premium plan cost per month?"]
    alone = await cache("conversational_search", prompt=ASKED, context=context)
    assert (alone.actual_prompt, [one.prompt for one in alone.data]) == (ASKED, [ASKED])
    pointing = await cache("conversational_search", prompt=follow_up, context=context)
    assert (pointing.actual_prompt, pointing.data) == (follow_up, [])
    told = await cache("conversational_search", prompt=ASKED, context=["From now on, answer in German."])
    assert told.data == []


async def test_what_was_acknowledged_before_a_flush_is_never_served_behind_it(
    service: Service, cache_id: str
) -> None:
    acknowledged: set[int] = set()
    before: set[int] = set()
    async with calling(service.url, service.keys["writer"], cache_id, sync=False) as cache:

        async def setting(numbers: range) -> None:
            for n in numbers:
                await cache("set", prompt=f"{ASKED} {n}", response=SAID, attributes={"n": str(n)})
                acknowledged.add(n)

        async def found(n: int) -> bool:
            return bool((await cache("search", prompt=f"{ASKED} {n}", attributes={"n": str(n)})).data)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for at in range(0, 120, 30):
                    tasks.start_soon(setting, range(at, at + 30))
                for least in (10, 50):
                    while len(acknowledged) < least:
                        await anyio.sleep(0.01)
                    before = set(acknowledged)
                    await cache("flush")
                    assert [n for n in before if await found(n)] == []
        left = [n for n in range(120) if await found(n)]
        assert set(left) <= acknowledged - before
        for n in left:
            assert (await cache("delete_query", attributes={"n": str(n)})).deleted_entries_count == 1
