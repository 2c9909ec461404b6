"""The right candidates, whatever the form of the query and the generation's way of keeping vectors."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from service import migrate
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Where
from service.errors import LayoutError
from service.model import Datatype, Hit, Miss, Stored
from service.settings import Settings
from service.store import forms
from service.store.index import ensure_indexes, load_schema
from service.store.keys import Keys
from service.store.layout import publish_generation, read_generation
from service.wiring import Loaded, Parts, opened
from tests.helpers import accepted, keep, look, near, vector

pytestmark = pytest.mark.anyio

SEMANTIC = {"tiers": ["semantic"]}


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
def sent(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries of searches, and the names of other commands of the index."""
    found: list[str] = []
    run = type(parts.redis).run

    async def noted(self: Any, commands: Sequence[Any], budget: Any = None, lane: Any = None) -> Any:
        found.extend(str(one[2] if one[0] == "FT.SEARCH" else one[0]) for one in commands)
        return await run(self, commands, budget, lane)

    monkeypatch.setattr(type(parts.redis), "run", noted)
    return found


async def fill(parts: Parts, keys: TenantKeys, seeds: Sequence[int], **scope: Any) -> dict[int, str]:
    """Entry ids by the seeds of their vectors."""
    ids: list[str] = []
    for at in range(0, len(seeds), 64):
        batch = [
            accepted(keys, parts, prompt=f"entry {one}", response=f"{one}", embedding=vector(one), **scope)
            for one in seeds[at : at + 64]
        ]
        answers = await parts.store.answer(batch, keys)
        ids += [one.entry_id for one in answers if isinstance(one, Stored)]
    return dict(zip(seeds, ids, strict=True))


def nearest(answer: Hit | Miss) -> tuple[str, Any]:
    """What was found, also where a guard finds the words too different."""
    found = answer if isinstance(answer, Hit) else answer.nearest
    assert found is not None
    return found.entry_id, found.similarity


async def test_a_scope_is_read_or_walked_by_its_size(
    parts: Parts, keys: TenantKeys, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "MANY", 100)
    for count, form in [(99, forms.READ_ALL), (101, forms.WALK)]:
        ids = await fill(parts, keys, range(1000, 1000 + count), model=f"{count}")
        sent.clear()
        for turn in range(3):
            answer = await look(
                parts,
                keys,
                prompt="q",
                embedding=near(1007, 0.9),
                model=f"{count}",
                threshold=0.85,
                **SEMANTIC,
            )
            assert nearest(answer) == (ids[1007], pytest.approx(0.9, abs=1e-3))
            (query,) = [one for one in sent if "KNN" in one]
            assert (form in query) == (turn > 0)
            assert ("HYBRID_POLICY" in query) == (turn > 0)
            assert sent.count("FT.AGGREGATE") == (turn == 0)  # what is known isn't asked again
            sent.clear()


async def test_what_is_known_of_a_scope_is_asked_again(
    parts: Parts, keys: TenantKeys, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "MANY", 3)
    monkeypatch.setattr(forms, "KNOWN_S", 0.0)
    await fill(parts, keys, [1])
    question: dict[str, Any] = {"prompt": "q", "embedding": vector(1), **SEMANTIC}
    await look(parts, keys, **question)
    await fill(parts, keys, [2, 3])
    for form in (forms.READ_ALL, forms.WALK):
        sent.clear()
        nearest(await look(parts, keys, **question))
        assert form in next(one for one in sent if "KNN" in one)


async def test_few_scopes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MOST_SCOPES", 2)
    known = forms.Forms()
    known.learn([("i", "a"), ("i", "b"), ("i", "c")], [[5], RuntimeError("refused"), [5]])
    known.learn([("i", "d")], [[forms.MANY + 1, []]])
    assert list(known._many) == [("i", "c"), ("i", "d")]


async def test_the_same_question_in_500_scopes(parts: Parts, keys: TenantKeys) -> None:
    """Each finds its own, at its similarity, and nobody's else."""
    batch = [
        accepted(keys, parts, prompt="p", response=f"{at}", embedding=vector(1), prompt_version=f"{at}")
        for at in range(500)
    ]
    ids: list[str] = []
    for at in range(0, 500, 50):
        stored = await parts.store.answer(batch[at : at + 50], keys)
        ids += [one.entry_id for one in stored if isinstance(one, Stored)]
    for at in range(0, 500, 7):
        for cosine in (1.0, 0.7):
            answer = await look(
                parts, keys, prompt="q", embedding=near(1, cosine), prompt_version=f"{at}", **SEMANTIC
            )
            assert nearest(answer) == (ids[at], pytest.approx(cosine, abs=1e-3))
    empty = await look(parts, keys, prompt="q", embedding=vector(1), prompt_version="500", **SEMANTIC)
    assert isinstance(empty, Miss)
    assert empty.nearest is None


async def test_a_previous_secrets_scope_lies_elsewhere_and_is_found(
    settings: Settings, models: Loaded, redis_server: Any
) -> None:
    new = replace(settings, secret="the newer secret, 16+", previous_secret=settings.secret)
    async with opened(settings, redis_server.url, models) as parts:
        await parts.attach(lambda _: None)
        keys = parts.keyring.of(operator("acme"))
        ids = [(await keep(parts, keys, prompt="old", embedding=vector(1))).entry_id]
    async with opened(new, redis_server.url, models) as parts:
        await parts.attach(lambda _: None)
        keys = parts.keyring.of(operator("acme"))
        ids.append((await keep(parts, keys, prompt="new", embedding=vector(2))).entry_id)
        for seed, entry_id in enumerate(ids, 1):
            answer = await look(parts, keys, prompt="q", embedding=near(seed, 0.9), **SEMANTIC)
            assert nearest(answer) == (entry_id, pytest.approx(0.9, abs=1e-3))


@pytest.mark.parametrize("datatype", ["float32", "float16", "bfloat16"])
async def test_a_generation_without_places_goes_on(
    parts: Parts, keys: TenantKeys, redis: Redis, sent: list[str], datatype: Datatype
) -> None:
    """As an older version made it: its record says nothing of places."""
    assert parts.responses.generation is not None
    names, space = Keys(parts.settings.key_prefix), {"index": "2", "space": "2", "datatype": datatype}
    older = msgspec.structs.replace(parts.responses.generation, number=2, placed=False, **space)
    schema = load_schema(parts.settings.schema_dir / "responses.yaml", older.dim)
    await ensure_indexes(parts.redis, names, older, parts.settings.partitions, schema)
    await publish_generation(parts.redis, names, older)
    written = redis.get(names.meta("responses:generation"))
    assert isinstance(written, bytes)
    redis.set(names.meta("responses:generation"), written.replace(b',"placed":false', b""))
    await parts.attach(lambda _: None)
    assert parts.responses.generation == older
    ids = await fill(parts, keys, range(1, 20))
    answer = await look(parts, keys, prompt="q", embedding=near(7, 0.8), **SEMANTIC)
    assert nearest(answer) == (ids[7], pytest.approx(0.8, abs=5e-3))
    assert "FT.AGGREGATE" not in sent  # RediSearch goes on choosing


@pytest.mark.parametrize("datatype", ["float32", "float16"])
async def test_a_lost_record_of_a_generation_is_made_as_its_index_is(
    parts: Parts, keys: TenantKeys, redis: Redis, datatype: Datatype
) -> None:
    """What doctor advises where the record was evicted: `semcached migrate up`."""
    assert parts.responses.generation is not None
    names = Keys(parts.settings.key_prefix)
    for partition in range(parts.settings.partitions):
        redis.execute_command("FT.DROPINDEX", names.index(partition, parts.responses.generation), "DD")
    older = msgspec.structs.replace(parts.responses.generation, placed=False, datatype=datatype)
    schema = load_schema(parts.settings.schema_dir / "responses.yaml", older.dim)
    await ensure_indexes(parts.redis, names, older, parts.settings.partitions, schema)
    await publish_generation(parts.redis, names, older)
    await parts.attach(lambda _: None)
    ids = await fill(parts, keys, [1, 2])
    redis.delete(names.meta("responses:generation"))
    with pytest.raises(LayoutError, match="functions"):  # the next thing: it asks for another kind of vectors
        await migrate.up(parts.target)
    assert await read_generation(parts.redis, names) == older
    await parts.attach(lambda _: None)
    answer = await look(parts, keys, prompt="q", embedding=near(2, 0.8), **SEMANTIC)
    assert nearest(answer) == (ids[2], pytest.approx(0.8, abs=5e-3))


async def test_a_record_that_does_not_fit_its_index_is_told(parts: Parts) -> None:
    assert parts.responses.generation is not None
    other = msgspec.structs.replace(parts.responses.generation, datatype="float32")
    await publish_generation(parts.redis, Keys(parts.settings.key_prefix), other)
    with pytest.raises(LayoutError, match="float16 vectors, the generation's record says float32"):
        await parts.attach(lambda _: None)


async def test_an_index_that_is_no_graph_is_not_walked(
    settings: Settings, models: Loaded, redis_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "MANY", 3)
    for name in ("responses.yaml", "tools.yaml"):
        text = (settings.schema_dir / name).read_text().replace("algorithm: hnsw", "algorithm: flat")
        kept = [line for line in text.splitlines() if not line.strip().startswith(("m:", "ef_"))]
        (tmp_path / name).write_text("\n".join(kept))
    async with opened(replace(settings, schema_dir=tmp_path), redis_server.url, models) as parts:
        await parts.attach(lambda _: None)
        keys = parts.keyring.of(operator("acme"))
        ids = await fill(parts, keys, range(1, 20))
        for _ in range(3):
            answer = await look(parts, keys, prompt="q", embedding=near(7, 0.9), **SEMANTIC)
            assert nearest(answer) == (ids[7], pytest.approx(0.9, abs=1e-3))


async def test_a_scope_that_lost_its_entries_is_walked_once_more_at_most(
    parts: Parts, keys: TenantKeys, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "MANY", 20)
    ids = await fill(parts, keys, range(1, 25))
    question: dict[str, Any] = {"prompt": "q", "embedding": near(1, 0.9), **SEMANTIC}
    for _ in range(3):
        await look(parts, keys, **question)
    assert [forms.WALK in one for one in sent if "KNN" in one] == [False, True, True]
    for entry_id in list(ids.values())[5:]:
        predicates = await parts.invalidator.predicates([Where(entry_id=entry_id)], [Keyspace.RESPONSES])
        await parts.invalidator.run(keys, predicates)
    sent.clear()
    for _ in range(3):
        assert nearest(await look(parts, keys, **question))[0] == ids[1]
    walks = [forms.WALK in one for one in sent if "KNN" in one and "expires_at" not in one]
    assert walks == [True, False, False]
    assert forms.READ_ALL in [one for one in sent if "KNN" in one][-1]
