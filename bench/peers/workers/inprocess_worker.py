"""Ours without HTTP: the service's own lookup in this process, over the Redis that the service fills."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import uvloop

from bench.peers.workers.harness import Floats, Given, Part, main
from bench.peers.workers.http_worker import coded, table_of
from service.cache.store import Accepted
from service.model import Hit, LookupRequest, Stored, StoreRequest
from service.settings import Settings
from service.wiring import Parts
from service.wiring import opened as parts_opened

TENANT = "default"


class Inprocess:
    """A call of the lookup, as the HTTP handler does it."""

    def __init__(self, given: Given, parts: Parts) -> None:
        self.threshold, self.parts = given.threshold, parts
        self.keys = parts.keyring.of(TENANT)
        self.table: dict[str, tuple[str, Floats]] = {}

    async def prepare(self, part: Part) -> None:
        self.table = table_of(part)

    async def fill(self, part: Part) -> None:
        """The service's entries are its own."""

    async def lookup(self, text: str) -> str | None:
        agent_type, vector = self.table[text]
        request = LookupRequest(
            agent_type=agent_type, prompt=text, embedding=coded(vector), threshold=self.threshold
        )
        question = self.parts.lookup.question(request, self.keys)
        (answer,) = await self.parts.lookup.answer([question], self.keys)
        return msgspec.json.decode(answer.response, type=str) if isinstance(answer, Hit) else None

    async def store(self, text: str, answer: str) -> None:
        agent_type, vector = self.table[text]
        request = StoreRequest(
            agent_type=agent_type,
            prompt=text,
            embedding=coded(vector),
            response=msgspec.Raw(msgspec.json.encode(answer)),
        )
        accepted = self.parts.store.accept(request, self.keys)
        if isinstance(accepted, Accepted):
            (stored,) = await self.parts.store.answer([accepted], self.keys)
            if isinstance(stored, Stored):
                return
        raise SystemExit(f"not stored: {accepted}")

    async def size(self) -> None:
        return None


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Inprocess]:
    """`given.target`: a Redis, and after a space the folder of the service, which has the secret."""
    url, _, folder = given.target.partition(" ")
    settings = Settings(data_dir=given.place / folder, verifier="off", redis_timeout_s=5.0)
    async with parts_opened(settings, url) as parts:
        await parts.attach(print)
        yield Inprocess(given, parts)


if __name__ == "__main__":
    main(opened, ["semcached-server", "redis", "hiredis"], uvloop.run)
