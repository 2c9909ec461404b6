"""Modes `verified` and `adaptive`, `shadow`, and what is told of them, over HTTP."""

from typing import Any

import anyio
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.cache.learning.verified import Drawn
from tests.api.test_feedback import AGENT, ASKED, REWORDED, call, judge, look, store
from tests.helpers import near, vector

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
PLAIN = {"guards": {"verifier": False}, "threshold": 0.6, "comparison": "equal"}
"""Vectors stand for the questions' meaning."""


async def policy(http: Http, **fields: Any) -> None:
    await call(http, "PUT", "/v1/policies", PLAIN | fields, params={"agent_type": AGENT})


async def learned(http: Http) -> Any:
    return await call(http, "GET", "/v1/learning", params={"agent_type": AGENT})


async def ask(http: Http, at: int, right: str) -> Any:
    """As an agent does: what misses is answered afresh, and stored."""
    words = {"prompt": f"question {chr(97 + at % 26)}{chr(97 + at // 26)}", "embedding": near(1, 0.95)}
    found = await look(http, **words)
    if found["outcome"] == "miss":
        await store(http, **words, response=right, lookup_id=found["lookup_id"])
    return found


async def settled(http: Http, outcomes: int) -> Any:
    """When so much is known."""
    with anyio.fail_after(20):
        while (found := await learned(http))["outcomes"] < outcomes:
            await anyio.sleep(0.1)  # compared in the background
    return found


async def test_verified_explores_until_it_knows(client: Http) -> None:
    """Answers that turn out the same are served then; what is stored meanwhile answers its own words."""
    await policy(client, mode="verified", max_error_rate=0.05)
    await store(client, embedding=vector(1), response="the same")
    first = await ask(client, 0, "the same")
    assert (first["outcome"], first["reason"]) == ("miss", "explore")
    again = await look(client, prompt="question aa", embedding=near(1, 0.95))
    assert again["tier"] == "exact"
    told = [await ask(client, at, "the same") for at in range(1, 60)]
    explored = sum(one["outcome"] == "miss" for one in told) + 1
    assert explored >= 10
    found = await settled(client, explored)
    told = [await ask(client, at, "the same") for at in range(60, 120)]
    assert sum(one["outcome"] == "hit" for one in told) > 20
    assert found["mode"] == "verified"
    assert found["entries"] == 1


async def test_verified_never_serves_what_turns_out_wrong(client: Http) -> None:
    """And an answer of its own is found by others."""
    await policy(client, mode="verified", max_error_rate=0.02)
    await store(client, embedding=vector(1), response="an answer")
    for at in range(20):
        found = await ask(client, at, f"answer {at}")
        assert found["outcome"] == "miss", at
    await settled(client, 20)
    entry = await store(client, prompt="question bb", embedding=near(1, 0.95), response="x")
    assert entry["tiers"] == ["exact", "semantic"]
    listed = await call(client, "GET", "/v1/cache/entries", params={"agent_type": AGENT, "limit": 100})
    assert len(listed["items"]) == 22


async def test_verified_learns_from_the_verifiers_score(client: Http) -> None:
    """What the draw went by is what is kept."""
    await policy(client, mode="verified", guards={})
    await store(client)
    found = await look(client, prompt=REWORDED["prompt"], explain=True)
    assert (found["outcome"], found["reason"]) == ("miss", "explore")
    (candidate,) = found["decision"]["candidates"]
    assert candidate["rejected_by"] == "explore"
    assert candidate["verifier_score"] > 0.5


@pytest.mark.parametrize("wait_s", [0.05, 0.5])
async def test_who_waits_draws_once(client: Http, monkeypatch: pytest.MonkeyPatch, wait_s: float) -> None:
    """Looking again under the lease would be a second chance to be served."""
    draws = []

    def first(one: Drawn) -> bool:
        draws.append(one)
        return len(draws) == 1

    monkeypatch.setattr("service.cache.question.explores", first)
    await policy(client, mode="verified")
    await store(client, embedding=vector(1))
    found = await look(client, prompt="another", embedding=near(1, 0.95), wait_s=wait_s)
    assert (found["outcome"], found["reason"], found["lease"]) == ("miss", "explore", True)
    assert len(draws) == 1


async def test_shadow_serves_nothing_and_says_what_would_have_been(client: Http) -> None:
    await store(client, usage={"cost_usd": 0.01})
    await policy(client, shadow=True, threshold=None, guards={})
    for prompt in (ASKED["prompt"], REWORDED["prompt"]):
        found = await look(client, prompt=prompt, explain=True)
        assert (found["outcome"], found["reason"], found["rule"]) == ("miss", "policy", "shadow")
        assert found["nearest"]["entry_id"] == found["decision"]["candidates"][0]["entry_id"]
        await store(client, prompt=prompt, lookup_id=found["lookup_id"])
    found = await settled(client, 2)
    shadow = found["shadow"]
    assert (shadow["hits"], shadow["right"], shadow["wrong"]) == (2, 2, 0)
    assert shadow["saved_usd"] == pytest.approx(0.02)
    assert found["quality"]["hits"] == 0


async def test_shadow_knows_of_a_wrong_answer_that_was_stored_anew(client: Http) -> None:
    """The fresh answer takes the place of the very one that it is compared with."""
    await store(client)
    await policy(client, shadow=True)
    for answer in ("Settings, Privacy.", "Settings, Privacy.", "Settings, Safety."):
        found = await look(client)
        await store(client, response=answer, lookup_id=found["lookup_id"])
    shadow = (await settled(client, 3))["shadow"]
    assert (shadow["hits"], shadow["right"], shadow["wrong"]) == (3, 1, 2)


async def test_the_live_false_hit_rate(client: Http) -> None:
    """Hits with a verdict, the share of wrong ones, and an interval around it."""
    await policy(client)
    for at in range(10):
        await store(client, prompt=f"p{at}", embedding=vector(at))
    ids = [(await look(client, prompt=f"p{at}", embedding=vector(at)))["lookup_id"] for at in range(10)]
    for at, one in enumerate(ids):
        await judge(client, one, correct=at != 3)
        await judge(client, one, correct=at != 3)  # said twice
    for correct in (False, True):  # changed, and changed back
        await judge(client, ids[0], correct=correct)
    stats = await call(client, "GET", "/v1/stats", params={"agent_type": AGENT})
    quality = stats["quality"]
    assert (quality["hits"], quality["verdicts"], quality["wrong"]) == (10, 10, 1)
    assert quality["false_hit_rate"] == 0.1
    assert quality["low"] <= 0.1 <= quality["high"] <= 0.11  # all are known
    assert quality["basis"] == "feedback"
    assert (await call(client, "GET", "/v1/stats"))["quality"] is None


async def in_force(http: Http) -> float:
    found = await call(http, "GET", "/v1/policies", params={"agent_type": AGENT})
    return float(found["threshold"])


@pytest.mark.parametrize("guards", [{}, {"verifier": False}])
async def test_adaptive_begins_where_the_policy_was(client: Http, guards: dict[str, bool]) -> None:
    await policy(client, threshold=None, guards=guards)
    before = await in_force(client)
    assert before == (0.95 if guards else 0.65)
    await policy(client, threshold=None, guards=guards, mode="adaptive")
    assert await in_force(client) == before
    await anyio.sleep(2.5)  # two looks
    assert await in_force(client) == before
    assert (await learned(client))["moves"] == []


async def test_a_threshold_that_is_set_counts_at_once(client: Http) -> None:
    """Where somebody tightens it in a hurry, it doesn't wait for verdicts."""
    await policy(client, mode="adaptive", threshold=0.7)
    await store(client, embedding=vector(1))
    assert (await look(client, prompt="x", embedding=near(1, 0.92)))["outcome"] == "hit"
    await policy(client, mode="adaptive", threshold=0.96)
    assert await in_force(client) == 0.96
    assert (await look(client, prompt="x", embedding=near(1, 0.92)))["outcome"] == "miss"
    (move,) = (await learned(client))["moves"]
    assert (move["number"], move["why"], move["before"], move["after"]) == (1, "policy", 0.85, 0.96)
    await policy(client, mode="adaptive", threshold=0.96, shadow=True)
    await anyio.sleep(1.5)  # a look
    assert len((await learned(client))["moves"]) == 1


async def test_adaptive_moves_up_and_back(client: Http) -> None:
    """Half of the answers at 0.7 are wrong: the threshold goes up; an operator takes the move back."""
    await policy(client, mode="adaptive", threshold=0.65, threshold_bounds=[0.6, 0.95])
    for at in range(40):
        embedding = near(at, 0.7) if at % 2 else near(at, 0.93)
        await store(client, prompt=f"p{at}", embedding=vector(at))
        hit = await look(client, prompt=f"P{at}", embedding=embedding, tiers=["semantic"])
        if hit["outcome"] == "miss":  # it has moved
            assert at >= 20
            break
        await judge(client, hit["lookup_id"], correct=not at % 2)
        if at % 10 == 9:
            await anyio.sleep(1.2)  # the service looks each second
    await anyio.sleep(2.5)  # two looks
    found = await learned(client)
    assert found["mode"] == "adaptive"
    assert found["threshold"] > 0.65
    move = found["moves"][-1]
    assert move["why"] == "wrong"
    assert move["before"] < move["after"] == found["threshold"]
    assert await in_force(client) == found["threshold"]
    undone = await call(
        client, "POST", "/v1/learning/undo", {"number": move["number"]}, params={"agent_type": AGENT}
    )
    assert undone["after"] == move["before"]
    assert (await learned(client))["threshold"] == move["before"]
    answer = await client.post("/v1/learning/undo", params={"agent_type": AGENT}, json={"number": 1})
    assert answer.status_code == 400
    assert "number" in answer.text
