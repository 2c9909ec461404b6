"""Copies of a running Redis's files, as docs/operations.md says to make them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from service.api.auth import operator
from service.errors import SecretMismatchError
from service.model import Hit, Tier
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.wiring import Loaded, opened
from tests.helpers import keep, look

pytestmark = pytest.mark.anyio


async def test_a_copy_of_the_aof_and_the_secret_are_a_backup(tmp_path: Path, models: Loaded) -> None:
    settings = Settings(secret="the secret of a backup", redis_timeout_s=5, data_dir=tmp_path / "data")
    tenant = operator("acme")
    with EmbeddedRedis(tmp_path / "a") as server:
        async with opened(settings, server.url, models) as parts:
            await parts.attach(lambda _: None)
            await keep(parts, parts.keyring.of(tenant), prompt="How do I reset my password?")
            redis = Redis.from_url(server.url, protocol=2)
            redis.config_set("auto-aof-rewrite-percentage", 0)
            assert redis.info("persistence")["aof_rewrite_in_progress"] == 0
            (tmp_path / "b").mkdir()
            shutil.copytree(tmp_path / "a" / "appendonlydir", tmp_path / "b" / "appendonlydir")
            redis.close()
    with EmbeddedRedis(tmp_path / "b") as server:
        async with opened(settings, server.url, models) as parts:
            await parts.attach(lambda _: None)
            for tier in Tier:
                answer = await look(
                    parts, parts.keyring.of(tenant), prompt="How do I reset my password?", tiers=[tier]
                )
                assert isinstance(answer, Hit)
        async with opened(replace(settings, secret="made anew after a loss"), server.url, models) as parts:
            with pytest.raises(SecretMismatchError):
                await parts.attach(lambda _: None)
