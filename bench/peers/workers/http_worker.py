"""Ours over HTTP, on one kept-alive connection; a call encodes the request and decodes the answer.

Form `raw`: sockets, as an agent in any language could at best. Form `client`: our Python client, synchronous.
"""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from bench.peers.workers.harness import Floats, Given, Part, main
from bench.raw import Connection, connected
from semcached import Client
from semcached.model import Hit

BATCH = 100  # within what a body may have

_encoded = msgspec.json.Encoder().encode


class Http:
    """Form `raw`."""

    def __init__(self, given: Given, stack: AsyncExitStack) -> None:
        self.threshold, self.port, self.stack = given.threshold, int(given.target), stack
        self.connection: Connection
        self.table: dict[str, tuple[str, Floats]] = {}

    async def prepare(self, part: Part) -> None:
        """Connected anew: the service closes what is idle while others have their turn."""
        await self.stack.aclose()
        self.connection = await self.stack.enter_async_context(connected(self.port))
        self.connection.send(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        await self.connection.answer()
        self.table = table_of(part)

    async def fill(self, part: Part) -> None:
        await self.prepare(part)
        entries = [self._entry(*one) for one in zip(part.texts, part.answers, strict=True)]
        for begin in range(0, len(entries), BATCH):
            answer = await self._post("store/batch", {"items": entries[begin : begin + BATCH]})
            failed = [one for one in answer["items"] if not one.get("stored")]
            if failed:
                raise SystemExit(f"not stored: {failed[0]}")

    async def lookup(self, text: str) -> str | None:
        answer = await self._post("lookup", self._query(text) | {"threshold": self.threshold})
        served: str | None = answer.get("response")
        return served

    async def store(self, text: str, answer: str) -> None:
        await self._post("store", self._entry(text, answer))

    async def size(self) -> None:
        return None

    def _query(self, text: str) -> dict[str, Any]:
        agent_type, vector = self.table[text]
        return {"agent_type": agent_type, "prompt": text, "embedding": coded(vector)}

    def _entry(self, text: str, answer: str) -> dict[str, Any]:
        return self._query(text) | {"response": answer}

    async def _post(self, call: str, body: dict[str, Any]) -> Any:
        answer = await self.connection.post(f"/v1/cache/{call}", _encoded(body))
        if answer.status >= 300:
            raise SystemExit(f"{call}: {answer.status} {answer.body.decode()}")
        return msgspec.json.decode(answer.body)


class ByClient(Http):
    """Form `client`."""

    def __init__(self, given: Given, stack: AsyncExitStack) -> None:
        super().__init__(given, stack)
        self.client = Client(f"http://127.0.0.1:{given.target}")

    async def lookup(self, text: str) -> str | None:
        agent_type, vector = self.table[text]
        found = self.client.lookup(
            agent_type=agent_type, prompt=text, embedding=coded(vector), threshold=self.threshold
        )
        return found.response if isinstance(found, Hit) else None

    async def store(self, text: str, answer: str) -> None:
        agent_type, vector = self.table[text]
        self.client.store(agent_type=agent_type, prompt=text, embedding=coded(vector), response=answer)


def table_of(part: Part) -> dict[str, tuple[str, Floats]]:
    """By text: its agent_type, which stands for the work's tenant (it filters alike), and its vector."""
    return dict(zip(part.texts, zip(part.tenants, part.vectors, strict=True), strict=True))


def coded(vector: Floats) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Http]:
    async with AsyncExitStack() as stack:
        yield (ByClient if given.form == "client" else Http)(given, stack)


if __name__ == "__main__":
    main(opened, ["semcached-server", "semcached", "redis", "hiredis"])
