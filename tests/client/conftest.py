"""A real service on a socket, in a process of its own, over the run's Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import Served, served
from semcached import Client, guarded
from service.store.embedded import EmbeddedRedis
from tests.acl import as_service

SECRET = "a secret of the tests, 1"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_server: EmbeddedRedis) -> Iterator[Served]:
    """Its entries are told apart by agent_type: each test has its own, `agent`."""
    folder: Path = tmp_path_factory.mktemp("service")
    settings = {"redis_url": as_service(redis_server.url), "key_prefix": "tclients1", "verifier": "off"}
    with served(folder, secret=SECRET, redis_timeout_s="5", **settings) as service:
        yield service


@pytest.fixture
def url(service: Served) -> str:
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout_s=30, connect_timeout_s=30) as client:
        yield client


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> str:
    """Also the tools' name: a reader's, whatever words the test has."""
    return f"get_{request.node.name}"


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    guarded._said.clear()
    yield
    guarded._clients.clear()
