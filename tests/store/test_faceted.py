"""Entries that are found by some of their attributes, from within."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache import faceted
from service.cache.digests import TenantKeys
from service.cache.faceted import FacetedQuestion
from service.cache.store import Accepted
from service.model import LookupRequest, Policy, Stored, StoreRequest, Tier
from service.settings import Settings
from service.wiring import Loaded, Parts, opened
from tests.helpers import near, vector

pytestmark = pytest.mark.anyio

ASKED, ALIKE = "How do I reset my password?", "How can I reset my password?"


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def put(parts: Parts, keys: TenantKeys, prompt: str, response: str, **attributes: str) -> str:
    raw = msgspec.Raw(msgspec.json.encode(response))
    given = attributes.pop("embedding", None)
    request = StoreRequest(agent_type="a", prompt=prompt, response=raw, embedding=given)
    one = faceted.accepted(parts.store, request, keys, attributes)
    assert isinstance(one, Accepted)
    (answer,) = await parts.store.answer([one], keys)
    assert isinstance(answer, Stored)
    return answer.entry_id


async def find(
    parts: Parts,
    keys: TenantKeys,
    prompt: str,
    named: dict[str, str] | None = None,
    most: int = 1,
    **given: Any,
) -> list[str]:
    """The answers found, and nothing else."""
    request = LookupRequest(agent_type="a", prompt=prompt, **given)
    question: FacetedQuestion = parts.faceted.faceted(request, keys, named or {}, most)
    await parts.faceted.answer([question], keys)
    return [msgspec.json.decode(record.response) for _, _, record in question.results]


@pytest.fixture
def trips(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The round trips to Redis: the commands of each."""
    made: list[list[Any]] = []
    run = type(parts.redis).run

    async def noted(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        names = [command[0] for command in commands]
        if {"MGET", "FT.SEARCH"} & {*names}:  # not what is written behind
            made.append(names)
        return await run(self, commands, budget, lane)

    monkeypatch.setattr(type(parts.redis), "run", noted)
    return made


async def test_all_attributes_take_one_round_trip(
    parts: Parts, keys: TenantKeys, trips: list[list[Any]]
) -> None:
    await put(parts, keys, ASKED, "r", plan="pro", lang="en")
    await put(parts, keys, ALIKE, "none")
    for prompt, named, answer in ((ASKED, {"lang": "en", "plan": "pro"}, "r"), (ALIKE, {}, "none")):
        trips.clear()
        assert await find(parts, keys, prompt, named) == [answer]
        assert trips == [["MGET", "HGET"]]


async def test_some_of_them_take_three(parts: Parts, keys: TenantKeys, trips: list[list[Any]]) -> None:
    await put(parts, keys, ASKED, "r", plan="pro", lang="en")
    trips.clear()
    assert await find(parts, keys, ASKED, {"lang": "en"}) == ["r"]
    assert trips == [["MGET", "HGET"], ["FT.SEARCH"], ["MGET"]]


async def test_nearer_entries_of_other_attributes_hide_nothing(parts: Parts, keys: TenantKeys) -> None:
    for n in range(120):
        await put(parts, keys, f"q{n}", "free", plan="free", n=str(n), embedding=near(1, 0.999))
    await put(parts, keys, "q", "pro", plan="pro", embedding=near(1, 0.9))
    given = {"embedding": vector(1), "threshold": 0.85, "tiers": [Tier.SEMANTIC]}
    policy = {"guards": dict.fromkeys(("numbers", "entities", "question", "verifier"), False)}
    await parts.policies.put(keys, "a", msgspec.json.encode(policy))
    assert await find(parts, keys, "q500", {"plan": "pro"}, 3, **given) == ["pro"]
    assert await find(parts, keys, "q500", None, 32, **given) == ["free"] * 32


@pytest.mark.parametrize("other", [ASKED, "How do I delete my account?"])
async def test_a_document_that_was_tampered_with_serves_nothing(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str, other: str
) -> None:
    """The index says what to look at; what is served, the sealed record says."""
    pro = await put(parts, keys, ASKED, "pro", plan="pro", lang="en")
    free = await put(parts, keys, other, "free", plan="free", lang="en")
    names = {one: next(redis.scan_iter(f"{prefix}:*:document:*{one}")) for one in (pro, free)}
    taken: Any = {field: redis.hget(names[pro], field) for field in ("attribute", "vector")}
    redis.hset(names[free], mapping=taken)
    redis.unlink(names[pro])
    for prompt in (ASKED, ALIKE):
        assert await find(parts, keys, prompt, {"plan": "pro"}, 9) == []
    assert await find(parts, keys, ASKED, {"plan": "pro"}, 9, tiers=[Tier.EXACT]) == []
    found = await find(parts, keys, ASKED, {"lang": "en"}, 9, tiers=[Tier.EXACT])
    assert found == (["free"] if other == ASKED else [])


async def test_a_document_of_what_was_there_before_serves_nothing(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str
) -> None:
    """By it an invalidation doesn't find the record that is there now."""
    entry_id = await put(parts, keys, ASKED, "r", plan="pro", lang="en")
    for answers in (["r"], []):
        for prompt in (ASKED, ALIKE):
            assert await find(parts, keys, prompt, {"lang": "en"}, 9) == answers
        (name,) = redis.scan_iter(f"{prefix}:*:document:*{entry_id}")
        redis.hincrby(name, "stored_at", -1)


async def test_the_very_same_question_is_asked_also_where_it_cant_be_embedded(
    parts: Parts, keys: TenantKeys
) -> None:
    long = "why? " * 5000
    await put(parts, keys, long, "r", plan="pro", lang="en")
    assert await find(parts, keys, long) == await find(parts, keys, long, {"lang": "en"}) == ["r"]
    assert await find(parts, keys, long + "!") == await find(parts, keys, long, {"lang": "de"}) == []


async def test_hits_are_uses(parts: Parts, keys: TenantKeys) -> None:
    await parts.policies.put(keys, "a", msgspec.json.encode(Policy(max_entries=10)))
    for n in range(3):
        await put(parts, keys, ASKED, str(n), n=str(n))
    uses = parts.faceted._uses
    uses.take()  # type: ignore[attr-defined] # the real one's
    assert len(await find(parts, keys, ASKED, None, 3)) == 3
    noted = uses.take()  # type: ignore[attr-defined] # as above
    assert [len(one) for one in noted.values()] == [3]


@asynccontextmanager
async def service(settings: Settings, models: Loaded) -> AsyncIterator[tuple[Parts, TenantKeys]]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts, parts.keyring.of(operator("acme"))


async def test_the_previous_secret_reads(settings: Settings, models: Loaded) -> None:
    old, new = replace(settings, secret="the older secret, 16+"), "the newer secret, 16+"
    async with service(old, models) as (parts, keys):
        await put(parts, keys, ASKED, "r", plan="pro", lang="en")
        await put(parts, keys, "What is the capital of France?", "Paris", plan="pro")
    both = replace(old, secret=new, previous_secret=old.secret)
    async with service(both, models) as (parts, keys):
        for named in (dict[str, str](), {"plan": "pro"}, {"plan": "pro", "lang": "en"}):
            for prompt in (ASKED, ALIKE):
                assert await find(parts, keys, prompt, named, 9) == ["r"]
                assert await find(parts, keys, prompt, named | {"other": "x"}, 9) == []
        await put(parts, keys, ASKED, "new", plan="pro", lang="en")
        assert await find(parts, keys, ASKED, None, 9) == ["new"]
    async with service(replace(settings, secret=new), models) as (parts, keys):
        assert await find(parts, keys, ASKED, None, 9) == ["new"]
        assert await find(parts, keys, "What is the capital of France?") == []
