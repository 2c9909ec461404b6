"""What earlier releases wrote is served and brought up; one that still runs meanwhile does no harm."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.migrate.changes import wanted
from service.migrate.comparing import Compared, Sampler
from service.migrate.filling import Filling
from service.migrate.lease import Lease, leased
from service.migrate.moving import Move
from service.migrate.record import Migration, Phase
from service.model import Hit
from service.settings import Settings
from service.store.functions import load
from service.store.index import arguments, as_kept, load_schema
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, as_service
from tests.helpers import keep, look, near, vector
from tests.migrate.earlier import Earlier, Written, restore, written
from tests.migrate.test_moving import EXACT, QUIET, current, documents, is_found

pytestmark = pytest.mark.anyio

FIRST, LAST = "916a314", "c84b445"
"""The first version of the service, and the last one before vectors had other numbers and places."""
BOTH = ["exact", "semantic"]
BLOCKS = [{"role": "user", "content": [{"type": "text", "text": "a block"}]}]


@pytest.fixture(params=[FIRST, LAST])
def left(request: pytest.FixtureRequest, redis: Redis, settings: Settings) -> Written:
    found = written(request.param)
    restore(redis, found, settings.key_prefix)
    return found


@pytest.fixture
async def parts(left: Written, settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    """Today's service over what was left."""
    same = replace(settings, secret=left.secret)
    async with opened(same, same.redis_url or "", models) as found:
        await found.attach(lambda _: None)
        yield found


@pytest.fixture
def keys(parts: Parts, left: Written) -> TenantKeys:
    return parts.keyring.of(operator(left.tenant))


@pytest.fixture
async def hand(parts: Parts, models: Loaded) -> AsyncIterator[Parts]:
    """As `semcached migrate` opens it."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(parts.settings, redis_url=url), url, models) as found:
        yield found


async def is_served(parts: Parts, keys: TenantKeys, left: Written) -> bool:
    """Each entry by its words, and by its meaning where it has one."""
    found = [await is_found(parts, keys, seed, left.ids[str(seed)]) for seed in range(6)]
    reworded = await look(parts, keys, prompt="How can I reset my password?")
    block = await look(parts, keys, messages=BLOCKS, **EXACT)
    assert isinstance(reworded, Hit)
    assert isinstance(block, Hit)
    return all(found) and [reworded.entry_id, block.entry_id] == [left.ids["words"], left.ids["blocks"]]


async def test_served_as_it_is(parts: Parts, keys: TenantKeys, left: Written) -> None:
    assert await is_served(parts, keys, left)
    now = await current(parts)
    assert (now.datatype, now.placed) == ("float32", False)
    await keep(parts, keys, prompt="entry 7", embedding=vector(7))
    assert await is_served(parts, keys, left)


async def test_brought_up(
    *, parts: Parts, hand: Parts, keys: TenantKeys, left: Written, redis: Redis, settings: Settings
) -> None:
    """The index then equals that of a fresh install."""
    ends = {name[-32:]: redis.pexpiretime(name.decode()) for name in documents(redis, settings, "1")}
    await migrate.up(hand.target, QUIET)
    now = await current(parts)
    assert (now.datatype, now.placed, now.number) == ("float16", True, 2)
    schema = load_schema(settings.schema_dir / "responses.yaml", now.dim)
    fresh = f"{settings.key_prefix}:fresh"
    redis.execute_command(
        *("FT.CREATE", fresh, "ON", "HASH", "PREFIX", 1, f"{fresh}:", "SCHEMA"),
        *arguments(as_kept(schema, now)),
    )
    assert attributes(redis, hand.target.keys.index(0, now)) == attributes(redis, fresh)
    assert {name[-32:]: redis.pexpiretime(name.decode()) for name in documents(redis, settings, "2")} == ends
    assert documents(redis, settings, "1") == set()
    await parts.responses.refresh()
    assert await is_served(parts, keys, left)
    assert await migrate.planned(hand.target) == ["nothing to do"]


def attributes(redis: Redis, index: str) -> object:
    found = redis.execute_command("FT.INFO", index)
    return dict(zip(found[::2], found[1::2], strict=True))[b"attributes"]


Seen = Callable[[str], Awaitable[None]]


class WatchedFilling(Filling):
    """Lets somebody look on when both indexes are compared."""

    seen: Seen

    async def compared(self, migration: Migration, sampler: Sampler) -> Compared:
        found = await super().compared(migration, sampler)
        await self.seen("compared")
        return found


class Watched(Move):
    """Lets somebody look on at each phase."""

    def __init__(self, target: migrate.Target, lease: Lease, partitions: int, seen: Seen) -> None:
        super().__init__(target, lease, partitions, QUIET)
        self._seen = seen
        self._filling = WatchedFilling(target, lease, self.standing, QUIET)
        self._filling.seen = seen

    async def _note(self, migration: Migration, phase: Phase | None = None) -> Migration:
        noted = await super()._note(migration, phase)
        await self._seen(noted.phase)
        return noted


async def tiers(parts: Parts, keys: TenantKeys, seed: int, entry_id: str) -> list[str]:
    """Those that serve an entry: by its own words, and by a vector that is near."""
    asked = {"exact": vector(seed), "semantic": near(seed, 0.9)}
    found = {
        tier: await look(parts, keys, prompt=f"entry {seed}", embedding=one, threshold=0.8, tiers=[tier])
        for tier, one in asked.items()
    }
    return [tier for tier, one in found.items() if isinstance(one, Hit) and one.entry_id == entry_id]


def answer_of(earlier: Earlier) -> str | None:
    """What it serves by the words of entry 0."""
    record = earlier.exact("exact")
    return None if record is None else record.response.decode()


@pytest.mark.parametrize("left", [LAST], indirect=True)
async def test_an_earlier_service_while_it_is_migrated(
    *, parts: Parts, hand: Parts, keys: TenantKeys, left: Written, redis: Redis, settings: Settings
) -> None:
    earlier, phases = Earlier(redis, left, settings.key_prefix, keys), list[str]()
    stored = {"copying": 0, "compared": 1, "published": 2, "ending": 3}
    in_force = ['"0"']
    deleted = {"copying": 2, "compared": 3, "published": 4, "ending": 5}

    async def play(phase: str) -> None:
        if phase in phases:
            return
        phases.append(phase)
        is_there = phase != "done"  # the index that it knows
        assert earlier.nearest("near") == (left.ids["0"] if is_there else None)
        assert earlier.serves == is_there
        assert answer_of(earlier) == (in_force[-1] if is_there else None)
        if is_there:
            in_force.append(f'"{phase}"')
            await keep(parts, keys, prompt="entry 0", embedding=vector(0), response=in_force[-1])
            assert answer_of(earlier) == in_force[-1]
            earlier.do(f"store {stored[phase]}")
            earlier.do(f"delete {deleted[phase]}")
            assert await tiers(parts, keys, 0, left.ids["0"]) == BOTH

    target = hand.target
    change = await wanted(target, await current(parts), None)
    assert change is not None
    await load(target.redis)
    async with leased(target) as lease:
        move = Watched(target, lease, parts.responses.partitions, play)
        await move.go_on(await move.begin(change))
    assert phases == ["copying", "compared", "published", "ending", "done"]
    await parts.responses.refresh()
    for at in (0, 1):  # before the publication
        assert await tiers(parts, keys, 100 + at, left.acts[f"store {at}"].entry_id) == BOTH
    for at in (2, 3):  # later: nobody could say whether it was invalidated meanwhile
        assert await tiers(parts, keys, 100 + at, left.acts[f"store {at}"].entry_id) == []
    for seed in (0, 1):
        assert await tiers(parts, keys, seed, left.ids[str(seed)]) == BOTH
    for seed in deleted.values():
        assert await tiers(parts, keys, seed, left.ids[str(seed)]) == []
