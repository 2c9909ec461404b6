"""The index over tool results gets the fields that tools.yaml adds, while it serves."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.cache.ports import Work
from service.errors import StartupError
from service.model import ToolCall, ToolHit, ToolStoreRequest
from service.settings import Settings
from service.store.index import arguments, load_schema
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, as_service
from tests.migrate.test_earlier import attributes
from tests.migrate.test_moving import QUIET

pytestmark = pytest.mark.anyio

END = "  - {name: expires_at, type: numeric}"
VERSION = "  - {name: version, type: tag, attrs: {case_sensitive: true}}\n"
MORE = VERSION + "  - {name: cost, type: numeric, attrs: {sortable: true}}\n"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, partitions=2)


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
async def hand(parts: Parts, models: Loaded) -> AsyncIterator[Parts]:
    """As `semcached migrate` opens it."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(parts.settings, redis_url=url), url, models) as found:
        yield found


def edited(parts: Parts, folder: Path, here: str, there: str) -> migrate.Target:
    """The parts' target after an operator edited tools.yaml."""
    shutil.copytree(parts.settings.schema_dir, folder)
    text = (folder / "tools.yaml").read_text()
    assert here in text
    (folder / "tools.yaml").write_text(text.replace(here, there))
    return parts.target._replace(settings=replace(parts.settings, schema_dir=folder))


async def keep(parts: Parts, keys: TenantKeys, city: str, **more: Any) -> None:
    body = {"agent_type": "a", "tool": "weather", "arguments": {"city": city}, "result": "sun", **more}
    await parts.tools.store(msgspec.json.decode(msgspec.json.encode(body), type=ToolStoreRequest), keys)


async def is_kept(parts: Parts, keys: TenantKeys, city: str) -> bool:
    body = {"agent_type": "a", "tool": "weather", "arguments": {"city": city}}
    call = parts.tools.call(msgspec.json.decode(msgspec.json.encode(body), type=ToolCall), keys)
    return isinstance(await parts.tools.look_up(call, None, Work(), leads=True), ToolHit)


async def invalidate(parts: Parts, keys: TenantKeys, source: str) -> int:
    """How many tool results went."""
    predicates = await parts.invalidator.predicates([Where(source=source)], [Keyspace.TOOLS])
    return (await parts.invalidator.run(keys, predicates)).deleted[Keyspace.TOOLS]


async def test_fields_are_added(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis, tmp_path: Path
) -> None:
    for city in ("Paris", "Rome"):
        await keep(parts, keys, city, sources=[city, "cities"])
    indexes = [hand.target.keys.tool_index(one) for one in range(2)]
    kept = list(redis.scan_iter(f"{parts.settings.key_prefix}:*:tools:document:*"))
    assert len(kept) == 2
    for name in kept:
        redis.hset(name.decode(), "version", "7")  # a later release
    target = edited(hand, tmp_path / "schemas", END, MORE + END)
    lines = await migrate.planned(target)
    assert ["`version`, `cost`" in line and line.startswith("tools:") for line in lines] == [True, True]
    assert any(line.startswith("differs: `cost` is missing") for line in await migrate.told(target))
    # killed behind the first
    redis.execute_command(*("FT.ALTER", indexes[0], "SCHEMA", "ADD", "version", "TAG", "CASESENSITIVE"))
    await migrate.up(target, QUIET)
    assert await migrate.planned(target) == ["nothing to do"]
    found = [redis.execute_command("FT.SEARCH", one, "@version:{7}", "NOCONTENT")[0] for one in indexes]
    assert sum(found) == 2
    fresh = f"{parts.settings.key_prefix}:fresh"
    schema = load_schema(target.settings.schema_dir / "tools.yaml")
    redis.execute_command(
        *("FT.CREATE", fresh, "ON", "HASH", "PREFIX", 1, f"{fresh}:", "SCHEMA"), *arguments(schema)
    )
    assert [by_name(redis, one) for one in indexes] == [by_name(redis, fresh)] * 2
    await migrate.up(target, QUIET)
    assert await is_kept(parts, keys, "Paris")
    assert await invalidate(parts, keys, "Paris") == 1
    assert [await is_kept(parts, keys, city) for city in ("Paris", "Rome")] == [False, True]


def by_name(redis: Redis, index: str) -> list[Any]:
    """Its fields, in whatever order they came."""
    found = attributes(redis, index)
    assert isinstance(found, list)
    return sorted(found)


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        ("  - {name: stored_at, type: numeric}", "  # gone", "`stored_at` is not in the schema"),
        (
            'attrs: {case_sensitive: true, separator: ","}',
            'attrs: {case_sensitive: true, separator: ";"}',
            "separator of `source`",
        ),
    ],
)
async def test_what_cant_be_undone_stays_and_harms_nobody(
    *,
    parts: Parts,
    hand: Parts,
    keys: TenantKeys,
    redis: Redis,
    tmp_path: Path,
    here: str,
    there: str,
    told: str,
) -> None:
    await keep(parts, keys, "Rome", sources=["Rome", "cities"])
    index = hand.target.keys.tool_index(0)
    before = attributes(redis, index)
    target = edited(hand, tmp_path / "schemas", here, there)
    for lines in (await migrate.planned(target), await migrate.told(target)):
        assert [told in line and "stays" in line for line in lines if line.startswith("tools:")] == [
            True,
            True,
        ]
    assert (await migrate.planned(target))[0] == "nothing to do"
    await migrate.up(target, QUIET)
    assert attributes(redis, index) == before
    assert await invalidate(parts, keys, "cities") == 1


async def test_what_is_needed_cant_be_dropped(*, hand: Parts, tmp_path: Path) -> None:
    target = edited(hand, tmp_path / "schemas", "  - {name: tool,", "  - {name: instrument,")
    with pytest.raises(StartupError, match="`tool` must be a tag"):
        await migrate.up(target, QUIET)


async def test_refused(*, parts: Parts, hand: Parts, redis: Redis, tmp_path: Path) -> None:
    """The service's own user may not, nor a migrator's of an older ACL file; what is there stays."""
    target = edited(hand, tmp_path / "schemas", END, MORE + END)
    before = attributes(redis, target.keys.tool_index(0))
    with pytest.raises(StartupError, match="as a user who may"):
        await migrate.up(target._replace(redis=parts.redis), QUIET)
    redis.execute_command("ACL", "SETUSER", MIGRATE, "-ft.alter")
    try:
        with pytest.raises(migrate.MigrationError, match="can't be changed"):
            await migrate.up(target, QUIET)
    finally:
        redis.execute_command("ACL", "SETUSER", MIGRATE, "+ft.alter")
    assert attributes(redis, target.keys.tool_index(0)) == before
    await migrate.up(target, QUIET)
    assert attributes(redis, target.keys.tool_index(0)) != before
