"""What is answered directly, and by the framework's way: each request gets the same answer both ways."""

import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bench.processes import Served, served
from bench.raw import Answer, Connection, connected
from service.api.auth import Role, create_key
from service.api.direct import LONGEST, Answered, Direct
from service.app import create_app
from service.settings import Settings
from service.wiring import Loaded

pytestmark = pytest.mark.anyio

LOOKUP = "/v1/cache/lookup"
QUESTION: dict[str, Any] = {"agent_type": "support", "prompt": "How do I reset my password?"}
BODIES: dict[str, bytes] = {
    "hit": msgspec.json.encode(QUESTION),
    "miss": msgspec.json.encode(QUESTION | {"prompt": "What is the weather like on Mars?"}),
    "exact": msgspec.json.encode(QUESTION | {"tiers": ["exact"], "prompt": "Else"}),
    "explained": msgspec.json.encode(QUESTION | {"tiers": ["exact"], "prompt": "Else", "explain": True}),
}
ELSEWHERE: dict[str, bytes] = {
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


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service")) as service:
        stored = service.http.post("/v1/cache/store", json=QUESTION | {"response": "Settings."})
        assert stored.status_code == 201
        yield service


def request(body: bytes, *lines: str) -> bytes:
    return "\r\n".join([f"POST {LOOKUP} HTTP/1.1", "host: x", *lines, "", ""]).encode() + body


def whole(body: bytes, *lines: str) -> bytes:
    """Says how long it is."""
    return request(body, f"content-length: {len(body)}", *lines)


def chunked(body: bytes, *lines: str) -> bytes:
    """Doesn't: that goes the framework's way."""
    return request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "transfer-encoding: chunked", *lines)


async def asked(connection: Connection, data: bytes) -> Answer:
    connection.send(data)
    with anyio.fail_after(20):
        return await connection.answer()


def told(answer: Answer) -> Any:
    """An answer but for what differs each time."""
    body = answer.json
    for name in ("lookup_id", "latency_ms", "age_s", "expires_in_s"):
        body.pop(name, None)
    body.get("decision", {}).pop("stages_ms", None)
    headers = {k: v for k, v in answer.headers.items() if k not in {"content-length", "date"}}
    return answer.status, headers, body


def counted(service: Served) -> tuple[float, float]:
    """Lookups that were counted, and that were timed."""
    text = service.http.get("/metrics").text
    requests = re.findall(r'^semcached_requests_total\{call="lookup",.*\} (.*)$', text, re.MULTILINE)
    times = re.findall(r'^semcached_request_seconds_count\{call="lookup"\} (.*)$', text, re.MULTILINE)
    return sum(map(float, requests)), sum(map(float, times))


@pytest.mark.parametrize("name", BODIES | ELSEWHERE)
async def test_the_answer_is_the_same_both_ways(name: str, service: Served) -> None:
    body, before = (BODIES | ELSEWHERE)[name], counted(service)
    async with connected(service.port) as connection:
        direct = await asked(connection, whole(body))
        between = counted(service)
    async with connected(service.port) as connection:
        framework = await asked(connection, chunked(body))
    assert told(direct) == told(framework)
    assert [one - other for one, other in zip(between, before, strict=True)] == [1, 1]
    assert [one - other for one, other in zip(counted(service), between, strict=True)] == [1, 1]


async def test_pieces_pipelines_and_closed_connections(service: Served) -> None:
    body = BODIES["hit"]
    data = whole(body)
    async with connected(service.port) as connection:
        for at in (1, 20, len(data) - len(body), len(data) - 1):  # where it is cut in two
            connection.send(data[:at])
            await anyio.sleep(0.02)  # so that they arrive one by one
            assert (await asked(connection, data[at:])).json["outcome"] == "hit"
        connection.send(data + whole(BODIES["exact"]) + chunked(body) + data)
        outcomes = [(await connection.answer()).json["outcome"] for _ in range(4)]
        assert outcomes == ["hit", "miss", "hit", "hit"]
        last = await asked(connection, whole(body, "connection: close"))
        assert last.headers["connection"] == "close"
        assert await connection.closed() == b""


async def test_who_expects_to_be_told_to_go_on_is_told(service: Served) -> None:
    async with connected(service.port) as connection:
        connection.send(
            whole(b"", "expect: 100-continue").replace(b"length: 0", b"length: %d" % len(BODIES["hit"]))
        )
        with anyio.fail_after(20):
            assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        assert (await asked(connection, BODIES["hit"])).json["outcome"] == "hit"


async def test_keys_and_rate_limits_hold(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    good = f"authorization: Bearer {create_key(keys, 'acme', Role.reader)}"
    limited = f"x-semcached-key: {create_key(keys, 'acme', Role.reader, rate_limit=1)}"
    with served(tmp_path / "data", keys_file=str(keys)) as service:
        async with connected(service.port) as connection:
            lines = [(), ("authorization: Bearer no",), (good,), (limited,), (limited,), (limited,)]
            found = [(await asked(connection, whole(BODIES["hit"], *one))).status for one in lines]
    assert found[:4] == [401, 401, 200, 200]
    assert 429 in found[4:]


def scope(body: bytes, path: str = LOOKUP, method: str = "POST") -> dict[str, Any]:
    headers = [(b"host", b"x"), (b"content-length", b"%d" % len(body))]
    return {"path": path, "method": method, "headers": headers}


@pytest.fixture
async def direct(settings: Settings, models: Loaded) -> AsyncIterator[Direct]:
    app = create_app(replace(settings, max_in_flight=2), settings.redis_url or "", models)
    async with app.lifespan():
        yield app.state.direct


async def answer(direct: Direct, body: bytes) -> Answered | None:
    taken = direct.take(scope(body))
    assert taken is not None
    found = taken.answer(body)
    taken.end(None)
    return await found if isinstance(found, Coroutine) else found


async def test_what_is_taken(direct: Direct) -> None:
    for name, body in (BODIES | ELSEWHERE).items():
        taken = direct.take(scope(body))
        assert (taken is None) == (name in {"long", "too long"})
        if taken is not None:
            taken.end(None)
    assert direct.take(scope(BODIES["hit"], method="GET")) is None
    assert direct.take(scope(BODIES["hit"], path="/v1/cache/store")) is None
    assert direct.take({"path": LOOKUP, "method": "POST", "headers": []}) is None
    elsewhere = scope(BODIES["hit"])
    elsewhere["headers"].append((b"origin", b"https://elsewhere.example"))
    assert direct.take(elsewhere) is None


async def test_what_is_answered(direct: Direct) -> None:
    for body in BODIES.values():
        assert isinstance(await answer(direct, body), Answered)
    for body in (*(one for one in ELSEWHERE.values() if len(one) <= LONGEST), b"{}"):
        assert await answer(direct, body) is None


async def test_a_body_that_is_longer_than_it_says_is_not_answered(direct: Direct) -> None:
    taken = direct.take(scope(b"{}"))
    assert taken is not None
    assert taken.answer(BODIES["hit"]) is None


async def test_a_defect_goes_the_frameworks_way(
    direct: Direct, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a defect")

    for name in ("question", "answer_one"):
        with monkeypatch.context() as patch:
            patch.setattr(direct.services.lookup, name, broken)
            assert await answer(direct, BODIES["miss"]) is None
        assert "unexpected error in lookup" in caplog.text
        caplog.clear()


async def test_as_many_are_in_flight_as_may_be(direct: Direct) -> None:
    taken = [direct.take(scope(BODIES["miss"])) for _ in range(3)]  # their bodies are still to come
    assert [one is None for one in taken] == [False, False, True]
    first = taken[0]
    assert first is not None
    first.end("499")
    assert direct.take(scope(BODIES["miss"])) is not None


async def test_who_may_not_is_told_before_his_body_comes(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    good = f"authorization: Bearer {create_key(keys, 'acme', Role.reader)}"
    half = request(b'{"agent_type"', "content-length: 40")
    with served(tmp_path / "data", keys_file=str(keys), max_in_flight="1") as service:
        async with connected(service.port) as stranger:
            assert (await asked(stranger, half)).status == 401
        async with connected(service.port) as slow, connected(service.port) as other:
            slow.send(request(b'{"agent_type"', "content-length: 40", good))
            await anyio.sleep(0.3)  # until it has come
            assert (await asked(other, whole(BODIES["hit"], good))).status == 429


async def test_a_keys_file_that_cannot_be_read_is_an_answered_error(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    good = f"authorization: Bearer {create_key(keys, 'acme', Role.reader)}"
    with served(tmp_path / "data", keys_file=str(keys)) as service:
        keys.unlink()
        keys.symlink_to(keys)  # ELOOP
        async with connected(service.port) as connection:
            assert (await asked(connection, whole(BODIES["hit"], good))).status == 500
