"""The service as its users start it, in front of a provider on a socket."""

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench.processes import Served, served
from tests.provider.script import Script
from tests.provider.server import Provider, threaded
from tests.proxy.apis import APIS, Api


@pytest.fixture(scope="module")
def standing() -> Iterator[Provider]:
    with threaded(Provider()) as one:
        yield one


@pytest.fixture
def provider(standing: Provider) -> Iterator[Provider]:
    """As new: it has seen nothing, and answers what it was asked."""
    standing.requests.clear()
    standing.replies.clear()
    standing.finished = standing.aborted = standing.most_inside = 0
    yield standing
    standing.say(Script())


@pytest.fixture(scope="module")
def service(standing: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Without keys."""
    folder = tmp_path_factory.mktemp("service")
    # Two shared cores: nothing here is about deadlines.
    upstreams = {"openai_upstream": standing.url, "anthropic_upstream": standing.root}
    with served(folder, redis_timeout_s="5", **upstreams) as one:
        yield one


@pytest.fixture
def http(service: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        yield client


@pytest.fixture(params=APIS, ids=lambda one: one.name)
def api(request: pytest.FixtureRequest) -> Api:
    one: Api = request.param
    return one


@pytest.fixture
def question() -> str:
    """That nobody asked before, and nothing kept is like."""
    return f"What is said of {secrets.token_hex(8)} in the {secrets.token_hex(4)} report?"


def entries(http: httpx.Client) -> Iterator[dict[str, Any]]:
    """What is kept for the agent_type that clients have who name none."""
    asked: dict[str, Any] = {"agent_type": "default", "limit": 100}
    while True:
        answer = http.get("/v1/cache/entries", params=asked)
        assert answer.status_code == 200, answer.text
        yield from answer.json()["items"]
        asked["cursor"] = answer.json()["cursor"]
        if asked["cursor"] is None:
            return


def kept(http: httpx.Client, question: str) -> list[dict[str, Any]]:
    """The entries whose question, or answer, has that in it."""
    return [one for one in entries(http) if question in str(one)]
