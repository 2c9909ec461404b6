"""The embedding cache under lookups and stores, on a real Redis."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.embeddings import Embeddings
from service.cache.ports import Budget, Embedded
from service.cache.writing import MOST_BYTES, PAGE_BYTES, pages
from service.errors import EmbedderError
from service.model import Hit, Miss, Reason, Stored
from service.settings import Settings
from service.store.embeddings import RedisEmbeddings
from service.telemetry import EMBEDDINGS
from service.wiring import Loaded, Parts, now_ms, opened
from tests.helpers import accepted, asked, keep, look, vector
from tests.stub_openai import unit, until

pytestmark = pytest.mark.anyio


class Counting:
    """An embedder with vectors of norm 2 that says which texts it was asked for, call by call."""

    model, revision = "counting", "1"

    def __init__(self) -> None:
        self.dim: int | None = 16
        self.asked: list[list[str]] = []
        self.fails = False

    def unfit(self, text: str) -> str | None:
        return "too_long" if len(text) > 100 else None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return (await self.raw(texts)).rows / np.float32(2)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:  # noqa: ARG002 - the port's
        self.asked.append(list(texts))
        if self.fails:
            raise EmbedderError("it fails")
        return Embedded(np.stack([2 * unit(text) for text in texts]), len(texts))


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
def embedded(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that the embedder of `parts` is asked for, call by call."""
    calls: list[list[str]] = []
    raw = type(parts.embedder).raw

    async def noted(self: Any, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        calls.append(list(texts))
        return await raw(self, texts, bulk=bulk)

    monkeypatch.setattr(type(parts.embedder), "raw", noted)
    return calls


@pytest.fixture
def trips(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The round trips to Redis: the commands of each."""
    made: list[list[Any]] = []
    run = type(parts.redis).run

    async def noted(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        if commands:
            made.append([command[0] for command in commands])
        return await run(self, commands, budget, lane)

    monkeypatch.setattr(type(parts.redis), "run", noted)
    return made


def values(redis: Redis, prefix: str) -> list[bytes]:
    return sorted(redis.scan_iter(f"{prefix}:{{0}}:embeddings:value:*", count=1000))


def cache_over(parts: Parts, embedder: Counting) -> Embeddings:
    kept = RedisEmbeddings(parts.redis, parts.target.keys, parts.responses, 10**6, now_ms)
    return Embeddings(kept, embedder, ttl_s=1000, redis_s=5, named=frozenset({"named"}))


async def test_a_text_is_embedded_once_whoever_asks_where(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str, embedded: list[list[str]]
) -> None:
    text = "How do I reset my password?"
    first = await look(parts, keys, prompt=text)
    assert isinstance(first, Miss)
    await look(parts, keys, prompt=text, agent_type="at once, before it is written")
    await until(lambda: len(values(redis, prefix)) == 1)
    await until(lambda: parts.embeddings._writing._size == 0)
    for scope in ({"agent_type": "b"}, {"system": "s"}, {"tiers": ["semantic"]}, {"model": "m"}):
        assert isinstance(await look(parts, keys, prompt=text, **scope), Miss)
    await keep(parts, keys, prompt=text)
    assert embedded == [[text]]
    hit = await look(parts, keys, prompt="How can I reset my password?")
    assert isinstance(hit, Hit)
    assert 0.95 < hit.similarity < 1
    same = await look(parts, keys, prompt=text, tiers=["semantic"])
    assert isinstance(same, Hit)
    assert same.similarity == pytest.approx(1, abs=2e-4)
    other = parts.keyring.of(operator("another tenant"))
    await look(parts, other, prompt=text)
    assert embedded == [[text], ["How can I reset my password?"], [text]]


async def test_a_store_keeps_what_a_lookup_needs(
    parts: Parts, keys: TenantKeys, embedded: list[list[str]]
) -> None:
    stored = await parts.store.answer(
        [accepted(keys, parts, prompt=p, temperature=t) for t, p in enumerate("abab")], keys
    )
    assert all(isinstance(one, Stored) for one in stored)
    assert embedded == [["a", "b"]]
    await parts.embeddings.close()
    assert isinstance(await look(parts, keys, prompt="a", agent_type="other"), Miss)
    assert embedded == [["a", "b"]]


async def test_no_round_trip_more(parts: Parts, keys: TenantKeys, trips: list[list[Any]]) -> None:
    batch = [asked(keys, parts, prompt=f"question number {n}") for n in range(32)]
    assert all(isinstance(one, Miss) for one in await parts.lookup.answer(batch, keys))
    first = ["MGET", *["HGET"] * 32]
    sized = [*["FT.SEARCH"] * 32, "FT.AGGREGATE"]  # how many entries the scope has
    assert trips == [first, sized, ["FT.SEARCH"] * 32]  # the last is exhaustive
    trips.clear()
    await until(lambda: parts.embeddings._writing._size == 0)
    assert trips == [["MULTI", *["SET"] * 32, "ZADD", "ZREMRANGEBYSCORE", "PEXPIRE", "EXEC"]]
    trips.clear()
    batch = [asked(keys, parts, prompt=f"question number {n}", agent_type="b") for n in range(32)]
    assert all(isinstance(one, Miss) for one in await parts.lookup.answer(batch, keys))
    assert trips == [first, sized, ["FT.SEARCH"] * 32]
    trips.clear()
    stores = [accepted(keys, parts, prompt=f"question number {n}") for n in range(32)]
    await parts.store.answer(stores, keys)
    assert [trip[0] for trip in trips] == ["MGET", "MULTI"]
    trips.clear()
    await parts.embeddings.close()
    assert isinstance(await look(parts, keys, prompt="question number 1"), Hit)
    assert trips == [["MGET", "HGET"]]


async def test_what_needs_no_vector_reads_none(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[int] = []
    first = type(parts.responses).first

    async def noted(self: Any, of: TenantKeys, sought: Any, budget: Any) -> Any:
        names.append(sum(one.embedding is not None for one in sought))
        return await first(self, of, sought, budget)

    monkeypatch.setattr(type(parts.responses), "first", noted)
    await look(parts, keys, prompt="a", tiers=["exact"])
    await look(parts, keys, prompt="a", embedding=vector(1))
    await look(parts, keys, prompt="x" * 9000)
    await look(parts, keys, messages=[{"role": "user", "content": [{"type": "image_url"}]}])
    await look(parts, keys, prompt="a")
    assert names == [0, 0, 0, 0, 1]


async def test_a_spoilt_value_is_not_compared_with(
    parts: Parts, keys: TenantKeys, redis: Redis, prefix: str, embedded: list[list[str]]
) -> None:
    """Another text's value under this text's name would serve that one's answer."""
    await keep(parts, keys, prompt="What is the refund policy?")
    await keep(parts, keys, prompt="How do I reset my password?")
    await parts.embeddings.close()
    names = {text: parts.embeddings.name(text, keys) for (text,) in embedded}
    value = {text: f"{prefix}:{{0}}:embeddings:value:{name}" for text, name in names.items()}
    refund, reset = value.values()
    whole: Any = redis.get(reset)
    for spoilt in (redis.get(refund), whole[:100] + b"\x00" + whole[101:], whole[:-4]):
        redis.set(reset, spoilt)  # type: ignore[arg-type] # bytes
        asking = {"prompt": "How do I reset my password?", "tiers": ["semantic"], "threshold": 0.99}
        hit = await look(parts, keys, **asking)
        assert isinstance(hit, Hit)
        assert hit.similarity == pytest.approx(1, abs=2e-4)
        await parts.embeddings.close()
        assert redis.get(reset) == whole
    assert len(embedded) == 2 + 3


async def test_a_value_of_another_dimension_is_computed_anew(parts: Parts, keys: TenantKeys) -> None:
    embedder = Counting()
    cache = cache_over(parts, embedder)
    name = cache.name("a", keys)
    await cache._write([cache._own(keys, name, bytes(4 * 17))])
    assert (await cache.embedded(["a"], keys)).raws == [(2 * unit("a")).tobytes()]
    assert (await cache.embedded(["a"], keys)).hits == 1
    assert embedder.asked == [["a"]]


async def test_a_failing_embedder_leaves_what_is_kept(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await look(parts, keys, prompt="known")

    async def fail(*_: Any, **__: Any) -> Any:
        raise EmbedderError("it fails")

    monkeypatch.setattr(type(parts.embedder), "raw", fail)
    pair = [asked(keys, parts, prompt=prompt, agent_type="b") for prompt in ("known", "unknown")]
    answers = await parts.lookup.answer(pair, keys)
    assert [one.reason for one in answers if isinstance(one, Miss)] == [Reason.EMPTY, Reason.DEGRADED]


async def test_one_text_in_flight_is_written_once(
    parts: Parts, keys: TenantKeys, trips: list[list[Any]]
) -> None:
    for n in range(100):
        await look(parts, keys, prompt="the same", agent_type=str(n))
    await parts.embeddings.close()
    assert sum(trip.count("SET") for trip in trips) == 1


async def test_what_waits_is_bounded_and_goes_page_by_page(parts: Parts, keys: TenantKeys) -> None:
    cache = cache_over(parts, Counting())
    new = [cache._own(keys, f"{n:032x}", bytes(PAGE_BYTES // 4)) for n in range(40)]
    assert [len(page) for page in pages(new)] == [4] * 10
    for one in new:
        cache._writing.add(one)
    assert cache._writing._size == MOST_BYTES
    await cache.close()
    assert cache._writing._size == 0
    sealed = await parts.embeddings._kept.read(keys, [one.name for one in new], Budget(5))
    assert sum(one is not None for one in sealed) == MOST_BYTES * 4 // PAGE_BYTES


@asynccontextmanager
async def again(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


async def test_the_end_of_a_service_writes_what_waits(settings: Settings, models: Loaded) -> None:
    async with again(settings, models) as parts:
        keys = parts.keyring.of(operator("acme"))
        await look(parts, keys, prompt="the last question")
        name = parts.embeddings.name("the last question", keys)
    async with again(settings, models) as parts:
        assert (await parts.embeddings._kept.read(keys, [name], Budget(5)))[0] is not None
    rotated = replace(settings, secret="another secret of the tests", previous_secret=settings.secret)
    async with again(rotated, models) as parts:  # a miss, no more
        keys = parts.keyring.of(operator("acme"))
        found = await parts.embeddings.embedded(["the last question"], keys)
        assert (found.hits, found.misses) == (0, 1)


def counted(tenant: str, outcome: str) -> float:
    return float(EMBEDDINGS.labels(tenant, outcome)._value.get())


async def test_hits_and_misses_are_counted(parts: Parts) -> None:
    cache, keys = cache_over(parts, Counting()), parts.keyring.of(operator("named"))
    before = [counted("named", outcome) for outcome in ("hit", "miss")]
    await cache.embedded(["a", "b", "a"], keys)
    await cache.embedded(["a", "b", "c"], keys)
    after = [counted("named", outcome) for outcome in ("hit", "miss")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 3]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=12), min_size=1, max_size=4))
async def test_order_and_duplicates(parts: Parts, keys: TenantKeys, batches: list[list[str]]) -> None:
    """Each call's vectors are its texts' own, in order; no text is computed twice."""
    embedder = Counting()
    embedder.revision = f"{id(embedder)}-{now_ms()}"  # an empty cache for each example
    cache = cache_over(parts, embedder)
    seen: set[str] = set()
    for texts in batches:
        found = await cache.embedded(texts, keys)
        assert found.raws == [(2 * unit(text)).astype("<f4").tobytes() for text in texts]
        fresh = list(dict.fromkeys(text for text in texts if text not in seen))
        assert (found.misses, found.tokens) == (len(fresh), len(fresh))
        assert found.hits == len(set(texts)) - len(fresh)
        seen |= set(texts)
    asked_for = [text for call in embedder.asked for text in call]
    assert len(asked_for) == len(set(asked_for))
