"""Bytes that no library would send, bodies that never end, and what is no valid request."""

import asyncio
import base64
import contextlib
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from redis import Redis

from bench.processes import Served, served
from bench.raw import Answer, connected
from service.server import HEAD_BYTES, HEADERS

pytestmark = pytest.mark.anyio

log = logging.getLogger(__name__)

LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
QUESTION: dict[str, Any] = {"agent_type": "a", "prompt": "p"}
BODY = json.dumps(QUESTION).encode()
BAD_BODIES = BAD_VALUES = 10_000
STALLED = 1_000
HUGE, HUGE_BYTES = 1_000, 10 * 2**20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service")) as service:
        yield service


def head(*lines: str, path: str = LOOKUP) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


SIZE = f"content-length: {len(BODY)}"
REFUSED = {
    "two lengths": (head(SIZE, f"content-length: {len(BODY) + 1}") + BODY, 400),
    "length and chunks": (head(SIZE, "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
    "chunks and length": (head("transfer-encoding: chunked", SIZE) + b"0\r\n\r\n", 400),
    "an encoding after chunks": (head("transfer-encoding: chunked, gzip") + b"0\r\n\r\n", 400),
    "a negative length": (head("content-length: -5") + BODY, 400),
    "a length that is none": (head("content-length: 5x") + BODY, 400),
    "a header without a name": (head(": x", SIZE) + BODY, 400),
    "white space before the colon": (head("content-length : 5") + BODY, 400),
    "NUL in a header": (head("x: a\0b", SIZE) + BODY, 400),
    "another protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, 400),
    "too many headers": (head(*(f"x{n}: y" for n in range(HEADERS)), SIZE) + BODY, 431),
    "a header that never ends": (head()[:-2] + b"x: " + b"y" * 2 * HEAD_BYTES, 431),
    "a path that never ends": (b"POST /" + b"y" * 2 * HEAD_BYTES, 431),
    "trailers without end": (
        head("transfer-encoding: chunked") + b"0\r\n" + b"x: y\r\n" * (HEADERS + 1) + b"\r\n",
        431,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_request_is_refused_and_the_connection_ends(service: Served, name: str) -> None:
    data, status = REFUSED[name]
    async with connected(service.port) as connection:
        connection.send(data)
        with anyio.fail_after(30):
            answer = await connection.answer()
            assert answer.status == status
            assert answer.json["status"] == status
            assert await connection.closed() == b""


ENDLESS = {
    "trailer": head("transfer-encoding: chunked") + b"0\r\nx: ",
    "chunk extension": head("transfer-encoding: chunked") + b"5;",
    "header": head()[:-2] + b"x: ",
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_never_ends_is_cut_off(service: Served, name: str) -> None:
    async with connected(service.port) as connection:
        connection.send(ENDLESS[name])
        sent = 0
        with anyio.fail_after(30), contextlib.suppress(OSError):
            while True:
                connection.send(b"y" * 16384)
                await connection.writer.drain()
                await asyncio.sleep(0.001)
                sent += 16384
        assert HEAD_BYTES <= sent < 64 * HEAD_BYTES


async def test_a_refusal_does_not_take_the_place_of_an_answer(service: Served) -> None:
    """Garbage behind a store: the store is answered, then the connection ends."""
    entry = json.dumps(
        QUESTION | {"prompt": "and so on " * 80, "response": 1}
    ).encode()  # a while for the model
    async with connected(service.port) as connection:
        connection.send(head(f"content-length: {len(entry)}", path=STORE) + entry)
        await asyncio.sleep(0.002)
        connection.send(b"garbage\r\n\r\n")
        with anyio.fail_after(30):
            assert (await connection.answer()).status == 201
            assert await connection.closed() == b""


def went_away(service: Served) -> float:
    """Callers that left, by the metrics."""
    found = re.search(r'requests_total{call="lookup",status="499"} (.*)', service.http.get("/metrics").text)
    return float(found[1]) if found else 0


async def test_who_goes_away_in_a_body_is_no_server_error(service: Served) -> None:
    before = went_away(service)
    for _ in range(5):
        async with connected(service.port) as connection:
            connection.send(head(SIZE) + BODY[:5])
            await asyncio.sleep(0.01)
    with anyio.fail_after(30):
        while went_away(service) < before + 5:
            await asyncio.sleep(0.05)
    assert 'status="500"' not in service.http.get("/metrics").text


@pytest.mark.parametrize(
    "data",
    [
        head(SIZE) + BODY,
        head("transfer-encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        head(SIZE, *(f"x{n}: y" for n in range(HEADERS - 3))) + BODY,
        head(SIZE, "expect: 100-continue") + BODY,
    ],
)
async def test_what_is_one_is_answered(service: Served, data: bytes) -> None:
    async with connected(service.port) as connection:
        for _ in range(2):  # on the same connection, and in two pieces
            connection.send(data[:20])
            await asyncio.sleep(0.01)
            connection.send(data[20:])
            with anyio.fail_after(30):
                if b"expect" in data:
                    assert b"100 Continue" in await connection.reader.readuntil(b"\r\n\r\n")
                assert (await connection.answer()).status == 200


async def test_an_upgrade_is_not_taken_up_and_smuggles_nothing(service: Served) -> None:
    """The parser takes what follows for another protocol's: the connection ends there."""
    async with connected(service.port) as connection:
        upgrade = head("connection: upgrade", "upgrade: h2c", SIZE, path="/livez").replace(b"POST", b"GET")
        connection.send(upgrade + BODY + head(SIZE) + BODY)
        with anyio.fail_after(30):
            assert (await connection.answer()).status == 200
            assert await connection.closed() == b""


async def test_stalled_clients_end_and_harm_nobody(service: Served) -> None:
    """A quarter says nothing, a quarter stops in its headers, a quarter before the body, a quarter in it."""
    beginnings = [b"", head(SIZE)[:20], head(SIZE), head(SIZE) + BODY[:5]]
    ends: Counter[bytes] = Counter()

    async def stall(beginning: bytes) -> None:
        async with connected(service.port) as connection:
            connection.send(beginning)
            ends[(await connection.closed())[9:12]] += 1

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for n in range(STALLED):
                group.start_soon(stall, beginnings[n % 4])
            async with connected(service.port) as connection:
                for _ in range(100):
                    assert (await connection.post(LOOKUP, BODY)).status == 200
    assert ends == {b"": STALLED // 4, b"408": STALLED * 3 // 4}


async def test_a_body_that_is_too_large_takes_no_memory(service: Served) -> None:
    """Some say how long it is, some don't; the batch call would take 16 MiB, of so many at once."""
    statuses: Counter[int] = Counter()
    piece = b" " * 65536

    async def send(n: int) -> None:
        chunked, path = n % 2 == 0, LOOKUP + "/batch" * (n % 4 > 1)
        async with connected(service.port) as connection:
            length = "transfer-encoding: chunked" if chunked else f"content-length: {HUGE_BYTES}"
            connection.send(head(length, path=path))
            try:
                for _ in range(HUGE_BYTES // len(piece)):
                    connection.send(b"10000\r\n%s\r\n" % piece if chunked else piece)
                    await connection.writer.drain()
                connection.send(b"0\r\n\r\n" * chunked)
                statuses[(await connection.answer()).status] += 1
            except (OSError, EOFError):
                statuses[0] += 1

    before = memory(service, "VmRSS")
    limiter = anyio.CapacityLimiter(64)

    async def limited(n: int) -> None:
        async with limiter:
            await send(n)

    async with anyio.create_task_group() as group:
        for n in range(HUGE):
            group.start_soon(limited, n)
    peak = memory(service, "VmHWM")
    log.info("%d bodies of 10 MiB: %s, at most %+d MiB", HUGE, statuses, (peak - before) // 2**20)
    assert statuses[413] >= HUGE // 4
    assert set(statuses) <= {413, 400, 429}, statuses
    assert peak - before < 200 * 2**20
    async with connected(service.port) as connection:
        assert (await connection.post(LOOKUP, BODY)).status == 200


def memory(service: Served, figure: str) -> int:
    """Resident now (VmRSS), or at most so far (VmHWM), bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return 1024 * int(status.split(f"{figure}:")[1].split()[0])


def written(service: Served) -> int:
    """How many keys there are; and that the index refused none."""
    with Redis.from_url((service.data_dir / "redis.url").read_text().strip(), protocol=2) as redis:
        info = redis.execute_command("FT.INFO", "sc:{0}:responses:index:1")
        assert int(dict(zip(info[::2], info[1::2], strict=True))[b"hash_indexing_failures"]) == 0
        return int(redis.execute_command("DBSIZE"))


async def answers(service: Served, requests: list[tuple[str, bytes]], at_once: int = 16) -> list[Answer]:
    """Of many requests, over a few connections, in any order."""
    waiting, found = list(requests), []

    async def one() -> None:
        async with connected(service.port) as connection:
            while waiting:
                path, body = waiting.pop()
                found.append(await connection.post(path, body))
                assert found[-1].status < 500, (body[:200], found[-1])

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(one)
    return found


def malformed(rng: random.Random) -> bytes:
    """A valid body, spoilt: cut, bytes flipped or added, or values that JSON has no words for."""
    entry = QUESTION | {"response": {"a": [1, "é", None]}, "ttl_s": 60, "tags": ["t"], "metadata": {"m": 1}}
    body = json.dumps(entry, ensure_ascii=False).encode()
    odd = [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\\ud800", b"\x00", b"\\x"]
    numbers = [b"NaN", b"1e999", b"-", b"06", b"9" * 5000, b"Infinity"]
    flipped = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        flipped[rng.randrange(len(body))] = rng.randrange(256)
    kinds = [
        body[: rng.randrange(len(body))],
        body.replace(b"60", rng.choice(numbers)),
        rng.choice([b"[", b'{"a":', b"[[]"]) * rng.randrange(1, 20000),
        body + rng.randbytes(rng.randrange(1, 20)),
        rng.randbytes(rng.randrange(200)),
        body.replace(b'"p"', b'"p' + rng.choice(odd) + b'"'),
        bytes(flipped),
    ]
    return rng.choice(kinds)


async def test_malformed_bodies(service: Served) -> None:
    """Some spoilt bytes leave a valid request; what isn't one is a 400 and leaves nothing behind."""
    rng = random.Random(3)  # noqa: S311 - repeatable on purpose
    bodies = [malformed(rng) for _ in range(BAD_BODIES)]
    before = written(service)
    found = await answers(service, [(rng.choice([LOOKUP, STORE]), body) for body in bodies])
    statuses = Counter(answer.status for answer in found)
    log.info("%d malformed bodies: %s", BAD_BODIES, statuses)
    assert set(statuses) <= {200, 201, 400}
    assert statuses[400] > BAD_BODIES * 0.8
    assert written(service) - before <= 2 * statuses[201]


async def test_vectors_and_lives_out_of_range(service: Served) -> None:
    rng = random.Random(4)  # noqa: S311 - repeatable on purpose
    before = written(service)
    found = await answers(service, [(STORE, out_of_range(rng)) for _ in range(BAD_VALUES)])
    assert Counter(answer.status for answer in found) == {400: BAD_VALUES}
    assert {answer.json["errors"][0]["field"] for answer in found} <= {"ttl_s", "embedding", "body"}
    assert written(service) == before


def out_of_range(rng: random.Random) -> bytes:
    """A store with one value that can't be: its vector, or its life."""
    entry = json.dumps(QUESTION | {"response": 1})[:-1]
    if rng.random() < 0.5:
        lives = [
            "0",
            "-1",
            "0.999",
            "1e308",
            "3153600001",
            '"60"',
            "true",
            "[60]",
            "{}",
            "NaN",
            "-0.0",
            "1e-9",
        ]
        return f'{entry}, "ttl_s": {rng.choice(lives)}}}'.encode()
    values = np.random.default_rng(rng.randrange(2**32)).normal(size=384).astype("<f4")
    at = rng.randrange(384)
    kind = rng.randrange(8)
    if kind < 4:
        values[at] = [np.nan, np.inf, -np.inf, 3e38][kind]
    elif kind == 4:
        values[:] = 0
    elif kind == 5:
        values = values[: rng.randrange(384)]
    elif kind == 6:
        values = np.append(values, values[: rng.randrange(1, 500)])
    else:
        text = rng.choice(["", "!", "AAAA", "A" * 2047, "é" * 512, base64.b64encode(b"x" * 1537).decode()])
        return f'{entry}, "embedding": {json.dumps(text)}}}'.encode()
    if rng.random() < 0.5:
        return f'{entry}, "embedding": "{base64.b64encode(values.tobytes()).decode()}"}}'.encode()
    return f'{entry}, "embedding": {json.dumps(values.tolist())}}}'.encode()
