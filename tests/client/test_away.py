"""Without the service functions run: refused, hung, broken, wrong, killed in the middle."""

import asyncio
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bench.processes import Served, free_port
from semcached import (
    AsyncClient,
    BrokenError,
    Client,
    ConfigurationError,
    DeadlineError,
    ServerError,
    UnreachableError,
    UnreadableError,
    cached_answer,
    cached_tool,
)
from semcached.breaker import Breaker

pytestmark = pytest.mark.anyio


class Stub:
    """A server that answers each request by the next of `answers`, the last for ever; None: never."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        """One request per connection."""
        data = b""
        try:
            while not self._whole(data):
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            self.requests.append(data)
            answer = next(self._answers)
            if answer is not None:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    @staticmethod
    def _whole(data: bytes) -> bool:
        head, end, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return bool(end) and len(body) >= (int(lengths[0].split(b":")[1]) if lengths else 0)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for one in self._open:
            one.close()


@contextmanager
def stub(*answers: bytes | None) -> Iterator[Stub]:
    server = Stub(*answers)
    try:
        yield server
    finally:
        server.close()


def response(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


MISS = response(200, b'{"outcome":"miss","lookup_id":"1","reason":"empty","lease":true}')
PROBLEM = b'{"type":"/e","title":"Store unavailable","status":503,"detail":"Redis is away"}'
LIVE = response(200, b'{"status":"live"}')

AWAY = {
    "a 500": response(500),
    "a 503": response(503, PROBLEM, "retry-after: 1"),
    "a 401": response(401, b'{"title":"Unauthenticated","status":401,"detail":"unknown key"}'),
    "a page that isn't there": response(404, b"<html>"),
    "a problem that isn't there": response(
        404, b'{"title":"Not found","status":404,"detail":"no such path"}'
    ),
    "another's method": response(405, b""),
    "another's 403": response(403, b"{}"),
    "another page": response(200, b"<html>"),
    "a redirect": response(302, b"", "location: /login"),
    "another's JSON": response(200, b'{"outcome":"maybe"}'),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "half an answer": MISS[:-10],
    "nothing at all": b"",
}


def tools(client: Client, async_client: AsyncClient) -> tuple[Callable[[int], int], Callable[[int], Any]]:
    @cached_tool(client=client, timeout_s=0.5)
    def tool(x: int) -> int:
        return x

    @cached_tool(client=async_client, timeout_s=0.5)
    async def later(x: int) -> int:
        return x

    return tool, later


@pytest.mark.parametrize("name", AWAY)
async def test_a_service_that_fails_is_left_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with stub(AWAY[name]) as server, Client(server.url) as client:
        async with AsyncClient(server.url) as async_client:
            tool, later = tools(client, async_client)
            for n in range(50):
                assert tool(n) == n
            asked = len(server.requests)
            for n in range(50):
                assert await later(n) == n
    assert asked <= 3  # one a second at most, and 50 calls take none
    assert len(server.requests) <= 6
    assert [one.levelno for one in caplog.records if one.name == "semcached"] == [logging.WARNING] * 2
    assert caplog.text.count("is away, functions run uncached") == 2


async def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, connect_timeout_s=30) as client:
        async with AsyncClient(url) as async_client:
            tool, later = tools(client, async_client)
            assert [tool(n) for n in range(50)] == list(range(50))
            assert [await later(n) for n in range(50)] == list(range(50))
    assert caplog.text.count("is away") == 2


async def test_one_that_hangs_is_asked_once_and_not_for_all_of_the_wait() -> None:
    with anyio.fail_after(8), stub(None) as server, Client(server.url) as client:  # `wait` alone is 10 s
        async with AsyncClient(server.url) as async_client:
            tool, later = tools(client, async_client)
            assert [await anyio.to_thread.run_sync(tool, n) for n in range(20)] == list(range(20))
            assert [await later(n) for n in range(20)] == list(range(20))
    assert [one.split()[1] for one in server.requests[:1]] == [b"/livez"]
    assert len(server.requests) <= 6


def test_one_that_hangs_right_after_an_answer_costs_the_wait_once() -> None:
    hit = response(200, b'{"outcome":"hit","result":1,"age_s":1}')
    with stub(LIVE, hit, None) as server, Client(server.url) as client:

        @cached_tool(client=client, wait=0.3, timeout_s=0.3)
        def tool(x: int) -> int:
            return x

        assert [tool(1), *map(tool, range(2, 20))] == [1, *range(2, 20)]
    assert [one.split()[1] for one in server.requests][:3] == [b"/livez", *[b"/v1/tools/lookup"] * 2]
    assert len(server.requests) <= 5


def test_a_breaker_that_opens_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    breaker = Breaker("http://x", clock=lambda: now[0])

    def after(seconds: float) -> bool:
        now[0] += seconds
        return breaker.allows()

    assert after(0)
    breaker.failed(OSError("gone"), 0.5)
    breaker.failed(OSError("gone"), 0.5)  # of many who asked at once
    assert breaker.rests
    assert [after(0.9), after(0.2), after(0), after(0)] == [False, True, False, False]  # one asks for all
    breaker.failed(OSError("gone"), 0.5)
    assert [after(9.9), after(0.2)] == [False, True]  # half a second of waiting: 20 times as long without
    now[0] += 60
    breaker.failed(OSError("gone"), 60)
    breaker.worked(61)  # that was asked before
    assert [after(29.9), after(0.2)] == [False, True]  # 30 s at most
    breaker.worked(0.1)
    assert [after(0), breaker.trusted, after(1), breaker.trusted] == [True, True, True, False]
    assert [one.getMessage().split(":")[-1].strip() for one in caplog.records] == ["gone", "//x is back"]


def test_an_error_while_the_service_is_there_opens_nothing(caplog: pytest.LogCaptureFixture) -> None:
    full = response(507, b'{"title":"Store full","status":507,"detail":"no room"}')
    turned_away = response(429, b'{"title":"Too many requests","status":429,"detail":"x"}', "retry-after: 9")
    for answers in ([LIVE, MISS, full], [LIVE, turned_away]):
        with stub(*answers) as server, Client(server.url) as client:

            @cached_tool(client=client)
            def tool(x: int) -> int:
                return x

            assert tool(1) == 1
            assert not client.breaker.rests
    assert "no room" in caplog.text


def test_what_only_one_call_is_to_blame_for_opens_nothing(caplog: pytest.LogCaptureFixture) -> None:
    forbidden = response(403, b'{"title":"Forbidden","status":403,"detail":"its role"}')
    too_large = response(413, b"<html>")
    for answers, wait in (([forbidden], None), ([too_large], None), ([LIVE, MISS, response(404)], 1.0)):
        with stub(*answers) as server, Client(server.url) as client:
            tool = cached_tool(client=client, wait=wait)(abs)
            assert tool(-1) == 1
            assert not client.breaker.rests
    client = Client(f"http://127.0.0.1:{free_port()}")
    client.close()
    assert cached_tool(client=client)(abs)(-2) == 2
    assert not client.breaker.rests
    assert "the client is closed" in caplog.text


def test_an_answer_byte_by_byte_is_waited_for_till_the_deadline() -> None:
    """The body never ends, but each read of it is in time."""
    listener = socket.create_server(("127.0.0.1", 0))
    sent = 0

    def trickle() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            for _ in range(300):
                connection.sendall(b" ")
                sent += 1
                threading.Event().wait(0.05)
        except OSError:  # it had enough
            connection.close()

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client, pytest.raises(DeadlineError):
        client.health(timeout_s=0.5)
    thread.join(20)
    listener.close()
    assert sent < 300


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://semcached.example/v1/ "])
def test_an_address_with_the_version_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="leave out the /v1"):
        Client(url)


def test_blanks_around_settings_dont_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where they are read from a file."""
    monkeypatch.setenv("SEMCACHED_URL", " http://127.0.0.1:1/\n")
    monkeypatch.setenv("SEMCACHED_API_KEY", "sk-sc-KEY\n")
    assert Client()._settings.headers == {"Authorization": "Bearer sk-sc-KEY"}
    assert repr(Client()) == "Client('http://127.0.0.1:1')"
    monkeypatch.setenv("SEMCACHED_API_KEY", "sk-sc KEY")
    with pytest.raises(ConfigurationError, match="without spaces"):
        Client()


def test_killed_in_the_middle_and_back_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    runs: list[int] = []
    caplog.set_level(logging.INFO, "semcached")
    url = f"http://127.0.0.1:{port}"
    with Client(url, connect_timeout_s=30) as client:

        @cached_tool(client=client, name="get")
        def tool(x: int) -> int:
            runs.append(x)
            return x

        service = Served(tmp_path, port=str(port), verifier="off").wait()
        try:
            assert [tool(1), tool(1), len(runs)] == [1, 1, 1]
            kill = threading.Timer(0.5, service.process.send_signal, [signal.SIGKILL])
            kill.start()
            with ThreadPoolExecutor(8) as pool:
                done = list(pool.map(lambda n: (tool(n), threading.Event().wait(0.01))[0], range(1000)))
            kill.join()
            assert done == list(range(1000))
        finally:
            service.end(signal.SIGKILL)
        assert caplog.text.count("is away") == 1
        service = Served(tmp_path, port=str(port), verifier="off").wait()
        try:
            threading.Event().wait(1.5)
            assert tool(-1) == -1
            assert caplog.text.count("is back") == 1
            before = len(runs)
            assert tool(-1) == -1
            assert len(runs) == before
        finally:
            service.end()


async def test_a_client_says_what_is_wrong() -> None:
    expected: dict[str, type[Exception]] = {
        "a 500": ServerError,
        "another page": UnreadableError,
        "a redirect": UnreadableError,
        "no HTTP": BrokenError,
        "half an answer": BrokenError,
        "nothing at all": BrokenError,
    }
    for name, kind in expected.items():
        with stub(AWAY[name]) as server, Client(server.url, retries=0) as client:
            with pytest.raises(kind):
                client.lookup(agent_type="a", prompt="q")
            async with AsyncClient(server.url, retries=0) as async_client:
                with pytest.raises(kind):
                    await async_client.lookup(agent_type="a", prompt="q")


async def test_deadlines() -> None:
    with anyio.fail_after(10), stub(None) as server, Client(server.url, timeout_s=0.2) as client:
        with pytest.raises(DeadlineError):
            client.health()
        async with AsyncClient(server.url, timeout_s=60) as async_client:
            with pytest.raises(DeadlineError):
                await async_client.health(timeout_s=0.2)
    assert len(server.requests) == 2  # after a deadline nothing is sent again


async def test_what_is_sent_again() -> None:
    """A read after anything that passes; a store only by its lookup_id; what was turned away always."""
    busy = response(503, PROBLEM, "retry-after: 0")
    later = response(503, PROBLEM, "retry-after: 60")
    turned_away = response(429, b"{}", "retry-after: 0")
    stored = response(201, b'{"stored":true,"entry_id":"e"}')

    def lookup(client: Client) -> object:
        return client.lookup(agent_type="a", prompt="q")

    def waiting(client: Client) -> object:
        return client.lookup(agent_type="a", prompt="q", wait_s=1)

    def named(client: Client) -> object:
        return client.store(agent_type="a", prompt="q", response=1, lookup_id="1")

    def nameless(client: Client) -> object:
        return client.store(agent_type="a", prompt="q", response=1)

    def invalidated(client: Client) -> object:
        return client.invalidate({"agent_type": "a"})

    gone = response(200, b'{"matched":0,"deleted":0}')
    for call, answers, sent in [
        (lookup, [busy, b"", MISS], 3),
        (lookup, [busy, busy, busy, MISS], 3),
        (lookup, [later, MISS], 1),
        (waiting, [b"", MISS], 1),
        (waiting, [turned_away, MISS], 2),
        (named, [b"", stored], 2),
        (nameless, [b"", stored], 1),
        (nameless, [turned_away, stored], 2),
        (invalidated, [b"", gone], 1),
    ]:
        with stub(*answers) as server, Client(server.url) as client:
            try:
                call(client)
                whole = True
            except (BrokenError, ServerError):
                whole = False
        assert (len(server.requests), whole) == (sent, sent == len(answers)), (call.__name__, answers)


def test_answers_are_made_without_the_service_too() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:

        @cached_answer(agent_type="a", model="m", client=client)
        def answer(prompt: str) -> str:
            return prompt.upper()

        assert [answer("a"), answer("b")] == ["A", "B"]


def test_a_wrong_environment_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEMCACHED_URL", "localhost:8080")

    @cached_tool
    def tool(x: int) -> int:
        return x

    assert [tool(1), tool(2)] == [1, 2]
    assert caplog.text.count("SEMCACHED_URL") == 1


def test_a_service_without_redis_is_asked_and_gets_no_store() -> None:
    degraded = response(200, b'{"outcome":"miss","lookup_id":"1","reason":"degraded","lease":false}')
    with stub(LIVE, degraded) as server, Client(server.url) as client:
        tool, _ = tools(client, AsyncClient(server.url))
        assert [tool(1), tool(2)] == [1, 2]
        assert [one.split()[1] for one in server.requests] == [b"/livez", *[b"/v1/tools/lookup"] * 2]
        assert not client.breaker.rests


def test_a_proxy_of_the_environments_has_no_part_in_what_is_local(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with Client(url, connect_timeout_s=30) as client:
        assert client.health().ready
    with Client("http://semcached.invalid") as client, pytest.raises(UnreachableError):
        client.health()


def test_the_default_client_is_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    runs: list[int] = []

    @cached_tool(name=f"get_{os.getpid()}_{id(runs)}")
    def tool(x: int) -> int:
        runs.append(x)
        return x

    @cached_tool(name=f"get_{os.getpid()}_{id(runs)}")
    async def later(x: int) -> int:
        runs.append(x)
        return x

    assert tool(1) == 1
    for _ in range(3):  # a loop each
        assert asyncio.run(later(1)) == 1
    assert runs == [1]


def test_several_loops_one_after_the_other_and_at_once(url: str, agent: str) -> None:
    client = AsyncClient(url, connect_timeout_s=30)
    runs: list[int] = []

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    async def tool(x: int) -> int:
        runs.append(x)
        await asyncio.sleep(0.1)
        return x

    async def several() -> list[int]:
        return list(await asyncio.gather(*(tool(n % 3) for n in range(30))))

    wanted = [n % 3 for n in range(30)]
    assert asyncio.run(several()) == wanted
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: asyncio.run(several()), range(8))) == [wanted] * 8
    assert sorted(runs) == [0, 1, 2]
    assert asyncio.run(several()) == wanted
    assert len(client._by_loop) == 1  # those of ended loops are forgotten


def test_raw_requests_see_what_the_decorator_kept(url: str, agent: str, client: Client) -> None:
    """The wire, without our client: what other programs see."""

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30, version="7")
    def tool(x: int, y: str = "b") -> list[Any]:
        return [x, y]

    tool(1)
    asked = {"agent_type": agent, "tool": agent, "version": "7", "arguments": {"x": 1, "y": "b"}}
    assert httpx.post(f"{url}/v1/tools/lookup", json=asked).json()["result"] == [1, "b"]
