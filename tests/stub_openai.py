"""An embeddings API on a real socket that does what a test wants of it."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import numpy as np
from numpy.typing import NDArray

DIM = 16


def unit(text: str, dim: int = DIM) -> NDArray[np.float32]:
    """A text's own vector, of norm 1."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    values = np.random.default_rng(seed).normal(size=dim)
    return (values / np.linalg.norm(values)).astype(np.float32)


@dataclass
class Reply:
    """What goes out; `cut` bytes of the body are missing though announced."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


Mode = Callable[[list[str]], Reply]


def rows(texts: list[str], *, plain: bool = False, dim: int = DIM) -> list[dict[str, Any]]:
    return [_item(at, unit(text, dim), plain=plain) for at, text in enumerate(texts)]


def _item(at: int, vector: NDArray[Any], *, plain: bool = False) -> dict[str, Any]:
    coded: Any = vector.tolist() if plain else base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return {"object": "embedding", "index": at, "embedding": coded}


def answer(data: Any, **more: Any) -> Reply:
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    body = json.dumps({"object": "list", "model": "m", "data": data, "usage": usage})
    return Reply(body.encode(), **more)


def failure(status: int, retry_after: str | None = None) -> Mode:
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-te****", "type": "t"}}).encode()
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda _: Reply(body, status, headers)


def filled(value: float, *, plain: bool = False) -> Mode:
    """Vectors with one odd value in all places."""
    return lambda texts: answer(
        [_item(at, np.full(DIM, value, np.float32), plain=plain) for at in range(len(texts))]
    )


def ok(texts: list[str]) -> Reply:
    return answer(rows(texts))


def ok_list(texts: list[str]) -> Reply:
    return answer(rows(texts, plain=True))


def reversed_with_indexes(texts: list[str]) -> Reply:
    return answer(rows(texts)[::-1])


BAD: dict[str, Mode] = {
    "429": failure(429),
    "429 NaN": failure(429, "NaN"),
    "429 -1": failure(429, "-1"),
    "429 inf": failure(429, "inf"),
    "429 1e9": failure(429, "1e9"),
    "429 date": failure(429, "Wed, 21 Oct 2099 07:28:00 GMT"),
    "429 date past": failure(429, "Wed, 21 Oct 2015 07:28:00 GMT"),
    "429 garbage": failure(429, "soon"),
    "500": failure(500),
    "503 0": failure(503, "0"),
    "400": failure(400),
    "401": failure(401),
    "408": failure(408),
    "redirect": lambda _: Reply(b"", 307, {"Location": "/v1/embeddings/"}),
    "NaN": filled(np.nan),
    "NaN list": filled(np.nan, plain=True),
    "inf": filled(np.inf),
    "-inf list": filled(-np.inf, plain=True),
    "zero": filled(0.0),
    "norm 1e6": filled(1e6 / DIM**0.5),
    "norm 1e-6": filled(1e-6),
    "overflow list": lambda texts: answer(
        [_item(at, np.full(DIM, 1e308), plain=True) for at in range(len(texts))]
    ),
    "dimension": lambda texts: answer(rows(texts, dim=DIM + 1)),
    "two dimensions": lambda texts: answer([*rows(texts)[:-1], _item(len(texts) - 1, unit("x", DIM - 1))]),
    "too many": lambda texts: answer(rows([*texts, "one more"])),
    "too few": lambda texts: answer(rows(texts)[:-1]),
    "none": lambda _: answer([]),
    "duplicate index": lambda texts: answer([row | {"index": 0} for row in rows(texts)]),
    "index from 1": lambda texts: answer([row | {"index": row["index"] + 1} for row in rows(texts)]),
    "no index": lambda texts: answer([{"embedding": row["embedding"]} for row in rows(texts)]),
    "empty vectors": lambda texts: answer([_item(at, np.empty(0)) for at in range(len(texts))]),
    "no base64": lambda texts: answer([row | {"embedding": "?" * 64} for row in rows(texts)]),
    "odd base64": lambda texts: answer([row | {"embedding": "AAAAAAA="} for row in rows(texts)]),
    "words": lambda texts: answer([row | {"embedding": ["a"] * DIM} for row in rows(texts)]),
    "null": lambda texts: answer([row | {"embedding": None} for row in rows(texts)]),
    "html": lambda _: Reply(b"<html>log in</html>", headers={"Content-Type": "text/html"}),
    "other json": lambda _: Reply(b'{"status": "ok"}'),
    "no object": lambda _: Reply(b"[1, 2]"),
    "empty": lambda _: Reply(b""),
    "deep": lambda _: Reply(b'{"x":' + b"[" * 100_000),
    "not utf-8": lambda _: Reply(b'{"data": "\xff"}'),
    "truncated": lambda texts: Reply(ok(texts).body, cut=20),
    "truncated json": lambda texts: Reply(ok(texts).body[:-20]),
    "no gzip": lambda texts: Reply(ok(texts).body, headers={"Content-Encoding": "gzip"}),
}


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not holds():
            await anyio.sleep(0.01)


class Stub:
    """The server: what it answers with, and what it saw."""

    def __init__(self) -> None:
        self.mode: Mode = ok
        self.hold: asyncio.Event | None = None  # requests wait for it
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.inside = self.most_inside = 0
        self.connections: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def calls(self) -> int:
        return len(self.requests)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, body: dict[str, Any]) -> list[str]:
        texts: list[str] = body["input"]
        return texts

    async def start(self) -> None:
        """Listen, again on the port it had."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """From now on, connections are refused; those that are open end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self.connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while self._server is not None:
                await self._request(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        self.requests.append((headers, body))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if self.hold is not None:
                await self.hold.wait()
            reply = self.mode(self.asked(body))
        finally:
            self.inside -= 1
        head = {"Content-Type": "application/json", "Content-Length": str(len(reply.body))} | reply.headers
        told = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(
            f"HTTP/1.1 {reply.status} x\r\n{told}\r\n".encode() + reply.body[: len(reply.body) - reply.cut]
        )
        await writer.drain()
        if reply.cut:
            raise ConnectionError


S = TypeVar("S", bound=Stub)


@asynccontextmanager
async def running(stub: S) -> AsyncIterator[S]:
    """Any stub, until its clients have gone."""
    await stub.start()
    try:
        yield stub
    finally:
        if stub.hold is not None:
            stub.hold.set()
        await stub.stop()
        await until(lambda: not stub.connections)  # their clients are closed by now
