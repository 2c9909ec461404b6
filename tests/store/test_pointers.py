"""Pointers of semantic hits: the same words again cost less, and are answered no otherwise."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.guards import WORDING
from service.cache.invalidation import Where
from service.cache.pointers import LIFE_MS, Pointers
from service.cache.ports import Verifier, Work
from service.model import History, Hit, LookupRequest, Miss, Origin, Pointer, Policy, Record
from service.settings import Settings
from service.store.records import seal, seal_pointer, unseal, unseal_pointer
from service.telemetry import EMBEDDED, POINTERS, RECORDS_REFUSED, VERIFIED
from service.wiring import Loaded, Parts, opened
from tests.helpers import Same, asked, chat, keep, look, vector

pytestmark = pytest.mark.anyio

STORED = "How do I reset my password?"
ASKED = "How can I reset my password?"


@pytest.fixture
def policies() -> Same:
    return Same(Policy())


@asynccontextmanager
async def service(settings: Settings, models: Loaded, policies: Same) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models, policies) as parts:
        await parts.attach(lambda _: None)
        yield parts


@pytest.fixture
async def parts(settings: Settings, models: Loaded, policies: Same) -> AsyncIterator[Parts]:
    async with service(settings, models, policies) as one:
        yield one


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
def trips(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The round trips to Redis of lookups: the commands of each."""
    made: list[list[Any]] = []
    run = type(parts.redis).run

    async def noted(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        names = [command[0] for command in commands]
        if "SET" not in names:  # what is written behind
            made.append(names)
        return await run(self, commands, budget, lane)

    monkeypatch.setattr(type(parts.redis), "run", noted)
    return made


def count(counter: Any, *labels: str) -> float:
    found: float = (counter.labels(*labels) if labels else counter)._value.get()
    return found


async def led(parts: Parts) -> None:
    """What was left so far can be read."""
    pointers = parts.lookup._pointers
    assert pointers is not None
    await pointers._writing.at_once()


def pointer_keys(redis: Redis, parts: Parts) -> list[bytes]:
    return sorted(redis.scan_iter(f"{parts.settings.key_prefix}:{{0}}:responses:pointer:*", count=1000))


async def led_to(parts: Parts, keys: TenantKeys, question: str = ASKED, **fields: Any) -> Hit:
    """A hit that left a pointer."""
    hit = await look(parts, keys, prompt=question, **fields)
    assert isinstance(hit, Hit)
    assert hit.tier is Origin.SEMANTIC
    await led(parts)
    return hit


async def served(parts: Parts, keys: TenantKeys, question: str = ASKED, **fields: Any) -> bool:
    """Whether a pointer serves it."""
    before = count(POINTERS, "served")
    await look(parts, keys, prompt=question, **fields)
    return count(POINTERS, "served") > before


async def test_the_same_words_need_no_model_and_no_search(
    parts: Parts, keys: TenantKeys, trips: list[list[Any]]
) -> None:
    await keep(parts, keys, prompt=STORED, response='{"do": [1, 2.50]}')
    verified, embedded = count(VERIFIED), count(EMBEDDED)
    first = await led_to(parts, keys)
    assert (count(VERIFIED), count(EMBEDDED)) == (verified + 1, embedded + 1)
    trips.clear()
    again = await look(parts, keys, prompt=ASKED)
    assert isinstance(again, Hit)
    assert trips == [["MGET", "HGET"], ["MGET", "HGET"]]
    assert (count(VERIFIED), count(EMBEDDED)) == (verified + 1, embedded + 1)
    same = ("tier", "entry_id", "response", "similarity", "threshold", "metadata")
    assert [getattr(again, one) for one in same] == [getattr(first, one) for one in same]
    assert not await served(parts, keys, f" {ASKED}")  # the same id, other words


async def test_who_waits_is_led_too(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    request, before = LookupRequest(agent_type="a", prompt=ASKED), count(POINTERS, "served")
    _, hit = await parts.lookup.answer_waiting(request, keys, 5, Work(), leads=True)
    assert isinstance(hit, Hit)
    assert (hit.tier, count(POINTERS, "served")) == (Origin.SEMANTIC, before + 1)


async def test_a_pointer_has_an_end_and_no_text(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await keep(parts, keys, prompt=STORED, ttl_s=None)
    await led_to(parts, keys)
    (one,) = pointer_keys(redis, parts)
    assert LIFE_MS - 60_000 < redis.pttl(one) <= LIFE_MS
    assert b"password" not in (redis.get(one) or b"")
    await keep(parts, keys, prompt="Where is the office in Berlin?", ttl_s=60)
    await led_to(parts, keys, "where is the office in Berlin")
    assert min(redis.pttl(key) for key in pointer_keys(redis, parts)) <= 60_000


async def test_who_leaves_none_and_reads_none(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    """With a vector of his own, when it shall be explained, without the exact tier, through LangCache."""
    await keep(parts, keys, prompt=STORED)
    await keep(parts, keys, prompt="other", embedding=vector(1))
    ways: list[dict[str, Any]] = [{"explain": True}, {"tiers": ["semantic"]}]
    for way in ways:
        assert isinstance(await look(parts, keys, prompt=ASKED, **way), Hit)
    assert isinstance(await look(parts, keys, prompt="others", embedding=vector(1)), Hit)
    await led(parts)
    assert pointer_keys(redis, parts) == []
    await led_to(parts, keys)
    for way in ways:
        assert not await served(parts, keys, **way)
    assert not await served(parts, keys, embedding=vector(1))
    assert parts.faceted._pointers is None


async def test_a_miss_and_an_exact_hit_leave_none(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await keep(parts, keys, prompt=STORED)
    await look(parts, keys, prompt=STORED)
    await look(parts, keys, prompt="What is the refund policy?")
    await led(parts)
    assert pointer_keys(redis, parts) == []


async def test_a_raised_threshold_applies(parts: Parts, keys: TenantKeys, policies: Same) -> None:
    await keep(parts, keys, prompt=STORED)
    hit = await led_to(parts, keys)
    above = count(POINTERS, "threshold")
    raised = hit.similarity + 0.001
    assert isinstance(await look(parts, keys, prompt=ASKED, threshold=raised), Miss)
    policies.policy = Policy(threshold=raised)
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)
    assert count(POINTERS, "threshold") == above + 2
    assert await served(parts, keys, threshold=hit.similarity)


UNWARY = {"threshold": 0.3, "verifier_cut": 0.0}


@pytest.mark.parametrize(
    "stricter",
    [
        {"guards": {}},
        {"verifier_cut": 1.0},
        {"verifier_head": {"version": "", "bias": -50, "logit": 0, "similarity": 0}, "verifier_cut": 0.1},
    ],
    ids=["guards", "cut", "head"],
)
async def test_a_policy_that_became_stricter_applies(
    parts: Parts, keys: TenantKeys, policies: Same, stricter: dict[str, Any]
) -> None:
    question = "Is it unsafe to never eat raw eggs?"
    policies.policy = msgspec.convert(UNWARY | {"guards": dict.fromkeys(WORDING, False)}, Policy)
    await keep(parts, keys, prompt="Is it safe to eat raw eggs?")
    await led_to(parts, keys, question)
    assert await served(parts, keys, question)
    policy = msgspec.to_builtins(policies.policy) | stricter
    if "verifier_head" in stricter:
        policy["verifier_head"] = stricter["verifier_head"] | {"version": verifier(parts).version}
    policies.policy = msgspec.convert(policy, Policy)
    verified = count(VERIFIED)
    assert isinstance(await look(parts, keys, prompt=question), Miss)
    assert count(VERIFIED) - verified == ("guards" not in stricter)  # the one candidate, once


def verifier(parts: Parts) -> Any:
    found: Verifier | None = parts.lookup._verifier
    assert found is not None
    return found


async def test_what_nobody_read_is_read(parts: Parts, keys: TenantKeys, policies: Same) -> None:
    policies.policy = Policy(guards={"verifier": False})
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    policies.policy = Policy()
    unread, verified = count(POINTERS, "unread"), count(VERIFIED)
    await led_to(parts, keys)
    assert (count(POINTERS, "unread"), count(VERIFIED)) == (unread + 1, verified + 1)
    assert await served(parts, keys)  # by the pointer that took the other's place


async def test_other_weights_read_anew(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    verified = count(VERIFIED)
    monkeypatch.setattr(verifier(parts), "version", "others")
    await led_to(parts, keys)
    assert count(VERIFIED) == verified + 1
    assert await served(parts, keys)


async def test_the_same_words_in_another_case_need_no_verdict(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys, STORED.lower())
    verified = count(VERIFIED)
    assert await served(parts, keys, STORED.lower())
    assert count(VERIFIED) == verified


async def test_another_model_searches(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    generation, model = parts.responses._generation, count(POINTERS, "model")
    assert generation is not None
    parts.responses._generation = msgspec.structs.replace(generation, revision="another")
    assert not await served(parts, keys)
    assert count(POINTERS, "model") == model + 1


async def test_the_answer_is_the_one_that_is_there(parts: Parts, keys: TenantKeys) -> None:
    stored = await keep(parts, keys, prompt=STORED, response="1")
    await led_to(parts, keys)
    await keep(parts, keys, prompt=STORED, response="2")
    hit = await led_to(parts, keys)
    assert bytes(hit.response) == b"2"
    assert await served(parts, keys)
    await keep(parts, keys, prompt=STORED, response="3", embedding=vector(1))  # far away now
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)
    await keep(parts, keys, prompt=STORED, response="4")
    await led_to(parts, keys)
    await parts.invalidator.run(keys, await parts.invalidator.predicates([Where(entry_id=stored.entry_id)]))
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)


async def test_what_was_invalidated_is_not_served(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt=STORED, sources=["doc"])
    await led_to(parts, keys)
    await parts.invalidator.run(keys, await parts.invalidator.predicates([Where(source="doc")]))
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)


@pytest.mark.parametrize("half", ["record", "document:1"])
async def test_half_an_entry_is_not_served(parts: Parts, keys: TenantKeys, redis: Redis, half: str) -> None:
    stored = await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    gone = count(POINTERS, "gone")
    assert redis.delete(f"{parts.settings.key_prefix}:{{0}}:responses:{half}:{stored.entry_id}") == 1
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)
    assert count(POINTERS, "gone") == gone + 1


async def test_an_expired_answer_is_not_served(
    parts: Parts, keys: TenantKeys, redis: Redis, policies: Same
) -> None:
    """Also where Redis forgot its end, or the policy's is nearer."""
    await keep(parts, keys, prompt=STORED, ttl_s=1)
    await led_to(parts, keys)
    for key in redis.scan_iter(f"{parts.settings.key_prefix}:*"):
        redis.persist(key)
    await anyio.sleep(1.1)
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    await anyio.sleep(1.1)
    policies.policy = Policy(max_age_s=1)
    assert isinstance(await look(parts, keys, prompt=ASKED), Miss)


async def test_a_pointer_that_outlived_its_end_leads_nowhere(
    parts: Parts, keys: TenantKeys, redis: Redis
) -> None:
    await keep(parts, keys, prompt=STORED)
    await led_to(parts, keys)
    (name,) = pointer_keys(redis, parts)
    pointer = opened_of(redis, name, keys)
    old = msgspec.structs.replace(pointer, created_at=pointer.created_at - LIFE_MS)
    redis.set(name, seal_pointer(old, keys.current))
    assert not await served(parts, keys)


def opened_of(redis: Redis, name: bytes, keys: TenantKeys) -> Pointer:
    blob = redis.get(name)
    assert isinstance(blob, bytes)
    pointer = unseal_pointer(blob, name.decode().rsplit(":", 1)[1], keys.current)
    assert pointer is not None
    return pointer


async def test_an_entry_of_its_own_comes_first(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt=STORED, response="1")
    await led_to(parts, keys)
    await keep(parts, keys, prompt=ASKED, response="2")
    hit = await look(parts, keys, prompt=ASKED)
    assert isinstance(hit, Hit)
    assert (hit.tier, bytes(hit.response)) == (Origin.EXACT, b"2")


async def test_what_was_hit_is_read_alone_and_what_went_is_led(
    parts: Parts, keys: TenantKeys, redis: Redis, trips: list[list[Any]]
) -> None:
    await keep(parts, keys, prompt=STORED)
    pointed = await led_to(parts, keys)
    await keep(parts, keys, prompt=ASKED)
    embedded = count(EMBEDDED)
    hit = await look(parts, keys, prompt=ASKED)
    assert isinstance(hit, Hit)
    assert hit.tier is Origin.EXACT
    redis.delete(parts.responses._keys.record(0, hit.entry_id))
    trips.clear()
    for expected in (3, 2):
        again = await look(parts, keys, prompt=ASKED)
        assert isinstance(again, Hit)
        assert (again.tier, again.entry_id) == (Origin.SEMANTIC, pointed.entry_id)
        assert trips == [["MGET", "HGET"]] * expected
        trips.clear()
    assert count(EMBEDDED) == embedded


async def test_altered_pointers_are_not_believed(
    parts: Parts, keys: TenantKeys, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each bit, another question's, another tenant's, an older layout's, another type's."""
    other = parts.keyring.of(operator("other"))
    await keep(parts, keys, prompt=STORED, response='"mine"')
    await keep(parts, other, prompt=STORED, response='"theirs"')
    await keep(parts, keys, prompt="Where is the office in Berlin?", response='"Berlin"')
    await led_to(parts, keys)
    (mine,) = pointer_keys(redis, parts)
    await led_to(parts, other)
    await led_to(parts, keys, "where is the office in Berlin")
    poisons = [redis.get(name) for name in pointer_keys(redis, parts) if name != mine]
    good = redis.get(mine)
    assert isinstance(good, bytes)
    for bit in range(0, len(good) * 8, 7):
        blob = bytearray(good)
        blob[bit // 8] ^= 1 << bit % 8
        poisons.append(bytes(blob))
    poisons += [b"", b"\x01", good[:-1], good + b"\x00", seal_record(redis, parts, keys)]
    monkeypatch.setattr(Pointers, "note", lambda *_: None)  # none takes a poison's place
    for poison in poisons:
        redis.set(mine, poison or b"")
        refused, led_by = refusals(), count(POINTERS, "served")
        hit = await look(parts, keys, prompt=ASKED)
        assert isinstance(hit, Hit)
        assert bytes(hit.response) == b'"mine"'
        assert (refusals(), count(POINTERS, "served")) == (refused + 1, led_by)
    redis.delete(mine)
    redis.hset(mine, "a", "b")
    assert not await served(parts, keys)
    redis.delete(mine)
    redis.set(mine, good)
    assert await served(parts, keys)


def refusals() -> float:
    return sum(count(RECORDS_REFUSED, why) for why in ("form", "mac", "id"))


def seal_record(redis: Redis, parts: Parts, keys: TenantKeys) -> bytes:
    """A true record of the tenant's, which is no pointer."""
    for name in redis.scan_iter(f"{parts.settings.key_prefix}:{{0}}:responses:record:*"):
        blob = redis.get(name)
        assert isinstance(blob, bytes)
        record: Record | None = unseal(blob, name.decode().rsplit(":", 1)[1], keys)
        if record is not None:
            return seal(record, keys.current)
    raise AssertionError("there is none")


async def test_scopes_and_tenants_are_led_apart(parts: Parts, keys: TenantKeys) -> None:
    scopes: list[dict[str, Any]] = [{"system": f"system {n}"} for n in range(5)] + [{"agent_type": "b"}]
    other = parts.keyring.of(operator("other"))
    for at, scope in enumerate(scopes):
        await keep(parts, keys, prompt=STORED, response=f'"{at}"', **scope)
        await keep(parts, other, prompt=STORED, response=f'"other {at}"', **scope)
    for _ in range(2):
        for at, scope in enumerate(scopes):
            for whose, answer in ((keys, f'"{at}"'), (other, f'"other {at}"')):
                hit = await look(parts, whose, prompt=ASKED, **scope)
                assert isinstance(hit, Hit)
                assert bytes(hit.response) == answer.encode()
        await led(parts)
    assert not await served(parts, keys, system="another")


async def test_histories_are_led_apart(parts: Parts, keys: TenantKeys, policies: Same) -> None:
    """The history is in the id; whether another's answer may be served is asked anew."""
    policies.policy = Policy(history=History.STANDALONE)
    await keep(parts, keys, prompt=STORED)
    talk = {"messages": chat("A hotel in Paris.", "Hotel Zola has rooms.", ASKED)}
    for _ in range(2):
        assert isinstance(await look(parts, keys, **talk), Hit)
        await led(parts)
    before = count(POINTERS, "served")
    assert isinstance(await look(parts, keys, **talk), Hit)
    assert count(POINTERS, "served") == before + 1
    policies.policy = Policy(history=History.EXACT)
    miss = await look(parts, keys, **talk)
    assert isinstance(miss, Miss)
    assert miss.rule == "history"


async def test_a_batch_takes_one_round_trip_for_all_pointers(
    parts: Parts, keys: TenantKeys, trips: list[list[Any]]
) -> None:
    towns = ["Berlin", "Paris", "Rome", "Madrid"]
    for town in towns:
        await keep(parts, keys, prompt=f"Where is the office in {town}?", response=f'"{town}"')
    texts = [f"where is the office in {town}" for town in towns]
    for text in texts[:3]:
        await led_to(parts, keys, text)
    trips.clear()
    answers = await parts.lookup.answer([asked(keys, parts, prompt=text) for text in texts], keys)
    assert [bytes(one.response) for one in answers if isinstance(one, Hit)] == [
        f'"{town}"'.encode() for town in towns
    ]
    assert trips == [["MGET", *["HGET"] * 4], ["MGET", *["HGET"] * 3], ["FT.SEARCH"], ["MGET"]]


async def test_under_the_previous_secret(settings: Settings, models: Loaded, policies: Same) -> None:
    old, new = "the older secret, 16+", "the newer secret, 16+"
    tenant = operator("acme")
    async with service(replace(settings, secret=old), models, policies) as parts:
        await keep(parts, parts.keyring.of(tenant), prompt=STORED)
        await led_to(parts, parts.keyring.of(tenant))
    turned = replace(settings, secret=new, previous_secret=old)
    async with service(turned, models, policies) as parts:
        assert await served(parts, parts.keyring.of(tenant))
    async with service(replace(settings, secret=new), models, policies) as parts:
        assert not await served(parts, parts.keyring.of(tenant))


async def test_a_refused_write_costs_nothing_else(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await keep(parts, keys, prompt=STORED)
    redis.config_set("maxmemory", 1)
    try:
        hit = await look(parts, keys, prompt=ASKED)
        assert isinstance(hit, Hit)
        await led(parts)
    finally:
        redis.config_set("maxmemory", 0)
    assert pointer_keys(redis, parts) == []
    await led_to(parts, keys)
    assert await served(parts, keys)
