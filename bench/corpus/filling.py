"""A corpus into a Redis, as the service would have stored it: sealed records and index documents.

By the service's own store layer in this process, without HTTP and without the embedder: RediSearch's insert
is what takes the time. What is there already is left alone: a killed run is repeated, and a larger corpus
adds to a smaller one.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from tqdm import tqdm

from bench.corpus.entries import Corpus
from bench.corpus.neighbours import Numbers
from service import wiring
from service.api.auth import Role, StoredKey
from service.cache import canonical
from service.cache.digests import TenantKeys
from service.cache.ports import Budget, NewEntry, Tags
from service.model import QueryFields, Record, Tenant
from service.settings import KEY_PREFIX, Settings

SECRET = "a secret of the bench's corpus"  # noqa: S105 - of the bench
BATCH, AT_ONCE = 64, 4
REDIS_S = 60.0


class Filled(NamedTuple):
    """What it took. Bytes are Redis's used_memory."""

    entries: int
    stored: int  # now; the others were there
    seconds: float
    bytes_before: int
    bytes_after: int

    @property
    def entries_per_s(self) -> float:
        """Of those stored now."""
        return self.stored / max(self.seconds, 1e-9)

    @property
    def bytes_per_entry(self) -> float:
        """Of those stored now."""
        return (self.bytes_after - self.bytes_before) / max(self.stored, 1)


def filled(corpus: Corpus, redis_url: str, *, key_prefix: str = "sc") -> Filled:
    """Store what is missing, and say what it took; an empty Redis is set up first.

    A service with SECRET, that prefix and `write_keys`' file serves it.
    """
    return asyncio.run(fill(corpus, redis_url, key_prefix=key_prefix))


async def fill(corpus: Corpus, redis_url: str, *, key_prefix: str = "sc") -> Filled:
    """See `filled`."""
    settings = Settings(secret=SECRET, key_prefix=key_prefix, redis_timeout_s=REDIS_S)
    async with wiring.opened(settings, redis_url) as parts:
        await parts.attach(lambda _: None)
        before = await _used(parts)
        begun = time.perf_counter()
        bar: tqdm[Any] = tqdm(total=corpus.size, desc="stored", unit="entry", disable=None, leave=False)
        with bar:
            pages = batches(corpus)
            counts = await asyncio.gather(*(_filling(parts, corpus, pages, bar) for _ in range(AT_ONCE)))
        took = time.perf_counter() - begun
        return Filled(corpus.size, sum(counts), took, before, await _used(parts))


def batches(corpus: Corpus) -> Iterator[Numbers]:
    """Entries of one tenant each, at most BATCH."""
    for tenant in np.unique(corpus.tenants).tolist():
        members = corpus.members(tenant)
        for at in range(0, len(members), BATCH):
            yield members[at : at + BATCH]


async def _filling(
    parts: wiring.Parts,
    corpus: Corpus,
    pages: Iterator[Numbers],
    bar: "tqdm[Any]",
) -> int:
    """How many were stored of the batches that this one of several took."""
    stored = 0
    for page in pages:
        keys = parts.keyring.of(Tenant(corpus.name(int(corpus.tenants[page[0]]))))
        entries = [entry(parts, corpus, int(one), keys) for one in page]
        ids = [one.record.entry_id for one in entries]
        there = await parts.responses.records(keys, ids, Budget(REDIS_S))
        missing = [one for one, record in zip(entries, there, strict=True) if record is None]
        failed = [one for one in await parts.responses.put(keys, missing, Budget(REDIS_S)) if one is not None]
        if failed:
            raise RuntimeError(f"not stored: {failed[0]}")
        stored += len(missing)
        bar.update(len(page))
    return stored


def entry(parts: wiring.Parts, corpus: Corpus, number: int, keys: TenantKeys) -> NewEntry:
    """As `POST /v1/cache/store` makes it of agent_type, prompt and response, with `ttl_s` null."""
    generation = parts.responses.generation
    asked = QueryFields(agent_type=corpus.agent_type(int(corpus.tenants[number])), prompt=corpus.text(number))
    query = canonical.query(asked, keys, None)
    identity = query.identities[0]
    record = Record(
        entry_id=identity.entry_id,
        tenant=identity.tenant,
        scope=identity.scope,
        history=identity.history,
        agent_type=asked.agent_type,
        model=None,
        prompt_version=None,
        temperature=None,
        attributes={},
        text=query.text,
        messages=None,
        response=corpus.answer(number).encode(),
        metadata=b"null",
        sources=[],
        tags=[],
        usage=None,
        embedding=None if generation is None else generation.embedding,
        stored_at=wiring.now_ms(),
        expires_at=None,
    )
    tags = Tags(identity, None, None, attributes=list(query.marks), sources=[], tags=[])
    return NewEntry(record, tags, corpus.vector(number), ())


async def _used(parts: wiring.Parts) -> int:
    told: bytes = await parts.redis.call("INFO", "memory")
    lines = (line.partition(b":") for line in told.splitlines())
    return next(int(value) for name, _, value in lines if name == b"used_memory")


def api_key(tenant: int) -> str:
    """Of a tenant of the corpus: no secret."""
    return f"{KEY_PREFIX}bench-{tenant:05d}"


def write_keys(path: Path, corpus: Corpus, tenants: Iterable[int]) -> None:
    """A keys file that knows those tenants' keys, each an admin."""
    keys = [
        StoredKey(
            id=f"{tenant:08x}",
            tenant=corpus.name(tenant),
            role=Role.admin.name,
            sha256=hashlib.sha256(api_key(tenant).encode()).hexdigest(),
            created_at=int(time.time()),
        )
        for tenant in tenants
    ]
    path.write_bytes(msgspec.json.encode(keys))
