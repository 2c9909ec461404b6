"""The semantic tier on a real index: what must be found, what must not be served."""

from typing import Any

import anyio
import msgspec
import pytest
from msgspec import UNSET
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.ports import Search
from service.errors import LayoutError
from service.model import Decision, Hit, Miss, Origin, Reason, Tier
from service.store import searches
from service.store.index import _create_command, as_kept, load_schema
from service.wiring import Parts
from tests.helpers import accepted, asked, keep, look, near, vector

pytestmark = pytest.mark.anyio

SEMANTIC = {"tiers": ["semantic"]}


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


def served(answer: Hit | Miss) -> Any:
    assert isinstance(answer, Hit), answer
    return msgspec.json.decode(answer.response)


async def test_other_words_hit_and_other_questions_miss(parts: Parts, keys: TenantKeys) -> None:
    stored = await keep(parts, keys, prompt="How do I reset my password?", response='{"do": [1, 2.50]}')
    assert stored.tiers == [Tier.EXACT, Tier.SEMANTIC]
    hit = await look(parts, keys, prompt="How can I reset my password?")
    assert isinstance(hit, Hit)
    assert (hit.tier, hit.entry_id) == (Origin.SEMANTIC, stored.entry_id)
    assert bytes(hit.response) == b'{"do": [1, 2.50]}'
    assert 0.95 < hit.similarity < 1
    miss = await look(parts, keys, prompt="What is the refund policy?")
    assert isinstance(miss, Miss)
    assert miss.reason is Reason.BELOW_THRESHOLD
    assert miss.nearest is not None
    assert miss.nearest.entry_id == stored.entry_id
    other = await look(parts, keys, prompt="How do I reset my password?", agent_type="b")
    assert isinstance(other, Miss)
    assert (other.reason, other.nearest) == (Reason.EMPTY, None)


async def test_the_threshold_is_the_least_that_is_served(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt="p", embedding=vector(1))
    for cosine, threshold, hits in [
        (0.9, 0.89, True),
        (0.9, 0.91, False),
        (parts.settings.threshold + 0.01, None, True),
        (parts.settings.threshold - 0.01, None, False),
    ]:
        answer = await look(
            parts, keys, prompt="p", embedding=near(1, cosine), threshold=threshold, **SEMANTIC
        )
        assert isinstance(answer, Hit) is hits
    anything = await look(parts, keys, prompt="p", embedding=near(1, -0.99), threshold=-1, **SEMANTIC)
    assert isinstance(anything, Hit)
    assert anything.similarity == pytest.approx(-0.99, abs=1e-3)


async def test_the_nearest_of_many_wins(parts: Parts, keys: TenantKeys) -> None:
    for n in range(50):
        near_n = near(1, 0.5 + n / 100)
        await keep(parts, keys, prompt="p", temperature=n / 10, response=str(n), embedding=near_n)
    assert served(await look(parts, keys, prompt="p", embedding=vector(1), threshold=0.6, **SEMANTIC)) == 49


async def test_one_vector_in_200_scopes(parts: Parts, keys: TenantKeys) -> None:
    for n in range(200):
        await keep(parts, keys, prompt="p", response=str(n), system=f"system {n}", embedding=vector(1))
    for n in range(200):
        answer = await look(parts, keys, prompt="q", system=f"system {n}", embedding=vector(1), **SEMANTIC)
        assert served(answer) == n


async def test_a_live_entry_behind_more_expired_ones_than_a_page_holds(
    parts: Parts, keys: TenantKeys, redis: Redis
) -> None:
    count = searches.PAGE + searches.EXHAUSTIVE_PAGE
    redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        for n in range(count):
            one = accepted(keys, parts, prompt=f"p{n}", embedding=vector(1), ttl_s=1)
            await parts.store.answer([one], keys)
        await keep(parts, keys, prompt="q", response="1", embedding=near(1, 0.97))
        redis.execute_command("DEBUG", "SLEEP", 1.1)  # past their end; nobody reaps them
        assert redis.dbsize() > 2 * count  # they are still there to be met
        answer = await look(parts, keys, prompt="q", embedding=vector(1), explain=True, **SEMANTIC)
        assert served(answer) == 1
        assert isinstance(answer, Hit)
        assert isinstance(answer.decision, Decision)
        assert "exhaustive" in answer.decision.stages_ms
    finally:
        redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


async def test_a_record_that_outlived_its_own_end_is_not_served(
    parts: Parts, keys: TenantKeys, redis: Redis
) -> None:
    """Clocks may differ: the record's own time counts."""
    stored = await keep(parts, keys, prompt="p", embedding=vector(1), ttl_s=1)
    for key in redis.keys(f"{parts.settings.key_prefix}:*{stored.entry_id}"):
        redis.persist(key)
    redis.execute_command("DEBUG", "SLEEP", 1.1)
    assert isinstance(await look(parts, keys, prompt="p"), Miss)


async def test_histories_decide_over_equal_last_messages(parts: Parts, keys: TenantKeys) -> None:
    def talk(about: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": f"Tell me about {about}"},
            {"role": "assistant", "content": f"{about} is nice"},
            {"role": "user", "content": "go ahead"},
        ]

    count = searches.PAGE + searches.EXHAUSTIVE_PAGE
    for n in range(count):
        await keep(parts, keys, messages=talk(f"topic {n}"), response=str(n))
    for n in (0, count // 2, count - 1):
        assert served(await look(parts, keys, messages=talk(f"topic {n}"), **SEMANTIC)) == n
    other = await look(parts, keys, messages=talk("something new"), **SEMANTIC)
    assert isinstance(other, Miss)
    assert (other.reason, other.rule) == (Reason.GUARD, "history")
    alone = await look(parts, keys, prompt="go ahead")
    assert isinstance(alone, Miss)
    assert alone.rule == "history"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [("long " * 400, "too_long"), ("I like \U0001f34e and \U0001f34c", "unknown_characters")],
)
async def test_what_cannot_be_embedded_is_for_the_exact_tier(
    parts: Parts, keys: TenantKeys, prompt: str, why: str
) -> None:
    stored = await keep(parts, keys, prompt=prompt)
    assert (stored.tiers, stored.exact_only) == ([Tier.EXACT], why)
    assert isinstance(await look(parts, keys, prompt=prompt), Hit)
    miss = await look(parts, keys, prompt=prompt + " indeed")
    assert isinstance(miss, Miss)
    assert (miss.reason, miss.rule) == (Reason.POLICY, why)


async def test_storing_again_replaces_the_answer(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    first = await keep(parts, keys, prompt="p", response="1", ttl_s=10, sources=["doc"])
    again = await keep(parts, keys, prompt=" p", response="2", ttl_s=None)
    assert again.entry_id == first.entry_id
    assert served(await look(parts, keys, prompt="p")) == 2
    answer = await look(parts, keys, prompt="p", **SEMANTIC)
    assert served(answer) == 2
    assert isinstance(answer, Hit)
    assert answer.expires_in_s is None
    (document,) = redis.keys(f"{parts.settings.key_prefix}:*document*")
    assert redis.ttl(document) == -1
    assert not redis.hexists(document, "source")


async def test_the_same_answer_lives_longer_and_never_shorter(parts: Parts, keys: TenantKeys) -> None:
    async def left(**fields: Any) -> float | None:
        return (await keep(parts, keys, prompt="p", **fields)).expires_in_s

    assert await left(ttl_s=100) == 100
    assert 99 < (await left(ttl_s=10) or 0) <= 100
    assert await left(ttl_s=1000) == 1000
    assert await left(ttl_s=10, response='"another"') == 10
    assert await left(ttl_s=None, response='"another"') is None
    assert await left(response='"another"') is None
    assert 0.95 * 86400 <= (await left(response='"a third"') or 0) <= 86400


async def test_a_vector_does_not_speak_for_an_image(parts: Parts, keys: TenantKeys) -> None:
    def picture(name: str) -> list[dict[str, Any]]:
        image = {"type": "image_url", "image_url": {"url": name}}
        return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]

    stored = await keep(parts, keys, messages=picture("cat.png"), response='"a cat"', embedding=vector(1))
    assert (stored.tiers, stored.exact_only) == ([Tier.EXACT], "not_plain_text")
    dog = await look(parts, keys, messages=picture("dog.png"), embedding=vector(1), threshold=-1)
    assert isinstance(dog, Miss)
    assert (dog.reason, dog.rule) == (Reason.POLICY, "not_plain_text")
    alone = await look(parts, keys, prompt="What is this?", embedding=vector(1), threshold=-1)
    assert isinstance(alone, Miss)
    assert served(await look(parts, keys, messages=picture("cat.png"))) == "a cat"


async def test_searches_filter_by_tenant_agent_type_and_scope(parts: Parts, keys: TenantKeys) -> None:
    question = asked(keys, parts, prompt="p", embedding=vector(1))
    generation = parts.responses.generation
    assert question.vector is not None
    assert generation is not None
    for live_at in (None, 5):
        search = Search(question.query.identities, question.vector, live_at)
        command = searches.search_command("index", search, "", generation)
        assert "@tenant:{$tenant0} @agent_type:{$agent_type0} @scope:{$scope0}" in str(command[2])
        identity = question.query.identities[0]
        assert {identity.tenant, identity.agent_type, identity.scope} <= set(command)
        assert command[-2:] == ("DIALECT", 2)


async def test_both_keys_die_together(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await keep(parts, keys, prompt="p", ttl_s=100)
    await keep(parts, keys, prompt="long " * 400, ttl_s=100)
    entries = [key for key in redis.keys(f"{parts.settings.key_prefix}:{{0}}:*") if b":responses:" in key]
    assert len(entries) == 4  # an entry without a vector has its index document, too
    ends = {redis.execute_command("PEXPIRETIME", key) for key in entries}
    assert len(ends) <= 2
    assert all(end > 0 for end in ends)


async def test_a_poisoned_record_is_a_miss(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    other = parts.keyring.of(operator("other"))
    mine = await keep(parts, keys, prompt="p", response='"mine"')
    theirs = await keep(parts, other, prompt="p", response='"theirs"')
    (my_key,) = redis.keys(f"{parts.settings.key_prefix}:*record:{mine.entry_id}")
    (their_key,) = redis.keys(f"{parts.settings.key_prefix}:*record:{theirs.entry_id}")
    poisons: list[Any] = [redis.get(their_key), b"", b"\x01" * 100, b"x" * 10]
    for poison in poisons:
        redis.set(my_key, poison)
        for tier in Tier:
            assert isinstance(await look(parts, keys, prompt="p", tiers=[tier]), Miss)
    redis.delete(my_key)
    redis.hset(my_key, "a", "b")
    assert isinstance(await look(parts, keys, prompt="p"), Miss)
    assert served(await look(parts, other, prompt="p")) == "theirs"


async def test_nothing_is_written_on_a_hit(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await keep(parts, keys, prompt="How do I reset my password?")
    before = redis.info("persistence")["rdb_changes_since_last_save"]
    await look(parts, keys, prompt="How do I reset my password?")
    await look(parts, keys, prompt="How can I reset my password?")
    assert redis.info("persistence")["rdb_changes_since_last_save"] == before


async def test_a_batch_takes_one_round_trip_per_stage(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    run = type(parts.redis).run

    async def counted(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        if commands:
            trips.append(len(commands))
        return await run(self, commands, budget, lane)

    monkeypatch.setattr(type(parts.redis), "run", counted)
    batch = [accepted(keys, parts, prompt=f"question number {n}", embedding=vector(n)) for n in range(64)]
    await parts.store.answer(batch, keys)
    assert len(trips) == 2  # what is there already, and the entries
    trips.clear()
    questions = [asked(keys, parts, prompt=f"question number {n}") for n in range(64)]
    assert all(isinstance(answer, Hit) for answer in await parts.lookup.answer(questions, keys))
    assert len(trips) == 1
    trips.clear()
    questions = [asked(keys, parts, prompt="other", embedding=vector(n)) for n in range(64)]
    assert all(isinstance(answer, Hit) for answer in await parts.lookup.answer(questions, keys))
    assert len(trips) == 3
    trips.clear()
    (answer,) = await parts.lookup.answer([asked(keys, parts, prompt="other", embedding=vector(1))], keys)
    assert isinstance(answer, Hit)
    assert len(trips) == 2  # one alone is searched for along with the reading of its own entry


async def test_where_most_are_exact_hits_no_search_goes_along(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[list[str]] = []
    run = type(parts.redis).run

    async def noted(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        trips.append([command[0] for command in commands])
        return await run(self, commands, budget, lane)

    for n in range(20):
        await keep(parts, keys, prompt=f"question number {n}", embedding=vector(n))
    monkeypatch.setattr(type(parts.redis), "run", noted)
    for n in range(20):
        assert isinstance(await look(parts, keys, prompt=f"question number {n}", embedding=vector(n)), Hit)
    searched = ["FT.SEARCH" in names for names in trips if "MGET" in names]
    assert searched == [True] * 4 + [False] * 16
    for n in range(60):
        await look(
            parts, keys, prompt=f"other words {n}", embedding=vector(n % 20), tiers=["exact", "semantic"]
        )
    trips.clear()
    await look(parts, keys, prompt="yet others", embedding=vector(1))
    assert "FT.SEARCH" in next(names for names in trips if "MGET" in names)


async def test_the_index_is_followed_when_it_moves(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    """A migration publishes another index over the same documents and drops the old one."""
    await keep(parts, keys, prompt="p", response="1", embedding=vector(1))
    prefix = parts.settings.key_prefix
    name = f"{prefix}:{{0}}:responses:index:"
    generation = redis.get(f"{prefix}:{{meta}}:responses:generation")
    assert isinstance(generation, bytes)
    assert parts.responses.generation is not None
    schema = as_kept(load_schema(parts.settings.schema_dir / "responses.yaml"), parts.responses.generation)
    redis.execute_command(*_create_command(schema, name + "2", f"{prefix}:{{0}}:responses:document:1:"))
    moved = msgspec.json.encode(msgspec.json.decode(generation) | {"number": 2, "index": "2"})
    with anyio.fail_after(10):  # RediSearch fills a new index in the background
        while redis.execute_command("FT.SEARCH", name + "2", "*", "LIMIT", 0, 0)[0] != 1:
            await anyio.sleep(0.01)
    redis.set(f"{prefix}:{{meta}}:responses:generation", moved)
    redis.execute_command("FT.DROPINDEX", name + "1")
    assert served(await look(parts, keys, prompt="q", embedding=vector(1), **SEMANTIC)) == 1
    assert parts.responses.generation is not None
    assert parts.responses.generation.number == 2
    other_model = msgspec.json.encode(msgspec.json.decode(moved) | {"index": "3", "model": "another"})
    redis.set(f"{prefix}:{{meta}}:responses:generation", other_model)
    redis.execute_command("FT.DROPINDEX", name + "2")
    redis.execute_command(*_create_command(schema, name + "3", f"{prefix}:{{0}}:responses:document:1:"))
    lost = await look(parts, keys, prompt="q", embedding=vector(1), **SEMANTIC)
    assert isinstance(lost, Miss)
    assert lost.rule is UNSET
    assert lost.reason is Reason.DEGRADED  # vectors of two models are never compared
    assert parts.responses.generation is None


async def test_a_later_versions_generation_ends_serving(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    prefix = parts.settings.key_prefix
    name = f"{prefix}:{{meta}}:responses:generation"
    generation = redis.get(name)
    assert isinstance(generation, bytes)
    redis.set(name, msgspec.json.encode(msgspec.json.decode(generation) | {"new": 1}))
    redis.execute_command("FT.DROPINDEX", f"{prefix}:{{0}}:responses:index:1")
    lost = await look(parts, keys, prompt="q", embedding=vector(1), **SEMANTIC)
    assert isinstance(lost, Miss)
    assert lost.reason is Reason.DEGRADED
    assert parts.responses.generation is None
    with pytest.raises(LayoutError, match="another semcached version"):
        await parts.attach(lambda _: None)
