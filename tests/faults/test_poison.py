"""What lies in Redis is not believed: spoilt records, records of others, things that are no records."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.model import Hit, Stored, Tier
from service.telemetry import RECORDS_REFUSED
from service.wiring import Parts
from tests.helpers import accepted, asked, vector

pytestmark = pytest.mark.anyio

MUTATED = 20_000
BATCH = 250
ENTRIES = [{"prompt": f"p{n}", "agent_type": f"a{n % 3}", "embedding": vector(n)} for n in range(BATCH)]

Spoil = Callable[[random.Random, bytes, bytes], bytes]
"""From a record and another one, what is put in its place."""


def flipped(rng: random.Random, blob: bytes, _: bytes) -> bytes:
    spoilt = bytearray(blob)
    for at in rng.sample(range(8 * len(blob)), rng.randrange(1, 4)):
        spoilt[at // 8] ^= 1 << at % 8
    return bytes(spoilt)


def spliced(rng: random.Random, blob: bytes, other: bytes) -> bytes:
    """The MAC of one over the body of the other."""
    at = rng.choice([1, 33, rng.randrange(1, len(blob))])
    return blob[:at] + other[at:]


SPOILS: list[Spoil] = [
    flipped,
    flipped,
    lambda rng, blob, _: blob[: rng.randrange(len(blob))],
    lambda rng, blob, _: blob + rng.randbytes(rng.randrange(1, 9)),
    lambda rng, blob, _: rng.randbytes(len(blob)),
    lambda rng, blob, _: bytes([rng.randrange(2, 256)]) + blob[1:],
    lambda _, __, other: other,
    spliced,
]


async def kept(parts: Parts, keys: TenantKeys) -> list[str]:
    """The ids of the entries, stored anew."""
    stores = [accepted(keys, parts, str(n), **entry) for n, entry in enumerate(ENTRIES)]
    receipts = await parts.store.answer(stores, keys)
    return [receipt.entry_id for receipt in receipts if isinstance(receipt, Stored)]


async def served(parts: Parts, keys: TenantKeys, tier: Tier) -> Counter[bool]:
    """How many were hits, and whether each got its own answer."""
    questions = [asked(keys, parts, tiers=[tier], **entry) for entry in ENTRIES]
    answers = await parts.lookup.answer(questions, keys)
    hits = ((n, answer) for n, answer in enumerate(answers) if isinstance(answer, Hit))
    return Counter(bytes(answer.response) == str(n).encode() for n, answer in hits)


def refused() -> float:
    """Records not believed, so far."""
    return sum(
        sample.value
        for metric in RECORDS_REFUSED.collect()
        for sample in metric.samples
        if "total" in sample.name
    )


async def test_a_spoilt_record_is_not_served(parts: Parts, redis: Redis, prefix: str) -> None:
    rng = random.Random(5)  # noqa: S311 - repeatable on purpose
    acme, other = parts.keyring.of(operator("acme")), parts.keyring.of(operator("other"))
    others_key = f"{prefix}:{{0}}:responses:record:{(await kept(parts, other))[0]}"
    others: bytes = redis.get(others_key)  # type: ignore[assignment] # redis-py can't say which client
    ids = await kept(parts, acme)
    records = [f"{prefix}:{{0}}:responses:record:{one}" for one in ids]
    whole = cast("list[bytes]", redis.mget(records))
    before = refused()
    for tier in Tier:  # the control: as they are, all are served
        assert await served(parts, acme, tier) == {True: BATCH}
    for _ in range(MUTATED // BATCH):
        blobs = {}
        for n, record in enumerate(records):
            stranger = others if rng.random() < 0.5 else whole[(n + rng.randrange(1, BATCH)) % BATCH]
            blobs[record] = whole[n]
            while blobs[record] == whole[n]:  # two records may end alike
                blobs[record] = rng.choice(SPOILS)(rng, whole[n], stranger)
        redis.mset(blobs)
        for tier in Tier:
            assert await served(parts, acme, tier) == {}
    assert refused() - before == 2 * MUTATED


async def test_things_of_another_type(parts: Parts, redis: Redis, prefix: str) -> None:
    keys = parts.keyring.of(operator("acme"))
    ids = await kept(parts, keys)
    for n, entry_id in enumerate(ids):
        record = f"{prefix}:{{0}}:responses:record:{entry_id}"
        redis.unlink(record)
        [
            lambda key: redis.rpush(key, "x"),
            lambda key: redis.hset(key, "x", "y"),
            lambda key: redis.sadd(key, "x"),
            lambda key: redis.zadd(key, {"x": 1}),
            lambda key: redis.xadd(key, {"x": "y"}),
        ][n % 5](record)
    for tier in Tier:
        assert await served(parts, keys, tier) == {}
    await kept(parts, keys)  # a store puts things right
    for tier in Tier:
        assert await served(parts, keys, tier) == {True: BATCH}


async def test_a_document_that_points_elsewhere(parts: Parts, redis: Redis, prefix: str) -> None:
    """A foreign writer passes each document off as another scope's, at similarity 1."""
    keys = parts.keyring.of(operator("acme"))
    ids = await kept(parts, keys)
    documents = [f"{prefix}:{{0}}:responses:document:1:{one}" for one in ids]
    tags: list[Any] = [redis.hgetall(one) for one in documents]
    for n, document in enumerate(documents):
        redis.hset(document, mapping=tags[n // 3 * 3 + (n + 1) % 3 if n < BATCH - 1 else n])
    assert await served(parts, keys, Tier.SEMANTIC) == {True: 1}  # the last was left as it was
