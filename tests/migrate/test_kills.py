"""kill -9 of a migrator anywhere: whoever comes next goes on, or goes back, and nothing is lost meanwhile."""

import multiprocessing
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from service.api.auth import operator
from service.migrate.record import read_migration
from service.settings import Settings
from service.store.keys import Keys
from service.store.layout import read_generation
from service.wiring import Parts
from tests.acl import MIGRATE, as_service
from tests.migrate.migrator import schemas, work
from tests.migrate.test_moving import KINDS, documents, fill, indexes, is_found

pytestmark = pytest.mark.anyio

KILLS = 8
ENTRIES = 60
LONGEST_S = 0.8


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_anywhere(parts: Parts, redis: Redis, tmp_path: Path, kind: str) -> None:
    keys = parts.keyring.of(operator("acme"))
    ids = await fill(parts, keys, range(ENTRIES))
    changed = schemas(parts.settings, tmp_path / "schemas", KINDS[kind])
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    settings = replace(parts.settings, redis_url=url, schema_dir=changed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.migrate.migrator"])
    chance = random.Random(4)  # noqa: S311 - no secret
    names = Keys(settings.key_prefix)
    for at in range(KILLS):
        action = chance.choice(["up", "up", "rollback"])
        process = context.Process(target=work, args=(settings, action, 0.2))
        process.start()
        process.join(chance.uniform(0.0, LONGEST_S))
        if process.exitcode is None:
            process.kill()
        process.join()
        assert process.exitcode in (0, 1, -signal.SIGKILL)  # 1: there is nothing to roll back
        redis.delete(names.meta("migrations:lease"))  # instead of waiting until it ends
        assert await read_generation(parts.redis, names) is not None
        await parts.responses.refresh()
        ids |= await fill(parts, keys, [1000 + at])
        for seed, one in ids.items():
            assert await is_found(parts, keys, seed, one), (at, seed)
    await work_to_the_end(context, settings)
    await parts.responses.refresh()
    found = await read_migration(parts.redis, names)
    assert found is not None
    assert found.phase == "done"
    current = await read_generation(parts.redis, names)
    assert current is not None
    assert indexes(redis, parts.settings) == {current.index}
    assert {name.split(b":")[-2].decode() for name in documents(redis, parts.settings, "*")} == {
        current.space
    }
    assert len(documents(redis, parts.settings, current.space)) == len(ids)
    for seed, one in ids.items():
        assert await is_found(parts, keys, seed, one)


async def work_to_the_end(context: "multiprocessing.context.ForkServerContext", settings: Settings) -> None:
    """Until what the schema asks for serves: first what was begun, then what is asked for."""
    for _ in range(2):
        process = context.Process(target=work, args=(settings, "up", 1.0))
        process.start()
        process.join()
        assert process.exitcode == 0
