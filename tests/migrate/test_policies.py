"""A threshold chosen for one model's similarities isn't applied to another's, but where it is stricter."""

import msgspec
import pytest
from msgspec import Struct
from redis import Redis

from service import migrate
from service.cache.digests import MAC_BYTES, TenantKeys
from service.model import Decision, Hit, Policy, Tenant
from service.settings import Settings
from service.store.chosen import name
from service.store.keys import Keys
from service.store.policies import RESPONSES, VERSION, field_of
from service.wiring import Loaded, Parts, opened
from tests.helpers import keep, look
from tests.migrate.test_models import QUESTIONS, hand, keys, others
from tests.migrate.test_moving import QUIET

pytestmark = pytest.mark.anyio

__all__ = ["hand", "keys", "others"]  # fixtures


class EarlierBody(Struct, frozen=True, array_like=True):
    """As releases read and wrote it that noted no model."""

    tenant: Tenant
    agent_type: str
    number: int
    given: bytes
    kind: str = RESPONSES


async def put(parts: Parts, keys: TenantKeys, agent_type: str, threshold: float) -> None:
    await parts.policies.put(keys, agent_type, msgspec.json.encode({"threshold": threshold}))


def put_earlier(redis: Redis, parts: Parts, keys: TenantKeys, agent_type: str, threshold: float) -> None:
    """By an earlier release."""
    given = msgspec.json.encode({"threshold": threshold})
    earlier = msgspec.msgpack.encode(EarlierBody(keys.tenant, agent_type, 1, given))
    mac = keys.current.mac(b"policy" + VERSION + earlier)
    kept = Keys(parts.settings.key_prefix)
    redis.hset(kept.policies(0), field_of(keys.current, RESPONSES, agent_type), VERSION + mac + earlier)
    redis.set(kept.policies_version(0), "changed")


def in_force(parts: Parts, keys: TenantKeys) -> list[float | None]:
    return [parts.lookup.policy(keys, one).threshold for one in ("a", "b", "c")]


async def test_stricter_until_it_is_put_again(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys, redis: Redis
) -> None:
    for question in QUESTIONS:
        await keep(parts, keys, prompt=question)
    await put(parts, keys, "a", 0.3)
    put_earlier(redis, parts, keys, "b", 0.4)
    await put(parts, keys, "c", 0.99)
    await parts.policies.refresh()
    assert in_force(parts, keys) == [0.3, 0.4, 0.99]
    lines = await migrate.planned(hand.target)
    assert any("3 policies" in line and "acme: a, b, c" in line for line in lines)
    await migrate.up(hand.target, QUIET)
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        generation = new.responses.generation
        assert generation is not None
        least = generation.threshold
        assert 0.95 <= least < 0.99
        assert in_force(new, keys) == [least, least, 0.99]
        assert in_force(parts, keys) == [0.3, 0.4, 0.99]  # its own model's
        answer = await look(new, keys, prompt="Can I get my password reset?", explain=True)
        assert isinstance(answer.decision, Decision)
        assert isinstance(answer.decision.policy, Policy)
        assert answer.decision.policy.threshold == least
        own = await look(new, keys, prompt=QUESTIONS[1], threshold=0.2, tiers=["semantic"])
        assert isinstance(own, Hit)
        assert own.threshold == 0.2  # the caller's
        await put(new, keys, "a", 0.5)
        assert in_force(new, keys) == [0.5, least, 0.99]
        await parts.policies.refresh()
        assert in_force(parts, keys) == [0.65, 0.4, 0.99]  # and the other way round
        # lost, and written again
        noted = name(Keys(settings.key_prefix))
        redis.delete(noted)
        await new.policies.refresh()
        assert in_force(new, keys) == [0.5, least, 0.99]
        assert redis.exists(noted)


async def test_earlier_releases_read_it(parts: Parts, keys: TenantKeys, redis: Redis) -> None:
    await put(parts, keys, "a", 0.3)
    blob = redis.hget(
        Keys(parts.settings.key_prefix).policies(0), field_of(keys.current, RESPONSES, "a").decode()
    )
    assert isinstance(blob, bytes)
    mac, raw = blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]
    body = msgspec.msgpack.decode(raw, type=EarlierBody)
    assert (body.agent_type, body.given) == ("a", b'{"threshold":0.3}')
    assert mac == keys.current.mac(b"policy" + VERSION + raw)
