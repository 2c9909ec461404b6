"""What is live says one thing: whatever a migrator that slept, a full Redis or a lost record makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.errors import StoreFullError
from service.migrate.changes import wanted
from service.migrate.lease import leased
from service.migrate.moving import Move
from service.migrate.record import name
from service.model import Live
from service.settings import Settings
from service.store.drift import read_index
from service.store.embedded import EmbeddedRedis
from service.store.functions import load
from service.store.keys import Keys
from service.store.live import MovedError, decoded, read_live, set_live
from service.store.processes import read_beats
from service.store.vectors import width
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, acl_options, as_service
from tests.helpers import keep
from tests.migrate.test_moving import (
    KINDS,
    QUIET,
    current,
    documents,
    edited,
    fill,
    following,
    indexes,
    is_found,
    to_a_list,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@asynccontextmanager
async def migrator(parts: Parts, models: Loaded) -> AsyncIterator[Parts]:
    """Another user of the same Redis."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(parts.settings, redis_url=url), url, models) as found:
        yield found


async def live(parts: Parts) -> set[int]:
    (raw,) = await read_live(parts.redis, Keys(parts.settings.key_prefix), [0])
    told = decoded(raw)
    return set() if told is None else {one.number for one in told.generations}


async def test_a_migrator_that_slept_makes_nothing_live(
    parts: Parts, models: Loaded, keys: TenantKeys, tmp_path: Path
) -> None:
    """It looked, slept through its lease, and another finished: what it says then isn't heard."""
    ids = await fill(parts, keys, range(6))
    async with migrator(parts, models) as hand:
        target = edited(hand, tmp_path / "schemas", KINDS["convert"])
        await migrate.up(target, QUIET)
        names = Keys(parts.settings.key_prefix)
        (was,) = await read_live(hand.redis, names, [0])
        both = decoded(was)
        assert both is not None
        await migrate.rollback(target, QUIET)
        stale = msgspec.json.encode(msgspec.structs.replace(both, number=both.number + 10**9))
        with pytest.raises(MovedError):
            await set_live(hand.redis, names, 0, was, stale)
        (now,) = await read_live(hand.redis, names, [0])
        assert now is not None
        await set_live(hand.redis, names, 0, was, now)  # what is said already may be said again
    assert await live(parts) == {3}
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


async def test_up_tidies_what_was_left(
    parts: Parts, models: Loaded, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """Two live generations without a migration, and an index that a service made when it was dropped."""
    ids = await fill(parts, keys, range(6))
    first = await current(parts)
    async with migrator(parts, models) as hand:
        target = edited(hand, tmp_path / "schemas", KINDS["convert"])
        await migrate.up(target, QUIET)
        second, names = await current(parts), Keys(parts.settings.key_prefix)
        told = Live(number=2**50, generations=(first, second), token="slept")
        redis.set(names.live(0), msgspec.json.encode(told))
        redis.execute_command("FT.CREATE", names.index(0, first), "PREFIX", 1, "none:", "SCHEMA", "t", "TAG")
        await parts.responses.refresh()
        ids |= await fill(parts, keys, range(6, 9))
        assert len(documents(redis, parts.settings, first.space)) == 3
        await migrate.up(target, QUIET)
    assert await live(parts) == {second.number}
    assert indexes(redis, parts.settings) == {second.index}
    assert documents(redis, parts.settings, first.space) == set()
    await parts.responses.refresh()
    assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])


async def test_an_index_is_looked_at_for_longer_than_a_lookup_may_take(
    parts: Parts, models: Loaded, redis: Redis
) -> None:
    """A large one, that Redis is busy with."""
    name = Keys(parts.settings.key_prefix).index(0, await current(parts))
    hurried = replace(parts.settings, redis_timeout_s=0.25)
    async with opened(hurried, hurried.redis_url or "", models) as found:
        await read_index(found.redis, name)  # connects
        busy = asyncio.create_task(asyncio.to_thread(redis.execute_command, "DEBUG", "SLEEP", 1))
        await asyncio.sleep(0.1)
        assert (await read_index(found.redis, name)).documents == 0
        await busy


@pytest.mark.parametrize(("graph", "links"), [(True, 2 * 1070), (False, 0)])
async def test_the_plan_counts_all_partitions(
    *, settings: Settings, models: Loaded, tmp_path: Path, graph: bool, links: int
) -> None:
    """And an index' bytes: a graph's links, which don't grow with the vector."""
    settings = replace(settings, partitions=3)
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        for tenant in "abcdefgh":
            await fill(parts, parts.keyring.of(operator(tenant)), range(100))
        changes = [("m: 20", "m: 40")] if graph else to_a_list(parts)
        target, vector = edited(parts, tmp_path / "schemas", *changes), 2 * width(await current(parts))
        lines = await migrate.planned(target)
    assert any(f"800 entries; {800 * (vector + links) / 1e6:,.0f} MB" in line for line in lines), lines


async def test_a_number_is_given_once(
    parts: Parts, models: Loaded, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    """Also where the last migration's record was lost."""
    await fill(parts, keys, range(3))
    names = Keys(parts.settings.key_prefix)
    stray = names.indexes(0) + "7"
    redis.execute_command("FT.CREATE", stray, "PREFIX", 1, "none:", "SCHEMA", "t", "TAG")
    redis.delete(name(names))
    async with migrator(parts, models) as hand:
        await migrate.up(edited(hand, tmp_path / "schemas", KINDS["convert"]), QUIET)
    assert (await current(parts)).number == 8


async def test_a_full_redis_goes_back(tmp_path: Path, models: Loaded) -> None:
    """It takes no copies; but what was begun is undone, and services say meanwhile that they live."""
    (tmp_path / "redis").mkdir()
    with (
        EmbeddedRedis(tmp_path / "redis", options=acl_options(tmp_path / "redis")) as own,
        Redis.from_url(own.url, protocol=2) as admin,
    ):
        url = as_service(own.url)
        settings = Settings(redis_url=url, secret="a secret of the tests, 1", redis_timeout_s=5)
        async with opened(settings, url, models) as parts, migrator(parts, models) as hand:
            await parts.attach(lambda _: None)
            keys = parts.keyring.of(operator("acme"))
            ids = await fill(parts, keys, range(6))
            target = edited(hand, tmp_path / "schemas", KINDS["convert"])
            await load(hand.redis)
            change = await wanted(target, await current(parts), None)
            assert change is not None
            async with leased(target) as lease:
                move = Move(target, lease, parts.responses.partitions, QUIET)
                await move.both(await move.begin(change))
            assert await live(parts) == {1, 2}
            admin.config_set("maxmemory", "1")
            async with following(parts):
                with pytest.raises(StoreFullError):
                    await migrate.up(target, QUIET)
                assert len(await read_beats(parts.redis, target.keys)) == 1
                await migrate.rollback(target, QUIET)
            assert await live(parts) == {1}
            assert all([await is_found(parts, keys, seed, one) for seed, one in ids.items()])
            admin.config_set("maxmemory", "0")
            await keep(parts, keys, prompt="there is room again")
