"""Answers given in other conversations: what `policy.history` lets through."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.model import Decision, History, Hit, Miss, Origin, Policy, Reason
from service.settings import Settings
from service.wiring import Loaded, Parts, opened
from tests.helpers import Same, asked, chat, keep, look, vector

pytestmark = pytest.mark.anyio

ALONE = "How do I reset my password?"
REWORDED = "How can I reset my password?"
DEPENDENT = "and for children?"
PARIS = ("A hotel in Paris.", "Hotel Zola has rooms.")
ROME = ("A hotel in Rome.", "Hotel Nerone has rooms.")


@pytest.fixture
def policies() -> Same:
    return Same(Policy(history=History.STANDALONE))


@pytest.fixture
async def parts(settings: Settings, models: Loaded, policies: Same) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models, policies) as opened_parts:
        await opened_parts.attach(lambda _: None)
        yield opened_parts


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


def said(*before: str) -> Any:
    return {"messages": chat(*before)}


@pytest.mark.parametrize("stored", [(), PARIS])
@pytest.mark.parametrize("question", [(), ROME])
async def test_a_message_that_stands_alone_is_answered_from_any_conversation(
    parts: Parts, keys: TenantKeys, stored: tuple[str, ...], question: tuple[str, ...]
) -> None:
    await keep(parts, keys, **said(*stored, ALONE))
    for text in (ALONE, REWORDED):
        hit = await look(parts, keys, **said(*question, text), explain=True)
        assert isinstance(hit, Hit)
        assert isinstance(hit.decision, Decision)
        assert hit.decision.asked in {text, None}  # None: the exact tier served it
        assert hit.tier is (Origin.EXACT if text == ALONE and stored == question else Origin.SEMANTIC)


async def test_what_was_said_for_all_that_follows_keeps_conversations_apart(
    parts: Parts, keys: TenantKeys
) -> None:
    allergic = "I have a peanut allergy", "I'll keep that in mind."
    await keep(parts, keys, **said(*allergic, ALONE))
    for before in ((), ROME, ("I'm vegan", "Noted.")):
        assert isinstance(await look(parts, keys, **said(*before, REWORDED)), Miss)
    await keep(parts, keys, **said(*ROME, ALONE))
    assert isinstance(await look(parts, keys, **said(*allergic, REWORDED)), Hit)  # of its own conversation
    assert isinstance(await look(parts, keys, **said(*PARIS, REWORDED)), Hit)


@pytest.mark.parametrize("question", [(), ROME])
async def test_one_that_does_not_is_answered_from_its_own_only(
    parts: Parts, keys: TenantKeys, question: tuple[str, ...]
) -> None:
    await keep(parts, keys, **said(*PARIS, DEPENDENT))
    miss = await look(parts, keys, **said(*question, DEPENDENT))
    assert isinstance(miss, Miss)
    assert (miss.reason, miss.rule) == (Reason.GUARD, "history")
    hit = await look(parts, keys, **said(*PARIS, "And for children?"))
    assert isinstance(hit, Hit)
    assert hit.tier is Origin.SEMANTIC


async def test_exact_keeps_conversations_apart_and_can_be_left_later(
    parts: Parts, keys: TenantKeys, policies: Same
) -> None:
    policies.policy = Policy()
    await keep(parts, keys, **said(*PARIS, ALONE))
    for question in [(), ROME]:
        miss = await look(parts, keys, **said(*question, ALONE))
        assert isinstance(miss, Miss)
        assert (miss.reason, miss.rule) == (Reason.GUARD, "history")
    policies.policy = Policy(history=History.STANDALONE)
    assert isinstance(await look(parts, keys, **said(*ROME, ALONE)), Hit)
    assert isinstance(await look(parts, keys, prompt=ALONE), Hit)
    policies.policy = Policy()
    assert isinstance(await look(parts, keys, **said(*ROME, ALONE)), Miss)


async def test_one_that_stands_alone_is_found_behind_many_that_do_not(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, **said(*PARIS, ALONE), response='"right"')
    given = asked(keys, parts, prompt=REWORDED)
    await parts.lookup.answer([given], keys)
    assert given.vector is not None
    for n in range(12):
        nearer = {"embedding": given.vector.tolist()}
        await keep(parts, keys, **said(f"Hotel {n}?", "Yes.", DEPENDENT), **nearer)
    hit = await look(parts, keys, **said(*ROME, REWORDED), explain=True)
    assert isinstance(hit, Hit)
    assert bytes(hit.response) == b'"right"'
    assert isinstance(hit.decision, Decision)
    assert "exhaustive" in hit.decision.stages_ms


async def test_rewrite_without_a_rewriter_misses_where_a_history_is(
    parts: Parts, keys: TenantKeys, policies: Same
) -> None:
    policies.policy = Policy(history=History.REWRITE)
    await keep(parts, keys, **said(*PARIS, DEPENDENT))
    await keep(parts, keys, prompt=DEPENDENT, embedding=vector(1))
    miss = await look(parts, keys, **said(*ROME, DEPENDENT))
    assert isinstance(miss, Miss)
    assert (miss.reason, miss.rule) == (Reason.DEGRADED, "rewriter")
    exact = await look(parts, keys, **said(*PARIS, DEPENDENT))
    assert isinstance(exact, Hit)
    first = await look(parts, keys, prompt="And for children?")
    assert isinstance(first, Miss)
    assert first.reason is not Reason.DEGRADED
    own = await look(parts, keys, **said(*ROME, DEPENDENT), embedding=vector(1))
    assert isinstance(own, Miss)
    assert (own.reason, own.rule) == (Reason.GUARD, "history")
