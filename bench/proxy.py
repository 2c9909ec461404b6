"""A TCP proxy in front of Redis that delays, plants replies nobody asked for, and cuts connections."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Passes bytes on, after up to `delay_s`, and does to replies what it is told to."""

    def __init__(self, upstream: str, delay_s: float = 0.0, seed: int = 0) -> None:
        """`upstream` is a redis:// URL; `url` the same by way of the proxy, once it listens."""
        self._upstream = urlsplit(upstream)
        self._delay_s = delay_s
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._tasks: set[asyncio.Task[None]] = set()
        self.plants: list[bytes] = []  # each goes before the next reply, on whatever connection
        self.planted = 0
        self.cut = 0.0  # share of the replies in whose place their connection ends
        self.cut_after: int | None = None  # of the next reply so many bytes come, then its connection ends
        self.hold: bytes | None = None  # the next request with these bytes waits for `go`
        self.go = asyncio.Event()
        self.url = ""

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A caller has come."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pumps: list[asyncio.Task[None]] = []
        writers = [writer]
        try:
            up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
            writers.append(up_writer)
            pumps += [
                asyncio.create_task(self._pump(reader, up_writer, replies=False)),
                asyncio.create_task(self._pump(up_reader, writer, replies=True)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for one in writers:
                one.close()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while chunk := await reader.read(65536):
            if self._delay_s:
                await asyncio.sleep(self._random.uniform(0, self._delay_s))
            if replies and self._random.random() < self.cut:
                return
            if not replies and self.hold is not None and self.hold in chunk:
                self.hold = None
                await self.go.wait()
            if replies and self.plants:
                writer.write(self.plants.pop())
                self.planted += 1
            if replies and self.cut_after is not None:
                writer.write(chunk[: self.cut_after])
                self.cut_after = None
                return
            writer.write(chunk)
            await writer.drain()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def close(self) -> None:
        """Cut every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(upstream: str, delay_s: float = 0.0, seed: int = 0) -> AsyncIterator[Proxy]:
    """A proxy that listens on a free port of loopback."""
    proxy = Proxy(upstream, delay_s, seed)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    parts = urlsplit(upstream)
    login = parts.netloc.rpartition("@")[0]
    netloc = f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"
    proxy.url = urlunsplit(parts._replace(netloc=netloc))
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
