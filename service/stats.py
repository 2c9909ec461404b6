"""`semcached stats`: the table of /v1/stats, read from Redis by itself."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from service.cache.digests import Keyring
from service.cache.figures import Keyspace, Latency, Stats
from service.errors import LayoutError, SecretMismatchError
from service.model import Generation, Tenant
from service.settings import Settings
from service.store.client import RedisClient, connected
from service.store.keys import Keys
from service.store.layout import read_generation, read_layout
from service.store.responses import RedisResponses
from service.wiring import keyring_of, ledger_of

PATIENCE_S = 5.0
Row = tuple[str, str]


async def read(settings: Settings, url: str, tenant: Tenant) -> Stats:
    """A tenant's figures, without a service.

    Raises:
        StoreUnavailableError: Redis does not answer.
        StartupError: it was never set up, or under another secret.
    """
    async with reading(settings, url) as (redis, keys, keyring, responses, _):
        ledger, _ = ledger_of(settings, redis, keys, keyring, responses)
        return await ledger.stats(keyring.of(tenant), None)


class Reading(NamedTuple):
    """A Redis that is looked at by itself."""

    redis: RedisClient
    keys: Keys
    keyring: Keyring
    responses: RedisResponses
    generation: Generation


@asynccontextmanager
async def reading(settings: Settings, url: str) -> AsyncIterator[Reading]:
    """What a command needs that runs beside the service.

    Raises:
        StoreUnavailableError: Redis does not answer.
        StartupError: it was never set up, or under another secret.
    """
    keys, keyring = Keys(settings.key_prefix), keyring_of(settings)
    async with connected(url, PATIENCE_S, keys.meta("probe")) as redis:
        layout, generation = await read_layout(redis, keys), await read_generation(redis, keys)
        if layout is None or generation is None:
            raise LayoutError("nothing was set up in this Redis yet")
        _check(layout.secret_fingerprint, keyring)
        responses = RedisResponses(redis, keys)
        responses.follow(layout, generation)
        yield Reading(redis, keys, keyring, responses, generation)


def _check(fingerprint: str, keyring: Keyring) -> None:
    if fingerprint not in keyring.fingerprints:
        raise SecretMismatchError("this Redis was written under another secret: set SEMCACHED_SECRET to it")


def table(tenant: Tenant, stats: Stats) -> str:
    """For people."""
    rows = [("tenant", tenant), ("counted since", stats.since or "nothing was counted"), *_rows(stats)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _rows(stats: Stats) -> Iterator[Row]:
    yield from _keyspace("", stats)
    for name in ("tools", "embeddings"):
        keyspace: Keyspace = getattr(stats, name)
        if keyspace.requests or keyspace.stores.stored:
            yield from _keyspace(f"{name} ", keyspace)
    for stage, latency in stats.stages_ms.items():
        yield f"stage {stage}, ms", _times(latency)
    money, tokens = stats.money, stats.tokens
    yield "tokens saved", f"{tokens.saved_input} of questions, {tokens.saved_output} of answers"
    yield "money saved", f"{money.saved_usd:.6f} USD; {money.unpriced_hits} hits without a price"
    yield "money spent", f"{money.spent_usd:.6f} USD for {tokens.embedded} tokens embedded"
    told = f"{money.provider_saved_usd:.6f} USD; {tokens.provider_cached} tokens from their prompt caches"
    yield "saved by providers", told
    yield "net", f"{money.net_usd:.6f} USD, list prices as of {stats.prices}"
    yield from _stock(stats)
    for agent_type, short in (stats.agent_types or {}).items():
        told = f"{short.requests} requests, {short.hits} hits, {short.stored} stored"
        yield f"agent_type {agent_type!r}", f"{told}, saved {short.saved_usd:.6f} USD"
    if stats.others is not None:
        yield "other agent_types", f"{stats.others.requests} requests, {stats.others.hits} hits"


def _keyspace(prefix: str, one: Keyspace) -> Iterator[Row]:
    rate = "" if one.hit_rate is None else f", {one.hit_rate:.1%} of them hits"
    yield f"{prefix}requests", f"{one.requests}{rate}"
    for words, counts in (("hits", one.hits), ("misses", one.misses), ("missed by rule", one.rules)):
        if counts:
            yield f"{prefix}{words}", _counts(counts)
    stores = one.stores
    refused = f" ({_counts(stores.refused)})" if stores.refused else ""
    told = f"{stores.stored} stored, {sum(stores.refused.values())} refused{refused}, {stores.failed} failed"
    yield f"{prefix}stores", told
    for what, latency in one.latency_ms.items():
        yield f"{prefix}{what}, ms", _times(latency)


def _stock(stats: Stats) -> Iterator[Row]:
    if stats.bytes is None:
        return
    told = f"{stats.entries} responses, {stats.tools.entries} tools, {stats.embeddings.entries} embeddings"
    yield "entries", told
    yield "scopes", f"{'at least ' if stats.sampled else ''}{stats.scopes}"
    yield "bytes", f"{stats.bytes}{', from a sample' if stats.sampled else ''}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def _times(latency: Latency) -> str:
    return f"p50 {latency.p50:g}, p90 {latency.p90:g}, p99 {latency.p99:g} ({latency.count})"
