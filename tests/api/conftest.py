"""The application over HTTP, in this process."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.api.auth import Role, create_key
from service.app import create_app
from service.settings import Settings
from service.wiring import Loaded


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
async def client(settings: Settings, models: Loaded) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """Without keys: everybody is admin of tenant `default`."""
    async with AsyncTestClient(create_app(settings, settings.redis_url or "", models)) as http:
        yield http


@pytest.fixture
async def guarded(
    settings: Settings, models: Loaded, keys_file: Path
) -> AsyncIterator[AsyncTestClient[Litestar]]:
    """With keys: `acme`'s reader, writer and admin are in `guarded.headers_of`."""
    create_key(keys_file, "someone", Role.reader)
    guarded_settings = replace(settings, keys_file=keys_file, admin_key="the first admin key")
    async with AsyncTestClient(create_app(guarded_settings, settings.redis_url or "", models)) as http:
        yield http
