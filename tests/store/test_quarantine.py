"""What was wrong for another question doesn't come back, whoever stores it, and when."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.ports import Work
from service.model import INVALIDATED, Hit, Miss, Policy, Refused, Stored
from service.settings import Settings
from service.wiring import Loaded, Parts, opened
from tests.helpers import Same, accepted, asked, keep, near, vector

pytestmark = pytest.mark.anyio

POLICY = Same(Policy(guards={"verifier": False}, threshold=0.6))


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


async def look(parts: Parts, keys: TenantKeys, **fields: object) -> Hit | Miss:
    """For another question, near the one that is stored."""
    parts.lookup._policies = POLICY
    question, work = asked(keys, parts, prompt="Q two", embedding=near(1, 0.95), **fields), Work()
    (answer,) = await parts.lookup.answer([question], keys, work)
    parts.accounting.looked_up(keys, [question], [answer], work)
    return answer


async def put(parts: Parts, keys: TenantKeys, lookup_id: str | None = None) -> Stored | Refused:
    one = accepted(keys, parts, prompt="q", embedding=vector(1), lookup_id=lookup_id)
    (answer,) = await parts.store.answer([one], keys)
    assert isinstance(answer, Stored | Refused)
    return answer


async def test_a_store_on_its_way_is_seen(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names no lookup, so that no invalidation refuses it."""
    await put(parts, keys)
    hit = await look(parts, keys)
    assert isinstance(hit, Hit)
    whole = parts.store._vectors

    async def slow(*arguments: object) -> object:
        await parts.judging.feedback(keys, hit.lookup_id, correct=False)
        return await whole(*arguments)  # type: ignore[arg-type] # the same

    monkeypatch.setattr(parts.store, "_vectors", slow)
    assert await put(parts, keys) == INVALIDATED
    assert isinstance(await look(parts, keys), Miss)
    monkeypatch.setattr(parts.store, "_vectors", whole)
    again = await put(parts, keys)
    assert isinstance(again, Stored)
    assert again.exact_only == "quarantined"


async def test_a_store_between_its_two_steps_is_seen(
    parts: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record isn't there yet when the verdict looks for it."""
    await put(parts, keys)
    hit, second = await look(parts, keys), await look(parts, keys, tiers=["exact"])
    assert isinstance(hit, Hit)
    whole: Callable[..., Awaitable[object]] = parts.responses._finish

    async def slow(*arguments: object) -> object:
        await parts.judging.feedback(keys, hit.lookup_id, correct=False)
        return await whole(*arguments)

    monkeypatch.setattr(parts.responses, "_finish", slow)
    assert await put(parts, keys, lookup_id=second.lookup_id) == INVALIDATED
    assert isinstance(await look(parts, keys), Miss)


async def test_it_outlives_a_rotation(settings: Settings, models: Loaded) -> None:
    """Whether the verdict came before it or behind."""
    new = replace(settings, secret="another secret of the tests", previous_secret=settings.secret)
    for late in (False, True):
        tenant = operator(f"late{late}")
        async with opened(settings, settings.redis_url or "", models) as parts:
            await parts.attach(lambda _: None)
            keys = parts.keyring.of(tenant)
            await keep(parts, keys, prompt="q", embedding=vector(1))
            hit = await look(parts, keys)
            await parts.ledger.flush()
            if not late:
                await parts.judging.feedback(keys, hit.lookup_id, correct=False)
        async with opened(new, settings.redis_url or "", models) as parts:
            await parts.attach(lambda _: None)
            keys = parts.keyring.of(tenant)
            if late:
                await parts.judging.feedback(keys, hit.lookup_id, correct=False)
            again = await put(parts, keys)
            assert isinstance(again, Stored)
            assert again.exact_only == "quarantined"
            assert isinstance(await look(parts, keys), Miss)
            await parts.judging.feedback(keys, hit.lookup_id, correct=True)
            again = await put(parts, keys)
            assert isinstance(again, Stored)
            assert [one.value for one in again.tiers] == ["exact", "semantic"]
        settings, new = (
            new,
            replace(new, secret=f"{new.secret} too", previous_secret=new.secret),
        )  # Redis has seen the new one


async def test_clearing_takes_the_marks_along(parts: Parts, keys: TenantKeys) -> None:
    await put(parts, keys)
    hit = await look(parts, keys)
    await parts.judging.feedback(keys, hit.lookup_id, correct=False)
    await parts.judging.clear(parts.keyring.of(operator("other")))
    marked = await put(parts, keys)
    await parts.judging.clear(keys)
    cleared = await put(parts, keys)
    assert isinstance(marked, Stored)
    assert marked.exact_only == "quarantined"
    assert isinstance(cleared, Stored)
    assert [one.value for one in cleared.tiers] == ["exact", "semantic"]
