"""Whose Redis is it: secrets, rotation, models, layouts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import msgspec
import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.errors import LayoutError, SecretMismatchError, SettingsError
from service.model import Hit, Miss, Origin, Tier
from service.settings import Settings
from service.wiring import Loaded, Parts, opened, secret_of
from tests.helpers import keep, look

pytestmark = pytest.mark.anyio

OLD, NEW = "the older secret, 16+", "the newer secret, 16+"


@asynccontextmanager
async def service(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


async def test_another_secret_is_refused_and_the_previous_one_reads(
    settings: Settings, models: Loaded
) -> None:
    tenant = operator("acme")
    async with service(replace(settings, secret=OLD), models) as parts:
        await keep(parts, parts.keyring.of(tenant), prompt="How do I reset my password?")
    with pytest.raises(SecretMismatchError, match="SEMCACHED_PREVIOUS_SECRET"):
        async with service(replace(settings, secret=NEW), models):
            pass
    async with service(replace(settings, secret=NEW, previous_secret=OLD), models) as parts:
        keys = parts.keyring.of(tenant)
        for prompt, tier in [
            ("How do I reset my password?", Origin.EXACT),
            ("How can I reset my password?", Origin.SEMANTIC),
        ]:
            answer = await look(parts, keys, prompt=prompt)
            assert isinstance(answer, Hit)
            assert answer.tier is tier
        assert isinstance(await look(parts, keys, prompt="How do I reset my password?", model="m"), Miss)
        await keep(parts, keys, prompt="written under the new secret")
    async with service(replace(settings, secret=NEW), models) as parts:
        keys = parts.keyring.of(tenant)
        assert isinstance(await look(parts, keys, prompt="written under the new secret"), Hit)
        assert isinstance(await look(parts, keys, prompt="How do I reset my password?"), Miss)
    with pytest.raises(SecretMismatchError):
        async with service(replace(settings, secret=OLD), models):
            pass


async def test_an_answer_replaced_after_a_rotation_is_gone(settings: Settings, models: Loaded) -> None:
    tenant = operator("acme")
    async with service(replace(settings, secret=OLD), models) as parts:
        await keep(parts, parts.keyring.of(tenant), prompt="How do I reset my password?", response='"old"')
    async with service(replace(settings, secret=NEW, previous_secret=OLD), models) as parts:
        keys = parts.keyring.of(tenant)
        await keep(parts, keys, prompt="How do I reset my password?", response='"new"', ttl_s=1)
        for prompt in ("How do I reset my password?", "How can I reset my password?"):
            for tier in Tier:
                answer = await look(parts, keys, prompt=prompt, tiers=[tier])
                assert isinstance(answer, Miss) or bytes(answer.response) == b'"new"'
        await anyio.sleep(1.1)
        assert isinstance(await look(parts, keys, prompt="How do I reset my password?"), Miss)


async def test_a_rotation_does_not_shorten_a_life(settings: Settings, models: Loaded) -> None:
    tenant = operator("acme")
    async with service(replace(settings, secret=OLD), models) as parts:
        await keep(parts, parts.keyring.of(tenant), prompt="p", ttl_s=None)
    async with service(replace(settings, secret=NEW, previous_secret=OLD), models) as parts:
        assert (await keep(parts, parts.keyring.of(tenant), prompt="p", ttl_s=60)).expires_in_s is None


async def test_a_generated_secret_is_kept(settings: Settings) -> None:
    without = replace(settings, secret=None)
    assert secret_of(without) == secret_of(without)
    assert len(secret_of(without)) == 64
    assert (settings.data_dir / "secret").stat().st_mode & 0o777 == 0o600
    (settings.data_dir / "secret").write_text("\n")
    with pytest.raises(SettingsError, match="16 bytes"):
        secret_of(without)


@pytest.mark.parametrize(
    ("change", "named"), [({"model": "another"}, "another"), ({"dim": 3}, r"\(3\)"), ({"new": 1}, "version")]
)
async def test_an_index_of_another_model_or_version_is_refused(
    settings: Settings, models: Loaded, redis: Redis, change: dict[str, object], named: str
) -> None:
    async with service(settings, models):
        pass
    key = f"{settings.key_prefix}:{{meta}}:responses:generation"
    generation = msgspec.json.decode(redis.get(key) or b"")
    redis.set(key, msgspec.json.encode(generation | change))
    with pytest.raises(LayoutError, match=named):
        async with service(settings, models):
            pass


async def test_a_schema_of_another_dimension_is_refused(settings: Settings, models: Loaded) -> None:
    schema = (settings.schema_dir / "responses.yaml").read_text().replace("dims: 384", "dims: 385")
    (settings.data_dir / "responses.yaml").write_text(schema)
    with pytest.raises(LayoutError, match="385"):
        async with service(replace(settings, schema_dir=settings.data_dir), models):
            pass


async def test_partitions_are_those_of_the_layout(settings: Settings, models: Loaded) -> None:
    tenants = [operator(f"tenant {n}") for n in range(8)]
    async with service(replace(settings, partitions=3), models) as parts:
        for tenant in tenants:
            await keep(parts, parts.keyring.of(tenant), prompt="p", response=f'"{tenant}"')
    async with service(replace(settings, partitions=1), models) as parts:  # recorded: 3 it stays
        for tenant in tenants:
            for tier in Tier:
                answer = await look(parts, parts.keyring.of(tenant), prompt="p", tiers=[tier])
                assert isinstance(answer, Hit)
                assert bytes(answer.response) == f'"{tenant}"'.encode()


async def test_migrations_are_idempotent_and_one_works_at_a_time(
    settings: Settings, models: Loaded, redis: Redis
) -> None:
    said: list[str] = []
    async with opened(settings, settings.redis_url or "", models) as parts:
        target = parts.target
        assert [step.name for step in (await migrate.plan(target)).steps] == ["0001_responses", "0002_tools"]
        await migrate.up(target, migrate.Options(say=said.append))
        assert await migrate.planned(target) == ["nothing to do"]
        assert all(state.applied_at for state in await migrate.status(target))
        await migrate.up(target, migrate.Options(say=said.append))
        assert len(said) == 2
        for step in migrate.steps(settings.migrations_dir):
            await step.up(target)
        redis.set(f"{settings.key_prefix}:{{meta}}:migrations:lease", "someone", px=60_000)
        with pytest.raises(migrate.BusyError, match="60 s"):
            await migrate.up(target, migrate.Options(say=said.append))
        redis.hset(f"{settings.key_prefix}:{{meta}}:migrations", "9999_from_the_future", "1")
        with pytest.raises(LayoutError, match="9999"):
            await migrate.status(target)


async def test_replicas_change_the_secret_in_turn(settings: Settings, models: Loaded) -> None:
    """As docs/operations.md says: first everyone reads both, then everyone writes the new one."""
    tenant = operator("acme")
    only_old, both = replace(settings, secret=OLD), replace(settings, secret=OLD, previous_secret=NEW)
    turned, only_new = replace(settings, secret=NEW, previous_secret=OLD), replace(settings, secret=NEW)

    async def kept_is_read(writer: Parts, reader: Parts, prompt: str) -> bool:
        await keep(writer, writer.keyring.of(tenant), prompt=prompt)
        return isinstance(await look(reader, reader.keyring.of(tenant), prompt=prompt), Hit)

    async with service(only_old, models) as first, service(both, models) as second:
        assert await kept_is_read(first, second, "one")
        assert await kept_is_read(second, first, "two")
    async with service(both, models) as first, service(turned, models) as second:
        assert await kept_is_read(first, second, "three")
        assert await kept_is_read(second, first, "four")
        async with service(both, models) as restarted:  # in the middle of it
            assert await kept_is_read(second, restarted, "five")
    async with service(turned, models) as first, service(only_new, models) as second:
        assert await kept_is_read(first, second, "six")
        assert isinstance(await look(second, second.keyring.of(tenant), prompt="one"), Miss)


@pytest.mark.parametrize("lost", ["layout", "responses:generation"])
async def test_a_layout_that_was_evicted_is_made_again(
    settings: Settings, models: Loaded, redis: Redis, lost: str
) -> None:
    tenant = operator("acme")
    async with service(settings, models) as parts:
        await keep(parts, parts.keyring.of(tenant), prompt="p")
    redis.delete(f"{settings.key_prefix}:{{meta}}:{lost}")
    with pytest.raises(LayoutError, match="migrate up"):
        async with service(settings, models):
            pass
    async with opened(settings, settings.redis_url or "", models) as parts:
        await migrate.up(parts.target)
        assert await migrate.planned(parts.target) == ["nothing to do"]
        await parts.attach(lambda _: None)
        assert isinstance(await look(parts, parts.keyring.of(tenant), prompt="p"), Hit)
