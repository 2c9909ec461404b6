"""The protocol's timers and its bounds, with times that a test can wait for."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from uvicorn.server import ServerState

from bench.raw import Connection, connected
from service import server

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"


class Listening:
    """The protocol over an application of the test's."""

    def __init__(self) -> None:
        self.state = ServerState()
        self.heard: list[str] = []
        self.headers: list[bytes] = []
        self.port = 0

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """`GET /`: a large answer; `GET /slow`: waits for its caller to go; `POST /`: is answered unread."""
        self.headers = [name for name, _ in scope["headers"]]
        body = b"x" * 50_000_000 if scope["method"] == "GET" else b""
        if scope["path"] == "/slow":
            self.heard.append("slow")
            while (message := await receive())["type"] == "http.request":
                pass
            self.heard.append(message["type"])
        length = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    async def until_nobody_is_connected(self) -> None:
        with anyio.fail_after(20):
            while self.state.connections:
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One that the server knows of."""
        async with connected(self.port) as connection:
            with anyio.fail_after(20):
                while not self.state.connections:
                    await asyncio.sleep(0.01)
            yield connection


@pytest.fixture
async def listening(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listening]:
    for name in ("WRITE_S", "IDLE_S", "FLUSH_S"):
        monkeypatch.setattr(server, name, 0.2)
    one = Listening()
    config = uvicorn.Config(
        one.app, http=server.LimitedProtocol, ws="none", log_config=None, interface="asgi3"
    )
    config.load()

    def protocol() -> server.LimitedProtocol:
        return server.LimitedProtocol(config, one.state, {})

    listener = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    one.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield one


async def test_an_answer_that_nobody_reads_ends(listening: Listening) -> None:
    async with listening.connection() as connection:
        connection.send(GET)
        await listening.until_nobody_is_connected()


async def test_a_slow_but_steady_reader_gets_it_all(listening: Listening) -> None:
    """For many times as long as nothing may be read."""
    async with listening.connection() as connection:
        connection.send(GET)
        await connection.reader.readuntil(b"\r\n\r\n")
        for _ in range(50):
            await connection.reader.readexactly(1_000_000)
            await asyncio.sleep(0.04)


async def test_garbage_takes_no_answer_away(listening: Listening) -> None:
    async with listening.connection() as connection:
        whole = POST.replace(b"10", b"0")
        connection.send(3 * whole + b"garbage\r\n\r\n")
        for _ in range(3):
            assert (await connection.answer()).status == 200
        assert await connection.closed() == b""


async def test_a_stray_line_end_is_no_request(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    async with listening.connection() as connection:
        connection.send(POST.replace(b"10", b"0"))
        assert (await connection.answer()).status == 200
        connection.send(b"\r\n")
        assert await connection.closed() == b""  # and no 408


async def test_trailers_are_no_headers(listening: Listening) -> None:
    async with listening.connection() as connection:
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        connection.send(chunked + b"authorization: Bearer t\r\n\r\n")
        assert (await connection.answer()).status == 200
        assert listening.headers == [b"host", b"transfer-encoding"]


async def test_a_connection_that_was_answered_before_its_body_came_ends(listening: Listening) -> None:
    async with listening.connection() as connection:
        connection.send(POST)
        assert (await connection.answer()).status == 200
        connection.send(b"x" * 10)
        await listening.until_nobody_is_connected()


async def test_a_body_that_never_comes_after_its_answer_ends(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.2)
    async with listening.connection() as connection:
        connection.send(POST)
        assert (await connection.answer()).status == 200
        await listening.until_nobody_is_connected()


async def test_who_runs_is_told_that_the_caller_went_away(listening: Listening) -> None:
    """Also where another request waits behind it."""
    async with listening.connection() as connection:
        slow = GET.replace(b"/ ", b"/slow ")
        connection.send(slow + GET)
        with anyio.fail_after(20):
            while not listening.heard:
                await asyncio.sleep(0.01)
        raw: socket.socket = connection.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
        connection.writer.transport.abort()
        with anyio.fail_after(20):
            while "http.disconnect" not in listening.heard:
                await asyncio.sleep(0.01)
        await listening.until_nobody_is_connected()


async def test_pipelined_requests_are_bounded(listening: Listening) -> None:
    async with listening.connection() as connection:
        connection.send(POST.replace(b"10", b"0") * 1000)
        answers = 0
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                await connection.answer()
                answers += 1
        assert 1 <= answers <= server.PIPELINED + 1
        await listening.until_nobody_is_connected()
