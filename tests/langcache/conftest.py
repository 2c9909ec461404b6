"""A service on a real socket, and the unmodified SDK."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from bench.processes import Served, served
from langcache import LangCache
from service.api.auth import Role, create_key


class Service:
    """A running service with a key of each role, and one of another tenant."""

    def __init__(self, served: Served, keys: dict[str, str]) -> None:
        self.served = served
        self.url = f"http://127.0.0.1:{served.port}"
        self.keys = keys

    def native(self, method: str, path: str, body: Any = None, key: str = "admin") -> Any:
        """A native call's answer."""
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        answer = self.served.http.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


class Caller:
    """One SDK client; its methods sync or async."""

    def __init__(self, sdk: LangCache, *, sync: bool) -> None:
        self._sdk = sdk
        self._sync = sync

    async def __call__(self, method: str, **given: Any) -> Any:
        if self._sync:
            return getattr(self._sdk, method)(**given)
        return await getattr(self._sdk, f"{method}_async")(**given)


@asynccontextmanager
async def calling(url: str, key: str | None, cache_id: str | None, *, sync: bool) -> AsyncIterator[Caller]:
    sdk = LangCache(server_url=url, api_key=key, cache_id=cache_id, timeout_ms=30_000)
    with sdk:
        async with sdk:
            yield Caller(sdk, sync=sync)


@asynccontextmanager
async def started(folder: Path, **settings: str) -> AsyncIterator[Served]:
    """A service that asks stubs which run in this loop."""
    manager = served(folder, **settings)
    one = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield one
    finally:
        await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("langcache")
    keys = {role.name: create_key(folder / "keys.json", "acme", role) for role in Role}
    keys["other"] = create_key(folder / "keys.json", "other", Role.writer)
    with served(folder, redis_timeout_s="10") as one:
        yield Service(one, keys)


@pytest.fixture
def cache_id() -> str:
    return f"cache {secrets.token_hex(4)} é"


@pytest.fixture(params=["sync", "async"])
async def cache(request: pytest.FixtureRequest, service: Service, cache_id: str) -> AsyncIterator[Caller]:
    """A writer's."""
    async with calling(service.url, service.keys["writer"], cache_id, sync=request.param == "sync") as one:
        yield one
