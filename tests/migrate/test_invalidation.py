"""What is invalidated while two generations are live is served by neither."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.migrate.changes import wanted
from service.migrate.lease import leased
from service.migrate.moving import Move
from service.migrate.record import Migration
from service.model import Hit, Miss
from service.settings import Settings
from service.store import finding
from service.store.finding import Finder
from service.store.functions import load
from service.store.invalidator import Outcome
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, as_service
from tests.helpers import keep, look, near, vector
from tests.migrate.test_moving import KINDS, QUIET, SEMANTIC, current, edited, fill, is_found

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
async def hand(parts: Parts, settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    """As `semcached migrate` opens it: another user of Redis."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(settings, redis_url=url), url, models) as found:
        yield found


@asynccontextmanager
async def both(parts: Parts, hand: Parts, folder: Path) -> AsyncIterator[tuple[Move, Migration]]:
    """Two generations are live, of the same model."""
    target = edited(hand, folder, KINDS["convert"])
    change = await wanted(target, await current(parts), None)
    assert change is not None
    await load(target.redis)
    async with leased(target) as lease:
        move = Move(target, lease, parts.responses.partitions, QUIET)
        begun = await move.begin(change)
        await move.both(begun)
        yield move, begun


async def invalidated(parts: Parts, keys: TenantKeys, *, dry_run: bool = False, **where: Any) -> Outcome:
    """By a `Where`, or all there is; of answers only where there is one."""
    if not where:
        predicates = [parts.invalidator.everything()]
    else:
        predicates = await parts.invalidator.predicates([Where(**where)], [Keyspace.RESPONSES])
    return await parts.invalidator.run(keys, predicates, dry_run=dry_run)


@pytest.mark.parametrize("where", [{"source": "s"}, {"prompt_regex": "entry 1"}, {}], ids=str)
@pytest.mark.parametrize("evicted", ["before", "after"])
async def test_what_one_generation_lost_is_found_by_the_other(
    *,
    parts: Parts,
    other: Parts,
    hand: Parts,
    keys: TenantKeys,
    redis: Redis,
    tmp_path: Path,
    where: dict[str, Any],
    evicted: str,
) -> None:
    """Redis evicts documents one by one: who follows the other generation goes on with the entry."""
    async with both(parts, hand, tmp_path / "schemas") as (move, begun):
        entry_id = (await keep(parts, keys, prompt="entry 1", embedding=vector(1), sources=["s"])).entry_id
        await keep(parts, keys, prompt="entry 2", embedding=vector(2), sources=["s"])
        await move.published(begun)
        await other.responses.refresh()
        sides = {"before": (parts, begun.before), "after": (other, begun.after)}
        asked, generation = sides.pop(evicted)
        ((serving, _),) = sides.values()
        assert redis.delete(hand.target.keys.document(0, generation, entry_id)) == 1
        assert await is_found(serving, keys, 1, entry_id)
        found = await invalidated(asked, keys, dry_run=True, **where)
        assert found.matched[Keyspace.RESPONSES] == (1 if "prompt_regex" in where else 2)
        done = await invalidated(asked, keys, **where)
        assert done.deleted == found.matched
        assert not await is_found(serving, keys, 1, entry_id)
        assert not redis.exists(hand.target.keys.record(0, entry_id))


async def test_one_that_has_not_heard_of_the_next_generation_asks(
    *, parts: Parts, other: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    async with both(parts, hand, tmp_path / "schemas") as (move, begun):
        await other.responses.refresh()
        entry_id = (await keep(other, keys, prompt="entry 1", embedding=vector(1), sources=["s"])).entry_id
        await move.published(begun)
        await other.responses.refresh()
        assert redis.delete(hand.target.keys.document(0, begun.before, entry_id)) == 1
        assert await is_found(other, keys, 1, entry_id)
        assert not any(parts.responses.spaces.live)
        await invalidated(parts, keys, source="s")
        assert not await is_found(other, keys, 1, entry_id)


async def test_an_index_that_is_still_to_be_made(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """A generation is live before it has one."""
    async with both(parts, hand, tmp_path / "schemas") as (_, begun):
        await keep(parts, keys, prompt="entry 1", embedding=vector(1), sources=["s"])
        redis.execute_command("FT.DROPINDEX", hand.target.keys.index(0, begun.after))
        done = await invalidated(parts, keys, source="s")
        assert done.deleted[Keyspace.RESPONSES] == 1


async def test_a_document_of_what_was_there_before_serves_nothing(
    *, parts: Parts, other: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """An earlier release writes one space only: the other's document has the sources of the entry before."""
    async with both(parts, hand, tmp_path / "schemas") as (move, begun):
        await move.published(begun)
        await other.responses.refresh()
        entry_id = (await keep(parts, keys, prompt="entry 1", embedding=vector(1), sources=["old"])).entry_id
        name = hand.target.keys.document(0, begun.after, entry_id)
        left: Any = redis.hgetall(name) | {b"stored_at": b"1700000000000"}
        await keep(parts, keys, prompt="entry 1", embedding=vector(1), sources=["new"], response="2")
        asked = {"prompt": "entry 1", "embedding": near(1, 0.99), **SEMANTIC}
        assert isinstance(await look(other, keys, **asked), Hit)
        redis.hset(name, mapping=left)
        for explain in (False, True):
            answer = await look(other, keys, **asked, explain=explain)
            assert isinstance(answer, Miss)
            assert answer.nearest is None
        assert isinstance(await look(parts, keys, **asked), Hit)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_index_that_goes_between_two_pages(
    *,
    parts: Parts,
    hand: Parts,
    keys: TenantKeys,
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dry_run: bool,
) -> None:
    """The service then follows the next generation, and begins anew."""
    monkeypatch.setattr(finding, "PAGE", 4)
    ids = await fill(parts, keys, range(10), sources=["s"])
    target, call = edited(hand, tmp_path / "schemas", KINDS["convert"]), Finder._call
    pages = 0

    async def migrated(self: Finder, *command: str | bytes | float) -> Any:
        nonlocal pages
        pages += command[:2] == ("FT.CURSOR", "READ")
        if pages == 2:
            pages += 1
            await migrate.up(target, QUIET)
        return await call(self, *command)

    monkeypatch.setattr(Finder, "_call", migrated)
    done = await invalidated(parts, keys, dry_run=dry_run, source="s")
    assert (await current(parts)).number == 2
    assert parts.responses.generation == await current(parts)
    assert done.matched[Keyspace.RESPONSES] == 10
    assert len(set(done.sample)) == len(done.sample) == 10
    there = [redis.exists(hand.target.keys.record(0, one)) for one in ids.values()]
    assert there == [int(dry_run)] * 10


async def test_a_list_of_entries_over_the_switch(
    *, parts: Parts, hand: Parts, keys: TenantKeys, tmp_path: Path
) -> None:
    ids = await fill(parts, keys, range(3))
    await migrate.up(edited(hand, tmp_path / "schemas", KINDS["convert"]), QUIET)
    records, _ = await parts.entries.newest(keys, parts.invalidator.everything(), 10, None)
    assert {one.entry_id for one in records} == {*ids.values()}
