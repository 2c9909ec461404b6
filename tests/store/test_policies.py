"""Policies in Redis: who is believed, what survives."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from redis import Redis

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.errors import StoreUnavailableError
from service.model import Hit, Miss, Origin, Policy, Reason, Refused, StoreRequest
from service.settings import Settings
from service.store.policies import Body, field_of, sealed
from service.telemetry import POLICIES_REFUSED
from service.wiring import Loaded, Parts, opened
from tests.helpers import keep, look

pytestmark = pytest.mark.anyio

OLD, NEW = "the older secret, 16+", "the newer secret, 16+"
KEPT, REWORDED = "How do I reset my password?", "How can I reset my password?"


@asynccontextmanager
async def service(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


def acme(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def put(parts: Parts, threshold: float, agent_type: str = "a") -> None:
    await parts.policies.put(acme(parts), agent_type, msgspec.json.encode({"threshold": threshold}))


def threshold(parts: Parts, agent_type: str = "a") -> float | None:
    policy = parts.policies.of(acme(parts), agent_type)
    assert policy is not None
    return policy.threshold


def refused(why: str) -> float:
    return float(POLICIES_REFUSED.labels(why)._value.get())


class Lying:
    """The hash that the policies of the only partition lie in."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self.key = f"{settings.key_prefix}:{{0}}:policies"

    def values(self) -> dict[bytes, bytes]:
        return dict(self._redis.hgetall(self.key))  # type: ignore[arg-type] # redis-py: maybe awaitable

    def write(self, field: bytes, value: bytes) -> None:
        self._redis.hset(self.key, field, value)
        self._redis.set(self.key + ":version", "changed")


@pytest.fixture
def lying(redis: Redis, settings: Settings) -> Lying:
    return Lying(redis, settings)


async def test_a_restart_finds_them(settings: Settings, models: Loaded) -> None:
    async with service(settings, models) as parts:
        assert parts.policies.of(acme(parts), "a") == Policy()
        await put(parts, 0.5)
        await put(parts, 0.6, "b")
        await put(parts, 0.7)
    async with service(settings, models) as parts:
        assert (threshold(parts), threshold(parts, "b")) == (0.7, 0.6)
        assert parts.policies.of(parts.keyring.of(operator("Acme")), "a") == Policy()
        assert parts.policies.of(acme(parts), "A") == Policy()


async def test_names_and_thresholds_lie_sealed(settings: Settings, models: Loaded, lying: Lying) -> None:
    async with service(settings, models) as parts:
        await put(parts, 0.5, "a very long name of an agent_type")
        ((field, _),) = lying.values().items()
        assert len(field) == 32
        assert b"agent" not in field


@pytest.mark.parametrize("harm", ["flipped", "cut", "rubbish", "moved", "other secret's"])
async def test_what_cant_be_believed_closes_the_semantic_tier(
    settings: Settings, models: Loaded, lying: Lying, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(settings, models) as parts:
        await put(parts, 0.5)
        await put(parts, 0.5, "b")
        await keep(parts, acme(parts), prompt=KEPT)
        field, other = (field_of(acme(parts).current, "responses", one) for one in ("a", "b"))
        stranger = replace(parts.settings, secret=OLD)
    values = lying.values()
    blob = values[field]
    if harm == "other secret's":
        async with opened(stranger, stranger.redis_url or "", models) as strangers:
            body = Body(operator("acme"), "a", 1, b"{}")
            blob = sealed(body, acme(strangers).current)
    done = {
        "flipped": (blob.replace(b"0.5", b"0.1"), "mac"),
        "cut": (blob[:-1], "form"),
        "rubbish": (b"x", "form"),
        "moved": (values[other], "id"),
        "other secret's": (blob, "mac"),
    }
    value, why = done[harm]
    lying.write(field, value)
    before = refused(why)
    async with service(settings, models) as parts:
        keys = acme(parts)
        assert parts.policies.of(keys, "a") is None
        assert threshold(parts, "b") == 0.5
        miss = await look(parts, keys, prompt=REWORDED, threshold=0.1, explain=True)
        assert isinstance(miss, Miss)
        assert (miss.reason, miss.rule) == (Reason.POLICY, "unreadable")
        assert isinstance(miss.decision, msgspec.Struct)
        assert miss.decision.policy is None
        assert isinstance(await look(parts, keys, prompt=REWORDED, tiers=["semantic"]), Miss)
        miss = await look(parts, keys, prompt="unknown", tiers=["exact"])
        assert isinstance(miss, Miss)
        assert miss.reason is Reason.EMPTY
        assert isinstance(await look(parts, keys, prompt=KEPT), Hit)
        request = StoreRequest(agent_type="a", prompt="new", response=msgspec.Raw(b"1"))
        refused_store = parts.store.accept(request, keys)
        assert refused_store == Refused(stored=False, reason="unreadable")
        with pytest.raises(StoreUnavailableError, match="PUT it again"):
            parts.lookup.policy(keys, "a")
        for version in (b"1", b"2"):
            lying._redis.set(lying.key + ":version", version)
            await parts.policies.refresh()
        assert refused(why) == before + (harm != "moved")
        warned = [one for one in caplog.records if one.name == "service.store.policies"]
        assert len(warned) == (harm != "moved")
        await put(parts, 0.8)
        hit = await look(parts, keys, prompt=REWORDED)
        assert isinstance(hit, Hit)
        assert (hit.tier, hit.threshold) == (Origin.SEMANTIC, 0.8)
    async with service(settings, models) as parts:
        assert threshold(parts) == 0.8


async def test_a_running_process_keeps_and_mends_what_it_knew(
    settings: Settings, models: Loaded, lying: Lying
) -> None:
    async with service(settings, models) as parts:
        await put(parts, 0.5)
        field = field_of(acme(parts).current, "responses", "a")
        older = lying.values()[field]
        await put(parts, 0.99)
        newest = lying.values()[field]
        for harm in (older, b"x", newest[:-1]):
            lying.write(field, harm)
            await parts.policies.refresh()
            assert threshold(parts) == 0.99
            assert lying.values() == {field: newest}
        lying._redis.delete(lying.key)
        await parts.policies.refresh()
        assert lying.values() == {field: newest}


async def test_what_another_version_set_is_left_alone(
    settings: Settings, models: Loaded, lying: Lying
) -> None:
    async with service(settings, models) as parts:
        await put(parts, 0.5)
        keys, before = acme(parts), refused("fields")
        later = sealed(Body(keys.tenant, "a", 2**60, b'{"threshold":0.5,"new":1}'), keys.current)
        lying.write(field_of(keys.current, "responses", "a"), later)
        await parts.policies.refresh()
        assert parts.policies.of(keys, "a") is None
        assert list(lying.values().values()) == [later]
        assert refused("fields") == before + 1
        await put(parts, 0.6)
        assert threshold(parts) == 0.6
    async with service(settings, models) as parts:
        assert threshold(parts) == 0.6


@pytest.mark.parametrize(
    "given", [b'{"bypass":[{"pattern":"("}]}', b'{"ttl_rules":[{"pattern":"a{1001}","ttl_s":1}]}']
)
async def test_a_pattern_of_another_version_makes_no_400_of_a_lookup(
    settings: Settings, models: Loaded, lying: Lying, given: bytes
) -> None:
    async with service(settings, models) as parts:
        keys = acme(parts)
        await put(parts, 0.5)
        lying.write(
            field_of(keys.current, "responses", "a"),
            sealed(Body(keys.tenant, "a", 2**60, given), keys.current),
        )
        await parts.policies.refresh()
        assert parts.policies.of(keys, "a") is None
        miss = await look(parts, keys, prompt=KEPT)
        assert isinstance(miss, Miss)
        assert (miss.reason, miss.rule) == (Reason.POLICY, "unreadable")


async def test_what_was_left_open_is_not_kept(settings: Settings, models: Loaded, lying: Lying) -> None:
    """So that older versions read what doesn't use new fields, and later defaults hold."""
    async with service(settings, models) as parts:
        await put(parts, 0.5)
        (blob,) = lying.values().values()
        assert b'{"threshold":0.5}' in blob


async def test_the_last_change_wins_also_where_clocks_differ(
    settings: Settings, models: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(settings, models) as first, service(settings, models) as second:
        monkeypatch.setattr(second.policies, "_clock", lambda: 1)
        for writer, reader, one in [(first, second, 0.1), (second, first, 0.2), (first, second, 0.3)]:
            await put(writer, one)
            await reader.policies.refresh()
            await writer.policies.refresh()
            assert (threshold(reader), threshold(writer)) == (one, one)
    async with service(settings, models) as third:
        assert threshold(third) == 0.3


async def test_a_rotation_of_the_secret_keeps_them(
    settings: Settings, models: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    """No request has to ask for them in between."""
    only_old, both = replace(settings, secret=OLD), replace(settings, secret=OLD, previous_secret=NEW)
    turned, only_new = replace(settings, secret=NEW, previous_secret=OLD), replace(settings, secret=NEW)
    async with service(only_old, models) as parts:
        await put(parts, 0.5)
        await put(parts, 0.6, "b")
    async with service(both, models) as first, service(turned, models) as second:
        assert (threshold(first), threshold(second)) == (0.5, 0.5)
        for writer, reader, one in [(second, first, 0.7), (first, second, 0.8), (first, second, 0.9)]:
            await put(writer, one)
            await reader.policies.refresh()
            assert threshold(reader) == one
    async with service(only_new, models) as parts:
        assert (threshold(parts), threshold(parts, "b")) == (0.9, 0.6)
        await put(parts, 0.95)
    async with service(only_new, models) as parts:
        assert threshold(parts) == 0.95
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_each_partition_has_its_own(settings: Settings, models: Loaded, redis: Redis) -> None:
    tenants = [operator(f"tenant {n}") for n in range(8)]
    async with service(replace(settings, partitions=3), models) as parts:
        for at, tenant in enumerate(tenants):
            given = msgspec.json.encode({"threshold": at / 10})
            await parts.policies.put(parts.keyring.of(tenant), "a", given)
    assert len(list(redis.scan_iter(f"{settings.key_prefix}:{{*}}:policies"))) == 3
    async with service(settings, models) as parts:
        found = [parts.policies.of(parts.keyring.of(tenant), "a") for tenant in tenants]
        assert [None if one is None else one.threshold for one in found] == [n / 10 for n in range(8)]


async def test_nothing_is_served_before_they_are_known(
    settings: Settings, models: Loaded, redis: Redis, lying: Lying
) -> None:
    async with service(settings, models) as parts:
        await put(parts, 0.999)
        await keep(parts, acme(parts), prompt=KEPT)
    kept: Any = redis.dump(lying.key)
    redis.delete(lying.key)
    redis.set(lying.key, "no hash")
    async with opened(settings, settings.redis_url or "", models) as parts:
        with pytest.raises(StoreUnavailableError):
            await parts.attach(lambda _: None)
        answer = await look(parts, acme(parts), prompt=REWORDED)
        assert isinstance(answer, Miss)
        assert answer.reason is Reason.DEGRADED
        with pytest.raises(StoreUnavailableError, match="readyz"):
            await put(parts, 0.5)
        redis.restore(lying.key, 0, kept, replace=True)
        await parts.attach(lambda _: None)
        answer = await look(parts, acme(parts), prompt=REWORDED)
        assert isinstance(answer, Miss)
        assert answer.reason is Reason.BELOW_THRESHOLD
