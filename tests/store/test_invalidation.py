"""What invalidation finds and deletes, on a real Redis."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from redis import Redis

from bench.proxy import proxied
from service.api.auth import operator
from service.cache.canonical import given_vector
from service.cache.digests import TenantKeys
from service.cache.invalidation import (
    Keyspace,
    Newer,
    Predicate,
    Subject,
    Where,
    matches,
    reaches,
    subject_of,
)
from service.cache.ports import Budget, Coming, NewEntry, Sought, Work
from service.cache.tickets import Ticket
from service.errors import StoreFullError, StoreUnavailableError
from service.model import INVALIDATED, Hit, Miss, Refused, Stored
from service.settings import Settings
from service.store import finding, invalidations, invalidator
from service.store.keys import Keys
from service.wiring import Loaded, Parts, opened
from tests.helpers import accepted, keep, look, near, vector
from tests.keyspaces import write_embedding, write_tool

pytestmark = pytest.mark.anyio

TENANT = operator("acme")
HOUR = 3_600_000


def keys_of(parts: Parts) -> TenantKeys:
    return parts.keyring.of(TENANT)


def there(redis: Redis, prefix: str, *parts: str) -> set[str]:
    """Ids of what a full scan finds."""
    return {
        key[-32:].decode() for kind in parts for key in redis.scan_iter(f"{prefix}:*:{kind}:*", count=1000)
    }


def everything(redis: Redis, prefix: str) -> list[set[str]]:
    kinds = ("responses:record", "responses:document", "tools:record", "tools:document", "embeddings:value")
    return [there(redis, prefix, kind) for kind in kinds]


async def found(parts: Parts, keys: TenantKeys, predicate: Predicate) -> set[tuple[Keyspace, str]]:
    """What a pass of the search finds; the deleting takes just that."""
    finder = parts.invalidator._finder
    return {
        (one.keyspace, one.entry_id)
        for keyspace in Keyspace
        if reaches(predicate, keyspace)
        async for page in finder.pages(keys, predicate, keyspace)
        for one in page
    }


AGENTS, MODELS, SOURCES, TOOLS = ("a", "A", "a b"), (None, "m", "n"), ("s1", "s1,s2", "S1"), ("t1", "t2")
PROMPTS = ("red apple", "green apple", "blue sky")


async def populate(parts: Parts, keys: TenantKeys, redis: Redis) -> list[tuple[Subject, int]]:
    """Entries in every keyspace, with what is known of each and when it was stored."""
    now = time.time_ns() // 1_000_000
    known: list[tuple[Subject, int]] = []
    for at, (agent, model, prompt) in enumerate(itertools.product(AGENTS, MODELS, PROMPTS)):
        fields: dict[str, Any] = {
            "agent_type": agent,
            "prompt": prompt,
            "sources": SOURCES[: at % 4],
            "tags": ["t", "u"][: at % 3],
            "attributes": {"k": str(at % 2)} if at % 5 else {},
            "prompt_version": [None, "1"][at % 2],
            "embedding": near(1, 1 - (at % 9) / 10),
        }
        one = accepted(keys, parts, **fields | ({} if model is None else {"model": model}))
        await parts.store.answer([one], keys)
        entry_id = one.query.identities[0].entry_id
        (record,) = await parts.responses.records(keys, [entry_id], Budget(5))
        assert record is not None
        known.append((subject_of(record, one.query.vector), record.stored_at))
    for at, (agent, tool) in enumerate(itertools.product(AGENTS, TOOLS)):
        stored_at = now - at * HOUR
        sources = SOURCES[: at % 4]
        name = write_tool(
            redis,
            parts.settings.key_prefix,
            keys.current,
            call=str(at),
            agent_type=agent,
            tool=tool,
            sources=sources,
            stored_at=stored_at,
        )
        subject = Subject(Keyspace.TOOLS, name, agent_type=agent, tool=tool, sources=sources)
        known.append((subject, stored_at))
    for at, model in enumerate(("m", "n", "m", "n")):
        stored_at = now - at * HOUR
        name = write_embedding(
            redis, parts.settings.key_prefix, keys.current, text=str(at), model=model, stored_at=stored_at
        )
        known.append((Subject(Keyspace.EMBEDDINGS, name, model=model), stored_at))
    return known


def maybe(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, None, None, *values])


UNIT = given_vector(vector(1), None)


@given(
    given=st.fixed_dictionaries(
        {
            "keyspaces": st.sets(st.sampled_from(Keyspace), min_size=1).map(tuple),
            "agent_type": maybe(AGENTS),
            "model": maybe(MODELS),
            "prompt_version": maybe(["1"]),
            "source": maybe([*SOURCES, "other"]),
            "tag": maybe(["t", "u", "T"]),
            "attributes": maybe([{"k": "1"}, {"k": "0"}, {"k": "2"}]),
            "tool": maybe(TOOLS),
            "older_than_ms": maybe([0, HOUR, 3 * HOUR, 9 * HOUR]),
            "prompt_regex": maybe(["apple", "^red", "(?i)SKY$", "x"]),
            "vector": maybe([UNIT.astype("<f4").tobytes()]),
            "threshold": st.sampled_from([0.0, 0.45, 0.85, 0.99]),
        }
    ),
    by_id=st.none() | st.integers(0, 40),
)
@examples(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_search_and_log_mean_the_same(
    parts: Parts, redis: Redis, given: dict[str, Any], by_id: int | None
) -> None:
    """What the search finds is what `matches` says of each entry that is there."""
    keys = keys_of(parts)
    if not hasattr(parts.store, "known"):
        parts.store.known = await populate(parts, keys, redis)  # type: ignore[attr-defined] # once a test
    known: list[tuple[Subject, int]] = parts.store.known  # type: ignore[attr-defined] # see above
    entry_id = None if by_id is None else known[by_id % len(known)][0].entry_id
    now = time.time_ns() // 1_000_000
    generation = parts.responses.generation
    assert generation is not None
    predicate = Predicate(at=now, entry_id=entry_id, embedding=generation.embedding, **given)
    meant = {(one.keyspace, one.entry_id) for one, at in known if matches(predicate, one, at)}
    assert await found(parts, keys, predicate) == meant


async def test_a_run_deletes_what_it_found_and_nothing_else(parts: Parts, redis: Redis, prefix: str) -> None:
    keys, other = keys_of(parts), parts.keyring.of(operator("other"))
    known = await populate(parts, keys, redis)
    await keep(parts, other, prompt="theirs", sources=["s1"])
    theirs = write_tool(redis, prefix, other.current, call="theirs", sources=["s1"])
    before = everything(redis, prefix)
    (predicate,) = await parts.invalidator.predicates([Where(source="s1")])
    meant = {str(one.entry_id) for one, at in known if matches(predicate, one, at)}
    done = await parts.invalidator.run(keys, [predicate])
    assert done.matched == done.deleted
    assert done.deleted.total() == len(meant)
    assert len(done.sample) == 10
    assert everything(redis, prefix) == [ids - meant for ids in before]
    cleared = await parts.invalidator.run(keys, [parts.invalidator.everything()])
    assert cleared.deleted[Keyspace.EMBEDDINGS] == 4
    assert not redis.exists(Keys(prefix).embeddings(0, keys.current.tenant))
    assert everything(redis, prefix)[2:] == [{theirs}, {theirs}, set()]
    assert [len(ids) for ids in everything(redis, prefix)[:2]] == [1, 1]


async def test_what_another_secret_wrote_goes_too(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    old, new = replace(settings, secret="the older secret, 16+"), "the newer secret, 16+"
    url = settings.redis_url or ""
    async with opened(old, url, models) as parts:
        await parts.attach(lambda _: None)
        keys = keys_of(parts)
        stored = await keep(parts, keys, prompt="old", sources=["s0"], embedding=vector(1))
        for at in range(3):
            await keep(parts, keys, prompt=f"old {at}", sources=[f"s{at % 2}"], embedding=vector(1))
            write_tool(redis, prefix, keys.current, call=str(at), sources=[f"s{at % 2}"])
            write_embedding(redis, prefix, keys.current, text=str(at))
    async with opened(replace(old, secret=new, previous_secret=old.secret), url, models) as parts:
        await parts.attach(lambda _: None)
        keys = keys_of(parts)
        await keep(parts, keys, prompt="new", sources=["s0"], embedding=vector(1))
        (predicate,) = await parts.invalidator.predicates([Where(source="s1")])
        done = await parts.invalidator.run(keys, [predicate])
        assert dict(done.deleted) == {Keyspace.RESPONSES: 1, Keyspace.TOOLS: 1}
        (predicate,) = await parts.invalidator.predicates([Where(entry_id=stored.entry_id)])
        assert (await parts.invalidator.run(keys, [predicate])).deleted.total() == 1
        done = await parts.invalidator.run(keys, [parts.invalidator.everything()])
        assert dict(done.deleted) == {Keyspace.RESPONSES: 3, Keyspace.TOOLS: 2, Keyspace.EMBEDDINGS: 3}
        assert everything(redis, prefix) == [set()] * 5


@pytest.mark.parametrize("ties", [1, 900])
async def test_embeddings_page_by_page(parts: Parts, redis: Redis, prefix: str, ties: int) -> None:
    """More than a page, many at one time; one whose value has gone already isn't counted."""
    keys = keys_of(parts)
    names = [
        write_embedding(redis, prefix, keys.current, text=str(at), model="mn"[at % 2], stored_at=at // ties)
        for at in range(1203)
    ]
    redis.delete(Keys(prefix).embedding(0, names[600]))
    (predicate,) = await parts.invalidator.predicates([Where(model="m")])
    assert (await parts.invalidator.run(keys, [predicate], dry_run=True)).matched.total() == 601
    assert (await parts.invalidator.run(keys, [predicate])).deleted.total() == 601
    assert there(redis, prefix, "embeddings:value") == set(names[1::2])
    assert redis.zcard(Keys(prefix).embeddings(0, keys.current.tenant)) == 601


async def test_an_invalidation_between_check_and_write(parts: Parts) -> None:
    """The store's second look, behind its write: what was written is taken back."""
    keys = keys_of(parts)
    late = accepted(keys, parts, prompt="p", sources=["s"], lookup_id="0" * 32)
    records = parts.responses
    (predicate,) = await parts.invalidator.predicates([Where(source="s")])
    for _ in range(2):
        (none,) = await newer(parts, keys, Ticket(2**47, 0))
        assert none is not None
        assert not none.predicates
        entry = new_entry(parts, late)
        await parts.invalidator.run(keys, [predicate])
        assert await records.put(keys, [entry, entry._replace(lookup=None)], Budget(5)) == [INVALIDATED, None]
        assert (await records.first(keys, [Sought([entry.record.entry_id])], Budget(5)))[0][0].records == [
            None
        ]
    (answer,) = await parts.store.answer([late], keys)
    assert isinstance(answer, Refused)


async def newer(parts: Parts, keys: TenantKeys, *lookups: Ticket) -> list[Newer | None]:
    """What was invalidated since each."""
    coming = [Coming(("0" * 32,), None, counted=False, lookup=one) for one in lookups]
    return [one.newer for one in await parts.responses.before(keys, coming, Budget(5))]


def new_entry(parts: Parts, one: Any) -> NewEntry:
    from service.cache.store import Errand, _entry  # noqa: PLC0415 - what a store would write now

    keys, generation = keys_of(parts), parts.responses.generation
    assert generation is not None
    errand = Errand(keys, generation, Budget(5), Work())
    return _entry(one, None, None, UNIT, errand, ttl_s=86_400, now=time.time_ns() // 1_000_000)


async def test_numbers_of_concurrent_invalidations(
    parts: Parts, settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    """Whoever read a number before an invalidation has a lower one; nobody who reads it later has."""
    keys = keys_of(parts)
    log = Keys(prefix).invalidations(0, keys.current.tenant)
    read: list[int] = []
    numbers: list[int] = []

    async def invalidate(who: Parts, at: int) -> None:
        (predicate,) = await who.invalidator.predicates([Where(tag=str(at))])
        before = (await who.responses.first(keys, [], Budget(5)))[1]
        await who.responses.invalidations.note(keys, [predicate], predicate.at, Budget(5))
        after = (await who.responses.first(keys, [], Budget(5)))[1]
        late = await newer(who, keys, Ticket(before, 1), Ticket(after, 1))
        refused = [new is not None and predicate in new.predicates for new in late]
        assert refused == [True, False]
        numbers.append(after)
        read.append(before)

    async with opened(settings, settings.redis_url or "", models) as second:
        await second.attach(lambda _: None)
        async with anyio.create_task_group() as tasks:
            for at in range(40):
                tasks.start_soon(invalidate, (parts, second)[at % 2], at)
    assert redis.zcard(log) == 40
    scores = [one[1] for one in redis.zrange(log, 0, -1, withscores=True)]
    assert len(set(scores)) == 40
    assert max(scores) == int(redis.get(Keys(prefix).invalidations_number(0)) or 0)
    assert redis.pttl(log) == -1  # bounded, and no eviction may take it


async def test_the_log_is_bounded_and_distrusted(
    parts: Parts, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidations, "KEPT", 5)
    keys = keys_of(parts)
    log = Keys(prefix).invalidations(0, keys.current.tenant)
    subject = Subject(Keyspace.RESPONSES, agent_type="a")

    async def refused(number: int) -> bool:
        (since,) = await newer(parts, keys, Ticket(number, 0))
        assert since is not None
        return since.refuses(subject, Ticket(number, 0))

    for at in range(4):
        (predicate,) = await parts.invalidator.predicates([Where(tag=str(at))])
        await parts.invalidator.run(keys, [predicate])
    assert not await refused(0)
    (predicate,) = await parts.invalidator.predicates([Where(tag="last")])
    await parts.invalidator.run(keys, [predicate])
    assert await refused(0)
    last = int(redis.get(Keys(prefix).invalidations_number(0)) or 0)
    assert not await refused(last - 1)
    for _ in range(3):
        await parts.invalidator.run(keys, [predicate])
    assert redis.zcard(log) <= 5
    redis.zadd(log, {b"\x01 not ours": last + 10})
    assert await refused(last + 5)
    assert not await refused(last + 10)
    redis.zrem(log, b"\x01 not ours")
    member: bytes = redis.zrange(log, 0, 0)[0]  # type: ignore[assignment] # its stubs
    redis.delete(log)
    other = parts.keyring.of(operator("other"))
    redis.zadd(Keys(prefix).invalidations(0, other.current.tenant), {member: 5})
    (since,) = await newer(parts, other, Ticket(0, 0))
    assert since is not None
    assert since.unknown


async def test_cut_in_the_middle_it_says_so_and_goes_on(
    settings: Settings, models: Loaded, redis: Redis, prefix: str
) -> None:
    """The connection is cut after some pages; the same call again finishes."""
    url = settings.redis_url or ""
    async with proxied(url) as proxy, opened(settings, proxy.url, models) as parts:
        await parts.attach(lambda _: None)
        keys = keys_of(parts)
        for at in range(1500):
            write_tool(redis, prefix, keys.current, call=str(at), sources=["s" if at % 3 else "other"])
        (predicate,) = await parts.invalidator.predicates([Where(source="s")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut_when, proxy, lambda: len(there(redis, prefix, "tools:record")) < 1300)
            with pytest.raises(
                StoreUnavailableError, match=r"at least [1-9][0-9]* entries were deleted: run"
            ):
                await parts.invalidator.run(keys, [predicate])
        left = len(there(redis, prefix, "tools:record"))
        assert 500 < left < 1500
        with anyio.fail_after(20):
            while parts.redis.breaker.is_open:
                await anyio.sleep(0.1)
        assert (await parts.invalidator.run(keys, [predicate])).deleted.total() == left - 500
        assert len(there(redis, prefix, "tools:record")) == 500


async def cut_when(proxy: Any, reached: Any) -> None:
    while not reached():
        await anyio.sleep(0.001)
    await proxy.close()


async def test_time_runs_out(
    parts: Parts, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(parts)
    for at in range(250):
        write_tool(redis, prefix, keys.current, call=str(at))
    monkeypatch.setattr(invalidator, "PATIENCE_S", 0.0)
    (predicate,) = await parts.invalidator.predicates([Where(tool="search")])
    for left in (200, 150):
        with pytest.raises(StoreUnavailableError, match=r"it took longer than 0 s; .*; at least 50 entries"):
            await parts.invalidator.run(keys, [predicate])
        assert len(there(redis, prefix, "tools:record")) == left


async def test_nothing_is_skipped_while_redis_clears_up(
    parts: Parts, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collecting the garbage of deleted documents moves a cursor's place."""
    keys = keys_of(parts)
    for at in range(3000):
        write_tool(redis, prefix, keys.current, call=str(at))
    pages = finding.Finder.pages

    async def collected(*args: Any) -> Any:
        async for page in pages(*args):
            yield page
            redis.execute_command("FT.DEBUG", "GC_FORCEINVOKE", Keys(prefix).tool_index(0))

    monkeypatch.setattr(finding.Finder, "pages", collected)
    (predicate,) = await parts.invalidator.predicates([Where(tool="search")])
    assert (await parts.invalidator.run(keys, [predicate])).deleted.total() == 3000
    assert there(redis, prefix, "tools:record") == set()


async def test_a_full_redis_is_emptied_first(parts: Parts, redis: Redis, prefix: str) -> None:
    """There is no room for the log: what matches goes all the same, and the caller hears of the rest."""
    keys = keys_of(parts)
    for at in range(3):
        write_tool(redis, prefix, keys.current, call=str(at), tool="t" if at else "other")
    (predicate,) = await parts.invalidator.predicates([Where(tool="t")])
    try:
        redis.config_set("maxmemory", "1")
        with pytest.raises(StoreFullError, match="at least 2 entries were deleted: run it again"):
            await parts.invalidator.run(keys, [predicate])
    finally:
        redis.config_set("maxmemory", "0")
    assert len(there(redis, prefix, "tools:record")) == 1
    assert (await parts.invalidator.run(keys, [predicate])).deleted.total() == 0
    assert redis.zcard(Keys(prefix).invalidations(0, keys.current.tenant)) == 1


async def test_an_answer_made_while_it_runs_comes_too_late(
    parts: Parts, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may rest on a tool's result that was just going; one asked for afterwards may not."""
    keys = keys_of(parts)
    write_tool(redis, prefix, keys.current, call="1", sources=["s"])
    pages, read = finding.Finder.pages, []

    async def looked_up(*args: Any) -> Any:
        read.append((await parts.responses.first(keys, [Sought(["0" * 32])], Budget(5)))[1])
        async for page in pages(*args):
            yield page

    monkeypatch.setattr(finding.Finder, "pages", looked_up)
    (predicate,) = await parts.invalidator.predicates([Where(source="s")])
    await parts.invalidator.run(keys, [predicate])
    read.append((await parts.responses.first(keys, [Sought(["0" * 32])], Budget(5)))[1])
    lookups = [Ticket(number, predicate.at) for number in read]
    before = await newer(parts, keys, *lookups)
    subject = Subject(Keyspace.RESPONSES, sources=["s"])
    refused = [one is not None and one.refuses(subject, at) for one, at in zip(before, lookups, strict=True)]
    assert refused == [True] * (len(read) - 1) + [False]
    assert len(read) >= 3


async def test_a_late_store_is_refused_across_a_rotation(settings: Settings, models: Loaded) -> None:
    """Replicas whose current secrets differ, each with the other's as the previous one."""
    one, other = "a secret of the tests, 1", "a secret of the tests, 2"
    url = settings.redis_url or ""
    async with (
        opened(replace(settings, secret=one, previous_secret=other), url, models) as old,
        opened(replace(settings, secret=other, previous_secret=one), url, models) as new,
    ):
        await old.attach(lambda _: None)
        await new.attach(lambda _: None)
        for here, there in ((old, new), (new, old)):
            lookup = await look(here, keys_of(here), prompt="p")
            (predicate,) = await there.invalidator.predicates([Where(source="s")])
            await there.invalidator.run(keys_of(there), [predicate])
            late = accepted(keys_of(here), here, prompt="p", sources=["s"], lookup_id=lookup.lookup_id)
            assert await here.store.answer([late], keys_of(here)) == [INVALIDATED]


async def test_what_came_between_is_never_seen(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the moment between a store's two steps."""
    keys = keys_of(parts)
    seen: list[Any] = []
    run = type(parts.redis).run

    async def looking(self: Any, commands: Any, budget: Any = None, lane: Any = None) -> Any:
        replies = await run(self, commands, budget, lane)
        if any(command[0] == "HSET" for command in commands):  # the first step is done
            monkeypatch.undo()
            seen.append(await look(parts, keys, prompt="p"))
            seen.append(await look(parts, keys, prompt="p", tiers=["semantic"]))
        return replies

    lookup = await look(parts, keys, prompt="p")
    late = accepted(keys, parts, prompt="p", sources=["s"], lookup_id=lookup.lookup_id)
    monkeypatch.setattr(type(parts.redis), "run", looking)
    (stored,) = await parts.store.answer([late], keys)
    assert isinstance(stored, Stored)
    assert [isinstance(one, Miss) for one in seen] == [True, True]
    assert isinstance(await look(parts, keys, prompt="p"), Hit)


async def test_what_a_full_redis_refuses_takes_nothing_away(parts: Parts, redis: Redis) -> None:
    keys = keys_of(parts)
    await keep(parts, keys, prompt="p", response="1")
    late = accepted(keys, parts, '"2"', prompt="p", lookup_id="0" * 32)
    redis.config_set("maxmemory", 1)
    try:
        (answer,) = await parts.store.answer([late], keys)
    finally:
        redis.config_set("maxmemory", 0)
    assert isinstance(answer, StoreFullError)
    assert isinstance(await look(parts, keys, prompt="p"), Hit)
