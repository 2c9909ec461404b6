"""A real Redis with search for the whole run, a random key prefix for each test."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.embedders.local import MiniLM
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.store.rates import LIBRARY
from service.verifiers.crossencoder import CrossEncoder
from service.wiring import Loaded, Parts, opened
from tests.acl import acl_options, as_service


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """On a free port, under docs/redis.acl; DEBUG is allowed so that tests can stop the clock of expiry."""
    folder = tmp_path_factory.mktemp("redis")
    options = ("--enable-debug-command", "yes", "--enable-module-command", "yes", "--appendonly", "no")
    with EmbeddedRedis(folder, port=0, options=[*options, *acl_options(folder)]) as server:
        with Redis.from_url(server.url) as admin:
            admin.function_load(LIBRARY)  # as `semcached migrate up` does for an admin
        yield server


@pytest.fixture(scope="session")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="session")
def models(minilm: MiniLM) -> Loaded:
    """Loaded once: a verifier for each test would take gigabytes."""
    return Loaded(minilm, CrossEncoder())


@pytest.fixture
def redis(redis_server: EmbeddedRedis) -> Iterator[Redis]:
    """For looking behind: an admin's connection."""
    client = Redis.from_url(redis_server.url, protocol=2)
    yield client
    client.close()


@pytest.fixture
def prefix(redis: Redis) -> Iterator[str]:
    name = "t" + secrets.token_hex(4)
    yield name
    for index in redis.execute_command("FT._LIST"):
        if index.startswith(name.encode()):
            redis.execute_command("FT.DROPINDEX", index)
    keys = list(redis.scan_iter(f"{name}:*", count=1000))
    for at in range(0, len(keys), 1000):
        redis.unlink(*keys[at : at + 1000])


@pytest.fixture
def settings(prefix: str, tmp_path: Path, redis_server: EmbeddedRedis) -> Settings:
    return Settings(
        redis_url=as_service(redis_server.url),
        key_prefix=prefix,
        data_dir=tmp_path,
        secret="a secret of the tests, 1",
        memory_bytes=0,  # else what a test changes behind the service may be seen 100 ms later
        redis_timeout_s=5,  # two shared cores; deadlines have tests of their own
    )


@pytest.fixture
async def parts(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    """A working service without HTTP."""
    assert settings.redis_url is not None
    async with opened(settings, settings.redis_url, models) as opened_parts:
        await opened_parts.attach(lambda _: None)
        yield opened_parts


@pytest.fixture
async def other(parts: Parts, settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    """Another service over the same Redis."""
    async with opened(parts.settings, settings.redis_url or "", models) as second:
        await second.attach(lambda _: None)
        yield second
