"""To another model: both serve for a while, each its own, and the threshold is found anew."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis

from service import doctor, migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Similar, Where
from service.cache.ports import Budget, Embedded, Embedder, Work
from service.embedders.local import MiniLM
from service.errors import EmbedderError, LayoutError
from service.migrate import draining, standing
from service.migrate.record import read_migration
from service.model import Comparison, Hit, Miss, Policy
from service.providers.gate import ProviderError
from service.settings import Settings
from service.store.keys import Keys
from service.store.layout import read_generation
from service.wiring import Loaded, Parts, opened
from tests.acl import MIGRATE, as_service
from tests.helpers import Same, asked, keep, look
from tests.migrate.test_moving import QUIET, current, following

pytestmark = pytest.mark.anyio

DIM = 256
FINISH = QUIET._replace(finish=True)
QUESTIONS = (
    *("How do I reset my password?", "How can I reset my password?", "What is the refund policy?"),
    *("How do I get my money back?", "Where is my parcel?", "When does my parcel arrive?"),
)


class Projected:
    """Another model: MiniLM's vectors, by random directions (Johnson & Lindenstrauss 1984)."""

    model, revision, dim = "projected", "1", DIM

    def __init__(self, inner: MiniLM) -> None:
        self._inner = inner
        self._directions = np.random.default_rng(5).normal(size=(inner.dim, DIM)).astype(np.float32)

    def unfit(self, text: str) -> str | None:
        return self._inner.unfit(text)

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = self._inner.run(texts) @ self._directions
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def tokens(self, texts: Sequence[str]) -> int:
        return self._inner.tokens(texts)


class Counted:
    """An embedder that notes how many texts each call has."""

    def __init__(self, inner: Embedder) -> None:
        self._inner, self.calls = inner, list[int]()
        self.model, self.revision, self.dim = inner.model, inner.revision, inner.dim

    def unfit(self, text: str) -> str | None:
        return self._inner.unfit(text)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(len(texts))
        return await self._inner.embed(texts)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        return await self._inner.raw(texts, bulk=bulk)


class Outrun(Counted):
    """While it works, a service of the old model stores one more."""

    def __init__(self, inner: Embedder, parts: Parts, keys: TenantKeys) -> None:
        super().__init__(inner)
        self._parts, self._keys, self.stored = parts, keys, 0

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.stored += 1
        await self._parts.responses.refresh()
        await keep(self._parts, self._keys, prompt=f"Is shop number {self.stored} open?")
        return await super().embed(texts)


class Choosy(Counted):
    """Its provider refuses a call with certain words in it."""

    def __init__(self, inner: Embedder, words: str) -> None:
        super().__init__(inner)
        self._words = words

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = await super().embed(texts)
        if any(self._words in text for text in texts):
            raise ProviderError("text", "the embeddings API answered 400")
        return rows


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
def others(models: Loaded, minilm: MiniLM) -> Loaded:
    return models._replace(embedder=Projected(minilm))


@pytest.fixture
async def hand(parts: Parts, settings: Settings, others: Loaded) -> AsyncIterator[Parts]:
    """As `semcached migrate` opens it, with the new model."""
    url = as_service(parts.settings.redis_url or "", MIGRATE)
    async with opened(replace(settings, redis_url=url), url, others) as found:
        yield found


def served(parts: Parts) -> int | None:
    """The number of the generation that a service searches."""
    generation = parts.responses.generation
    return None if generation is None else generation.number


async def in_other_words(parts: Parts, keys: TenantKeys, prompt: str) -> bool:
    """Whether its meaning is found, whatever the guards think of the words."""
    answer = await look(parts, keys, prompt=prompt, tiers=["semantic"], threshold=0.6)
    near = answer if isinstance(answer, Hit) else answer.nearest
    return near is not None and near.similarity > 0.9


async def test_both_models_serve_until_the_old_one_goes(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys
) -> None:
    for at, question in enumerate(QUESTIONS):
        await keep(parts, keys, prompt=question, response=f"{at}")
    with pytest.raises(LayoutError, match="migrate up"):
        await hand.attach(lambda _: None)
    await migrate.up(hand.target, QUIET)
    names = Keys(settings.key_prefix)
    now = await read_generation(parts.redis, names)
    assert now is not None
    assert now.embedding == ("projected", "1", DIM)
    assert now.threshold >= 0.95  # too few pairs to tell
    await parts.responses.refresh()
    assert served(parts) == 1
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        for each in (parts, new):
            for question in QUESTIONS:
                assert isinstance(await look(each, keys, prompt=question, tiers=["exact"]), Hit)
            assert await in_other_words(each, keys, "How could I reset my password?")
        # what one stores the other finds: by its words at once, by its meaning when its vector is made
        for writer, reader, said in (
            (parts, new, "Is there a discount?"),
            (new, parts, "Do you sell shoes?"),
        ):
            await keep(writer, keys, prompt=said)
            assert isinstance(await look(reader, keys, prompt=said, tiers=["exact"]), Hit)
            assert await reader.draining.once() == 1
            assert await reader.draining.once() == 0
            assert await in_other_words(reader, keys, said.replace("?", " ?"))
        lines = list[str]()
        await migrate.up(hand.target, QUIET._replace(say=lines.append))  # as each deploy may
        assert any("--finish" in line for line in lines)
        assert served(parts) == 1
        await migrate.up(hand.target, FINISH)
        found = await read_migration(parts.redis, names)
        assert found is not None
        assert found.phase == "done"
        assert await in_other_words(new, keys, "How could I reset my password?")
    await parts.responses.refresh()
    assert served(parts) is None  # its vectors are gone: /readyz says so
    assert isinstance(await look(parts, keys, prompt=QUESTIONS[0]), Miss)


async def test_an_answer_of_its_own_is_found_by_both_models(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys
) -> None:
    """Only once it was compared: its vector is kept back till then, the other model's as well."""
    policy = Policy(mode="verified", guards={"verifier": False}, threshold=0.6, comparison=Comparison.EQUAL)
    await keep(parts, keys, prompt=QUESTIONS[0], response='"a"')
    await migrate.up(hand.target, QUIET)
    await parts.responses.refresh()
    parts.lookup._policies = parts.store._policies = Same(policy)
    words, work = "How can I reset my password?", Work()
    question = asked(keys, parts, prompt=words)
    (miss,) = await parts.lookup.answer([question], keys, work)
    parts.accounting.looked_up(keys, [question], [miss], work)
    stored = await keep(parts, keys, prompt=words, response='"b"', lookup_id=miss.lookup_id)
    assert stored.exact_only == "explored"
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        assert await new.draining.once() == 0
        async with parts.comparer.running():
            await parts.comparer.settled()
        assert await new.draining.once() == 1
        for each in (parts, new):
            each.lookup._policies = Same(Policy(guards={"verifier": False}))
            hit = await look(each, keys, prompt=words, tiers=["semantic"])
            assert isinstance(hit, Hit)
            assert hit.entry_id == stored.entry_id


async def test_nothing_waits_for_a_vector_at_the_end(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis
) -> None:
    """Also where what was to get one was deleted before anybody came to it."""
    await keep(parts, keys, prompt=QUESTIONS[0])
    await migrate.up(hand.target, QUIET)
    await parts.responses.refresh()
    entry = await keep(parts, keys, prompt=QUESTIONS[2])
    pending = f"{parts.settings.key_prefix}:*:pending:*"
    assert len(list(redis.scan_iter(pending))) == 1
    predicates = await parts.invalidator.predicates([Where(entry_id=entry.entry_id)], [Keyspace.RESPONSES])
    await parts.invalidator.run(keys, predicates)
    await migrate.up(hand.target, FINISH)
    assert list(redis.scan_iter(pending)) == []


async def test_back_to_the_old_model(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys, models: Loaded
) -> None:
    """What was stored with the new one meanwhile is embedded by the migrator with the old one."""
    await keep(parts, keys, prompt=QUESTIONS[0])
    await migrate.up(hand.target, QUIET)
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        await keep(new, keys, prompt="Do you sell shoes?")
    with pytest.raises(migrate.MigrationError, match="SEMCACHED_EMBEDDER"):
        await migrate.rollback(hand.target, QUIET)
    url = as_service(settings.redis_url or "", MIGRATE)
    async with opened(replace(settings, redis_url=url), url, models) as old:
        await migrate.rollback(old.target, QUIET)
    await parts.responses.refresh()
    now = await read_generation(parts.redis, Keys(settings.key_prefix))
    assert now is not None
    assert now.number == 1
    for said in (QUESTIONS[0], "Do you sell shoes?"):
        assert await in_other_words(parts, keys, said.replace("?", " ?"))


async def test_the_threshold_comes_back_with_the_model(
    *, parts: Parts, hand: Parts, settings: Settings, keys: TenantKeys, models: Loaded
) -> None:
    """Also after the end: each way found anew, it would drift."""
    names = Keys(settings.key_prefix)
    first = await read_generation(parts.redis, names)
    assert first is not None
    await keep(parts, keys, prompt=QUESTIONS[0])
    await migrate.up(hand.target, FINISH)
    await migrate.up(hand.target, FINISH)
    url = as_service(settings.redis_url or "", MIGRATE)
    async with opened(replace(settings, redis_url=url), url, models) as old:
        await migrate.rollback(old.target, FINISH)
        await migrate.up(old.target, FINISH)
    now = await read_generation(parts.redis, names)
    assert now is not None
    assert now.embedding == first.embedding
    assert now.threshold == first.threshold


async def test_a_meaning_that_only_the_other_model_knows_goes(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis
) -> None:
    """Redis evicted our document, and nobody can compare the other's. What ours has is compared as ever."""
    ids = [(await keep(parts, keys, prompt=one)).entry_id for one in QUESTIONS]
    await migrate.up(hand.target, QUIET)
    await parts.responses.refresh()
    generation = parts.responses.generation
    assert generation is not None
    names = Keys(parts.settings.key_prefix)
    assert redis.delete(names.document(0, generation, ids[4])) == 1
    similar = Similar(QUESTIONS[0], 0.9999)
    predicates = await parts.invalidator.predicates([Where(similar_to=similar)], [Keyspace.RESPONSES])
    await parts.invalidator.run(keys, predicates)
    there = {at for at, one in enumerate(ids) if redis.exists(names.record(0, one))}
    assert there == {1, 2, 3, 5}


async def test_what_never_had_a_meaning_is_like_nothing(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys
) -> None:
    """Also while two models live; what waits for its vector goes, as nobody knows what it means."""
    block = [{"role": "user", "content": [{"type": "text", "text": "a block"}]}]
    blocks = (await keep(parts, keys, messages=block)).entry_id
    long = (await keep(parts, keys, prompt="long " * 2000)).entry_id
    await migrate.up(hand.target, QUIET)
    await parts.responses.refresh()
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        waits = (await keep(new, keys, prompt=QUESTIONS[2])).entry_id
    similar = Similar(QUESTIONS[0], 0.9999)
    each: list[dict[str, Any]] = [{}, {"prompt_regex": "."}, {"entry_id": blocks}, {"entry_id": waits}]
    for given in each:
        wheres = [Where(similar_to=similar, **given)]
        predicates = await parts.invalidator.predicates(wheres, [Keyspace.RESPONSES])
        found = await parts.invalidator.run(keys, predicates, dry_run=True)
        assert found.sample == ([] if given.get("entry_id") == blocks else [waits])
    predicates = await parts.invalidator.predicates([Where(similar_to=similar)], [Keyspace.RESPONSES])
    await parts.invalidator.run(keys, predicates)
    records = await parts.responses.records(keys, [blocks, long, waits], Budget(5))
    assert [one is not None for one in records] == [True, True, False]


async def test_stores_that_keep_coming_hold_up_nothing(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys
) -> None:
    """Each call of the new model takes longer than the next store: what waits then, services make."""
    for question in QUESTIONS:
        await keep(parts, keys, prompt=question)
    assert hand.target.embedder is not None
    slow = Outrun(hand.target.embedder, parts, keys)
    await migrate.up(hand.target._replace(embedder=slow), QUIET)
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        for at in range(2 * draining.AT_ONCE):
            await keep(parts, keys, prompt=f"Where is parcel {at}?")
        assert await new.draining.once() > draining.AT_ONCE
        while await new.draining.once():
            pass
        assert slow.stored > 1
        assert await in_other_words(new, keys, f"Is shop number {slow.stored} open ?")


async def test_back_waits_for_services_of_the_new_model(
    *,
    parts: Parts,
    hand: Parts,
    settings: Settings,
    others: Loaded,
    keys: TenantKeys,
    models: Loaded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They serve until they are replaced; so do those of the old model where it is ended."""
    monkeypatch.setattr(standing, "FOLLOW_S", 1.0)
    await keep(parts, keys, prompt=QUESTIONS[0])
    await migrate.up(hand.target, QUIET)
    url = as_service(settings.redis_url or "", MIGRATE)
    async with (
        opened(settings, settings.redis_url or "", others) as new,
        opened(replace(settings, redis_url=url), url, models) as old,
    ):
        await new.attach(lambda _: None)
        async with following(parts):
            with pytest.raises(migrate.MigrationError, match="1 services still have the other model"):
                await migrate.up(hand.target, FINISH)
        await parts.processes.leave()
        async with following(new):
            with pytest.raises(migrate.MigrationError, match="1 services still have the other model"):
                await migrate.rollback(old.target, QUIET)
            assert served(new) == 2
            await keep(new, keys, prompt="Do you sell shoes?")
        await new.processes.leave()
        await migrate.rollback(old.target, QUIET)
    await parts.responses.refresh()
    assert served(parts) == 1
    assert await in_other_words(parts, keys, "Do you sell shoes ?")


async def test_a_text_that_the_provider_refuses_is_left_out(
    *, parts: Parts, hand: Parts, settings: Settings, others: Loaded, keys: TenantKeys
) -> None:
    for question in QUESTIONS:
        await keep(parts, keys, prompt=question)
    assert hand.target.embedder is not None
    choosy, lines = Choosy(hand.target.embedder, "refund"), list[str]()
    target = hand.target._replace(embedder=choosy)
    await migrate.up(target, QUIET._replace(say=lines.append))
    assert any(line.startswith("1 texts are refused") for line in lines)
    async with opened(settings, settings.redis_url or "", others) as new:
        await new.attach(lambda _: None)
        for question in QUESTIONS:
            assert isinstance(await look(new, keys, prompt=question, tiers=["exact"]), Hit)
        assert await in_other_words(new, keys, "Where is my parcel ?")
    await migrate.up(target, FINISH)


async def test_a_provider_that_refuses_everything_ends_it(
    *, parts: Parts, hand: Parts, keys: TenantKeys
) -> None:
    """It is no matter of texts: a dimension that the model hasn't, say."""
    for question in QUESTIONS:
        await keep(parts, keys, prompt=question)
    assert hand.target.embedder is not None
    target = hand.target._replace(embedder=Choosy(hand.target.embedder, ""))
    with pytest.raises(EmbedderError, match="400"):
        await migrate.up(target, QUIET)
    assert (await current(parts)).number == 1


async def test_status_and_doctor_tell_of_both(
    *, parts: Parts, hand: Parts, keys: TenantKeys, redis: Redis
) -> None:
    """Also with steps pending, and when it is done."""
    url = parts.settings.redis_url or ""
    await keep(parts, keys, prompt=QUESTIONS[0])
    await migrate.up(hand.target, QUIET)
    found = [one async for one in doctor.examine(parts.settings, url) if one.subject == "embedder"]
    assert [(one.level, "generation 1" in one.text) for one in found] == [(doctor.Level.WARN, True)]
    applied = hand.target.keys.meta("migrations")
    step = max(redis.hkeys(applied))
    redis.hdel(applied, step)
    assert "reembed of generation 1 to 2: published" in await migrate.told(hand.target)
    redis.hset(applied, step, 1)
    await migrate.up(hand.target, FINISH)
    assert "reembed of generation 1 to 2: done" in await migrate.told(hand.target)
    found = [one async for one in doctor.examine(parts.settings, url) if one.subject == "embedder"]
    assert [one.level for one in found] == [doctor.Level.FAIL]
