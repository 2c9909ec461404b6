"""What is answered directly, and by the framework's way: each request gets the same answer both ways."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from litestar import Litestar

from service.api.auth import Role, create_key
from service.api.direct import LONGEST
from service.app import create_app
from service.settings import Settings
from service.telemetry import LATENCY, REQUESTS
from service.wiring import Loaded

pytestmark = pytest.mark.anyio

LOOKUP = "/v1/cache/lookup"
QUESTION = {"agent_type": "support", "prompt": "How do I reset my password?"}
JSON = {"content-type": "application/json"}


@contextlib.asynccontextmanager
async def running(settings: Settings, models: Loaded, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(replace(settings, **given), settings.redis_url or "", models)
    transport = httpx.ASGITransport(cast("Any", app))
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        yield http


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """Of a body that doesn't say how long it is: that goes the framework's way."""
    yield body[:7]
    yield body[7:]


def told(response: httpx.Response) -> Any:
    """An answer but for what differs each time."""
    body = response.json()
    for name in ("lookup_id", "latency_ms", "age_s", "expires_in_s"):
        body.pop(name, None)
    headers = {k: v for k, v in response.headers.items() if k != "content-length"}
    return response.status_code, headers, body


def counted() -> tuple[float, float]:
    """Requests by REQUESTS, and by LATENCY."""
    requests = [one for metric in REQUESTS.collect() for one in metric.samples if one.name.endswith("_total")]
    times = [one for metric in LATENCY.collect() for one in metric.samples if one.name.endswith("_count")]
    return tuple(
        sum(one.value for one in all_ if one.labels["call"] == "lookup") for all_ in (requests, times)
    )  # type: ignore[return-value] # two


BODIES: dict[str, bytes] = {
    "hit": msgspec.json.encode(QUESTION),
    "miss": msgspec.json.encode(QUESTION | {"prompt": "What is the weather like on Mars?"}),
    "exact": msgspec.json.encode(QUESTION | {"tiers": ["exact"], "prompt": "Else"}),
    "blank": msgspec.json.encode(QUESTION | {"prompt": " "}),
    "unknown field": msgspec.json.encode(QUESTION | {"treshold": 0.9}),
    "wrong type": msgspec.json.encode(QUESTION | {"threshold": "high"}),
    "no JSON": b'{"agent_type": "support", ',
    "no UTF-8": b'{"agent_type": "support", "prompt": "\xff"}',
    "deep": b'{"agent_type": "support", "prompt": "p", "params": ' + b'{"a":' * 70 + b"1" + b"}" * 71,
    "not fitting": msgspec.json.encode(QUESTION | {"embedding": [1.0, 2.0]}),
    "waits": msgspec.json.encode(QUESTION | {"wait_s": 0.01}),
    "long": msgspec.json.encode(QUESTION | {"prompt": "a" * (LONGEST + 1)}),
    "too long": msgspec.json.encode(QUESTION | {"prompt": "a" * 2**20}),
}


@pytest.mark.parametrize("name", BODIES)
async def test_the_answer_is_the_same_both_ways(name: str, settings: Settings, models: Loaded) -> None:
    async with running(settings, models) as http:
        stored = await http.post("/v1/cache/store", json=QUESTION | {"response": "Settings."})
        assert stored.status_code == 201
        before = counted()
        direct = await http.post(LOOKUP, content=BODIES[name], headers=JSON)
        between = counted()
        framework = await http.post(LOOKUP, content=pieces(BODIES[name]), headers=JSON)
        after = counted()
    assert told(direct) == told(framework)
    assert [one - other for one, other in zip(between, before, strict=True)] == [1, 1]
    assert [one - other for one, other in zip(after, between, strict=True)] == [1, 1]


async def test_what_goes_well_never_reaches_the_framework(
    settings: Settings, models: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def noted(self: Litestar, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await real(self, scope, receive, send)

    real = Litestar.__call__
    monkeypatch.setattr(Litestar, "__call__", noted)
    async with running(settings, models) as http:
        assert (await http.post(LOOKUP, content=BODIES["miss"])).status_code == 200
        assert seen == []
        assert (await http.post(LOOKUP, content=BODIES["blank"])).status_code == 400
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get(LOOKUP)).status_code == 405
        assert seen == [LOOKUP, "/livez", LOOKUP]


async def test_keys_and_rate_limits_hold(settings: Settings, models: Loaded, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    good = {"Authorization": f"Bearer {create_key(keys, 'acme', Role.reader)}"}
    limited = {"X-Semcached-Key": create_key(keys, "acme", Role.reader, rate_limit=1)}
    async with running(settings, models, keys_file=keys) as http:
        assert (await http.post(LOOKUP, json=QUESTION)).status_code == 401
        assert (
            await http.post(LOOKUP, json=QUESTION, headers={"Authorization": "Bearer no"})
        ).status_code == 401
        assert (await http.post(LOOKUP, json=QUESTION, headers=good)).status_code == 200
        found = [(await http.post(LOOKUP, json=QUESTION, headers=limited)).status_code for _ in range(3)]
    assert found[0] == 200
    assert 429 in found


async def test_who_leaves_within_the_body_is_in_flight_no_more(settings: Settings, models: Loaded) -> None:
    one_at_a_time = replace(settings, max_in_flight=1)
    app: Any = create_app(one_at_a_time, settings.redis_url or "", models)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    def request(*messages: Any) -> tuple[Any, Any, Any]:
        left = list(messages)

        async def receive() -> Any:
            return left.pop(0) if left else {"type": "http.disconnect"}

        size = str(len(BODIES["hit"])).encode()
        headers = [(b"content-length", size), (b"host", b"x")]
        scope = {"type": "http", "method": "POST", "path": LOOKUP, "raw_path": LOOKUP.encode()}
        scope |= {"query_string": b"", "headers": headers, "root_path": "", "http_version": "1.1"}
        return scope | {"scheme": "http", "server": ("x", 80), "client": ("x", 1)}, receive, send

    async with app.lifespan():
        half = {"type": "http.request", "body": BODIES["hit"][:9], "more_body": True}
        await app(*request(half))
        sent.clear()
        await app(*request({"type": "http.request", "body": BODIES["hit"], "more_body": False}))
    assert [one.get("status") for one in sent] == [200, None]


async def test_a_body_longer_than_it_says_is_not_answered_directly(
    settings: Settings, models: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def noted(_: Litestar, scope: Any, *__: Any) -> None:
        asked.append(scope["path"])

    monkeypatch.setattr(Litestar, "__call__", noted)
    app: Any = create_app(settings, settings.redis_url or "", models)
    async with app.lifespan():
        scope = {"type": "http", "method": "POST", "path": LOOKUP, "headers": [(b"content-length", b"9")]}

        async def receive() -> Any:
            return {"type": "http.request", "body": BODIES["hit"], "more_body": False}

        await app(scope, receive, None)
    assert asked == [LOOKUP]
