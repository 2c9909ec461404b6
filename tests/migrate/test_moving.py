"""From one generation to the next over a real Redis: nothing is lost, and the way back leads back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.migrate.changes import wanted
from service.migrate.lease import leased
from service.migrate.moving import Move
from service.migrate.record import Migration, Phase, read_migration
from service.migrate.record import name as record_name
from service.migrate.target import Options
from service.model import Generation, Hit, Stored
from service.settings import Settings
from service.store import forms
from service.store.keys import Keys
from service.store.layout import read_generation
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, as_service
from tests.helpers import accepted, keep, look, near, vector
from tests.migrate.migrator import schemas

pytestmark = pytest.mark.anyio

SEMANTIC, EXACT = {"tiers": ["semantic"]}, {"tiers": ["exact"]}
QUIET = Options(share=1.0, say=lambda _: None)
KINDS = {"reindex": ("m: 20", "m: 8"), "convert": ("datatype: float16", "datatype: float32")}


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
async def hand(parts: Parts, settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    """As `semcached migrate` opens it: another user of Redis."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(settings, redis_url=url), url, models) as found:
        yield found


async def fill(parts: Parts, keys: TenantKeys, seeds: Sequence[int], **fields: object) -> dict[int, str]:
    """Entry ids by the seeds of their vectors."""
    batch = [
        accepted(keys, parts, prompt=f"entry {one}", response=f"{one}", embedding=vector(one), **fields)
        for one in seeds
    ]
    answers = await parts.store.answer(batch, keys)
    return {
        one: stored.entry_id for one, stored in zip(seeds, answers, strict=True) if isinstance(stored, Stored)
    }


async def is_found(parts: Parts, keys: TenantKeys, seed: int, entry_id: str) -> bool:
    """By its own words, and by a vector that is near."""
    exact = await look(parts, keys, prompt=f"entry {seed}", embedding=vector(seed), **EXACT)
    near_by = await look(
        parts, keys, prompt="other words", embedding=near(seed, 0.9), threshold=0.8, **SEMANTIC
    )
    found = near_by if isinstance(near_by, Hit) else near_by.nearest
    return (
        isinstance(exact, Hit)
        and exact.entry_id == entry_id
        and found is not None
        and found.entry_id == entry_id
    )


def edited(parts: Parts, folder: Path, *changes: tuple[str, str]) -> migrate.Target:
    """The parts' target after an operator edited the schemas."""
    changed = schemas(parts.settings, folder, *changes)
    return parts.target._replace(settings=replace(parts.settings, schema_dir=changed))


def to_a_list(parts: Parts) -> list[tuple[str, str]]:
    """The edits that make of the graph a list."""
    options = ("      m: 20", "      ef_construction: 160", "      ef_runtime: 50")
    text = (parts.settings.schema_dir / "responses.yaml").read_text().splitlines()
    gone = [(f"{line}\n", "") for line in text if line.startswith(options)]
    return [("algorithm: hnsw", "algorithm: flat"), *gone]


async def current(parts: Parts) -> Generation:
    found = await read_generation(parts.redis, Keys(parts.settings.key_prefix))
    assert found is not None
    return found


def documents(redis: Redis, settings: Settings, space: str) -> set[bytes]:
    return set(redis.scan_iter(f"{settings.key_prefix}:{{*}}:responses:document:{space}:*"))


def indexes(redis: Redis, settings: Settings) -> set[str]:
    found = [one.decode() for one in redis.execute_command("FT._LIST")]
    return {
        one.rpartition(":")[2]
        for one in found
        if one.startswith(settings.key_prefix) and ":responses:" in one
    }


@asynccontextmanager
async def following(parts: Parts) -> AsyncIterator[None]:
    """As a service does each second."""

    async def follow() -> None:
        while True:
            await parts.responses.refresh()
            await parts.beat()
            await asyncio.sleep(0.05)  # oftener than a service

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_from_a_graph_to_a_list(
    *, parts: Parts, hand: Parts, keys: TenantKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list isn't walked: RediSearch refuses that."""
    monkeypatch.setattr(forms, "MANY", 10)
    ids = await fill(parts, keys, range(30))
    assert await is_found(parts, keys, 3, ids[3])
    target = edited(hand, tmp_path / "schemas", *to_a_list(parts))
    await migrate.up(target, QUIET)
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])
    await migrate.rollback(target, QUIET)
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


@pytest.mark.parametrize("kind", KINDS)
async def test_there_and_back(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path, kind: str
) -> None:
    ids = await fill(parts, keys, range(40))
    first = await current(parts)
    target = edited(hand, tmp_path / "schemas", KINDS[kind])
    plan = await migrate.plan(target)
    assert plan.change is not None
    assert plan.change.kind == kind
    assert any("40 entries" in line for line in await migrate.planned(target))
    await migrate.up(target, QUIET)
    second = await current(parts)
    assert (second.number, second.index) == (2, "2")
    assert indexes(redis, parts.settings) == {"2"}
    assert len(documents(redis, parts.settings, second.space)) == 40
    if kind == "convert":
        assert second.datatype == "float32"
        assert documents(redis, parts.settings, first.space) == set()
    assert await migrate.planned(target) == ["nothing to do"]
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])
    await migrate.rollback(target, QUIET)
    third = await current(parts)
    assert msgspec.structs.replace(third, number=1, index="1", space="1") == first
    assert (await migrate.plan(hand.target)).change is None
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


async def test_stores_and_deletions_meanwhile(
    *, parts: Parts, hand: Parts, other: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """A process that heard of the next generation writes both; one that didn't finds out behind its store."""
    ids = await fill(parts, keys, range(10))
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    change = await wanted(target, await current(parts), None)
    assert change is not None
    async with leased(target) as lease:
        move = Move(target, lease, parts.responses.partitions, QUIET)
        begun = await move.begin(change)
        await move.both(begun)
        assert not any(parts.responses.spaces.live)
        ids |= await fill(parts, keys, range(10, 14))  # finds out
        await other.responses.refresh()
        ids |= await fill(other, keys, range(14, 18))  # has heard
        both = [documents(redis, parts.settings, one.space) for one in (begun.before, begun.after)]
        assert [len(one) for one in both] == [18, 8]
        predicate = (await other.invalidator.predicates([Where(entry_id=ids.pop(15))], [Keyspace.RESPONSES]))[
            0
        ]
        await other.invalidator.run(keys, [predicate])
        both = [documents(redis, parts.settings, one.space) for one in (begun.before, begun.after)]
        assert [len(one) for one in both] == [17, 7]
        await move.go_on(begun)
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])
    assert len(documents(redis, parts.settings, begun.after.space)) == 17
    assert documents(redis, parts.settings, begun.before.space) == set()


async def test_ends_are_kept_and_what_has_no_vector_stays_exact(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    await keep(parts, keys, prompt="short", ttl_s=5000)
    await keep(parts, keys, prompt="for ever", ttl_s=None)
    parts_of_text = [{"role": "user", "content": [{"type": "text", "text": "a block"}]}]
    await keep(parts, keys, messages=parts_of_text)
    before = {name[-32:]: redis.pexpiretime(name.decode()) for name in documents(redis, parts.settings, "1")}
    assert min(before.values()) == -1
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    await migrate.up(target, QUIET)
    after = {name[-32:]: redis.pexpiretime(name.decode()) for name in documents(redis, parts.settings, "2")}
    assert after == before
    await parts.responses.refresh()
    for fields in ({"prompt": "short"}, {"prompt": "for ever"}, {"messages": parts_of_text}):
        assert isinstance(await look(parts, keys, **fields, **EXACT), Hit)


@pytest.mark.parametrize("phase", ["copying", "published", "ending"])
async def test_a_killed_rollback_goes_on(
    *, parts: Parts, hand: Parts, keys: TenantKeys, tmp_path: Path, phase: Phase
) -> None:
    """Said twice it isn't undone."""
    await fill(parts, keys, range(6))
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    await migrate.up(target, QUIET)

    class KilledError(Exception): ...

    def say(line: str) -> None:
        if line.endswith("to 3: copying"):
            raise KilledError

    with pytest.raises(KilledError):
        await migrate.rollback(target, QUIET._replace(say=say))
    last = await read_migration(target.redis, target.keys)
    assert last is not None
    async with leased(target) as lease:
        move = Move(target, lease, parts.responses.partitions, QUIET)
        await move.both(last)
        if phase != "copying":
            await move.published(last)
        at = msgspec.structs.replace(last, phase=phase, published_at=None if phase == "copying" else 1.0)
        await lease.settle(record_name(target.keys), msgspec.json.encode(at))
    await migrate.rollback(target, QUIET)
    now = await current(parts)
    assert (now.number, now.datatype) == (3, "float16")
    assert (await migrate.plan(hand.target)).change is None


async def test_a_publication_that_a_failover_lost_is_said_again(
    *, parts: Parts, hand: Parts, keys: TenantKeys, tmp_path: Path
) -> None:
    """Before the other generation goes: what is published must be there."""
    ids = await fill(parts, keys, range(6))
    first, target = await current(parts), edited(hand, tmp_path / "schemas", KINDS["convert"])
    await migrate.up(target, QUIET)
    done = await read_migration(target.redis, target.keys)
    assert done is not None
    async with leased(target) as lease:
        await lease.settle(target.keys.meta("responses:generation"), msgspec.json.encode(first))
        move = Move(target, lease, parts.responses.partitions, QUIET)
        await move.go_on(msgspec.structs.replace(done, phase="ending"))
    assert (await current(parts)).number == 2
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


async def test_a_lost_lease_stops_the_migrator(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """Whoever takes over goes on with the same migration; the first one writes nothing any more."""
    ids = await fill(parts, keys, range(12))
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    change = await wanted(target, await current(parts), None)
    assert change is not None
    name = target.keys.meta("migrations:lease")
    async with leased(target) as lease:
        move = Move(target, lease, parts.responses.partitions, QUIET)
        begun = await move.begin(change)
        redis.delete(name)  # it ended
        await migrate.up(target, QUIET)
        with pytest.raises(migrate.BusyError):
            await move.published(begun)
        assert (await current(parts)).number == 2
    found = await read_migration(target.redis, target.keys)
    assert isinstance(found, Migration)
    assert found.phase == "done"
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


async def test_of_many_one_works(*, parts: Parts, hand: Parts, keys: TenantKeys, tmp_path: Path) -> None:
    await fill(parts, keys, range(5))
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    tries = await asyncio.gather(*(migrate.up(target, QUIET) for _ in range(8)), return_exceptions=True)
    assert [one for one in tries if one is None] == [None]
    assert sum(isinstance(one, migrate.BusyError) for one in tries) == 7
    assert (await current(parts)).number == 2


async def test_undone_in_the_middle(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    ids = await fill(parts, keys, range(8))
    target = edited(hand, tmp_path / "schemas", KINDS["convert"])
    change = await wanted(target, await current(parts), None)
    assert change is not None
    async with leased(target) as lease:
        move = Move(target, lease, parts.responses.partitions, QUIET)
        begun = await move.begin(change)
        await move.both(begun)
    ids |= await fill(parts, keys, range(8, 12))
    await migrate.rollback(target, QUIET)
    assert (await current(parts)).number == 1
    assert documents(redis, parts.settings, "2") == set()
    assert indexes(redis, parts.settings) == {"1"}
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])
