"""What the benches of speed rest on: `bench/corpus`. Texts are Banking77's, vectors the local model's."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis, exceptions

from bench.corpus import SECRET, Corpus, api_key, filled, made, queries, write_keys
from bench.corpus import tenants as drawn
from bench.corpus import vectors as kept
from bench.corpus.filling import fill
from bench.corpus.growing import growth
from bench.corpus.likeness import likeness
from bench.corpus.neighbours import Floats, exact, others
from bench.corpus.texts import Texts, texts
from bench.corpus.vectors import Rows
from bench.processes import served
from service.embedders.local import MiniLM
from service.store.embedded import EmbeddedRedis

SIZE = 400


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(1)


@pytest.fixture(scope="module")
def corpus(model: MiniLM, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(SIZE, tmp_path_factory.mktemp("cache"), twins=0.3, model=model)


@pytest.fixture(scope="module")
def real(corpus: Corpus) -> Floats:
    return np.array(corpus.rows[: corpus.real])


def test_one_tenant_has_half_and_thousands_have_few() -> None:
    sizes = np.bincount(drawn.asked(drawn.MOST, 0.3, 1).tenants)
    assert len(sizes) == drawn.TENANTS
    assert sizes[0] == pytest.approx(drawn.MOST / 2, rel=0.01)
    assert (sizes < 1000).sum() > 3000
    assert ((sizes > 1000) & (sizes < 30_000)).sum() > 20  # and some of each size between
    assert sizes.min() > 0


def test_smaller_corpora_are_beginnings_of_larger_ones() -> None:
    small, large = drawn.asked(5_000, 0.3, 1), drawn.asked(50_000, 0.3, 1)
    assert (large.tenants[:5_000] == small.tenants).all()
    assert (large.rows[:5_000] == small.rows).all()
    assert small.rows.max() < 5_100  # few entries need few rows


def test_no_tenant_asks_a_question_twice_and_many_ask_the_common_ones() -> None:
    found = drawn.asked(100_000, 0.3, 1)
    assert len(np.unique(found.tenants * 10**7 + found.rows)) == 100_000
    times = np.bincount(found.rows)
    assert (times[found.rows] > 1).mean() > 0.15
    assert times.max() > 300  # in so many tenants
    assert not (found.rows % drawn.RESERVED == drawn.RESERVED - 1).any()


def test_without_twins_nobody_shares() -> None:
    assert np.bincount(drawn.asked(100_000, 0, 1).rows).max() == 1


def test_texts_are_distinct_and_their_vectors_the_models(corpus: Corpus, model: MiniLM) -> None:
    assert len({corpus.texts.of(row) for row in range(3 * len(corpus.texts.real))}) == 3 * len(
        corpus.texts.real
    )
    some = np.arange(0, SIZE, 37)
    vectors = model.run([corpus.text(int(one)) for one in some])
    assert np.abs(corpus.vectors(some) - vectors).max() < 1e-5


class Dying(MiniLM):
    """Ends after some runs, as if killed."""

    def __init__(self, runs: int) -> None:
        super().__init__(1)
        self._left = runs

    def run(self, texts: Any) -> Any:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return super().run(texts)


def test_goes_on_where_it_was_killed(tmp_path: Path, model: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PAGE", 64)
    few = Texts(texts(None, model, 1).real[:200], "some")
    whole = Rows(tmp_path / "whole", few, model, 1)
    whole.made(15_000)
    with pytest.raises(KeyboardInterrupt):
        Rows(tmp_path / "killed", few, Dying(5), 1).made(15_000)
    killed = Rows(tmp_path / "killed", few, model, 1)
    assert 0 < killed.count < 200
    with (killed.folder / "rows.f32").open("ab") as file:
        file.write(b"a row cut off")
    killed.made(5_500)  # and in the midst of what is grown
    with (killed.folder / "rows.f32").open("ab") as file:
        file.write(bytes(4 * 384 * 77 + 5))
    killed.made(15_000)
    assert (killed.folder / "rows.f32").read_bytes() == (whole.folder / "rows.f32").read_bytes()
    assert killed.count == 200 + 15_000


def test_grown_rows_have_the_real_neighbourhoods(real: Floats) -> None:
    found = likeness(real)
    assert found["furthest"] < 0.1
    noise = [b - a for a, b in zip(found["real"]["nearest"], found["noise"]["nearest"], strict=True)]
    assert noise[0] > 0.2  # what is not like it is told from it


def test_grown_rows_are_no_copies(real: Floats) -> None:
    grown = growth(real, 1).chunk(0)
    assert np.abs(np.linalg.norm(grown, axis=1) - 1).max() < 1e-5
    assert (exact(grown[:500], real, 1).similarities < 0.9999).all()


def test_neighbours_are_the_nearest_others(real: Floats) -> None:
    found = others(real, 3, 1)
    similarities = real @ real.T
    np.fill_diagonal(similarities, -2)
    wanted = np.sort(similarities, axis=1)[:, ::-1][:, :3]
    assert np.abs(found.similarities - wanted).max() < 1e-5
    assert np.abs(np.take_along_axis(similarities, found.rows, 1) - wanted).max() < 1e-5


@pytest.mark.parametrize("kind", ["exact", "near", "absent"])
def test_expected_is_the_nearest_of_the_tenant(corpus: Corpus, kind: Any) -> None:
    found = queries(corpus, kind, 40)
    for query in found:
        members = np.flatnonzero(corpus.tenants == query.tenant)
        similarities = corpus.vectors(members) @ query.vector
        assert query.expected in members
        assert query.similarity == pytest.approx(similarities.max(), abs=1e-5)
        assert float(corpus.vector(query.expected) @ query.vector) == pytest.approx(
            query.similarity, abs=1e-5
        )
        stored = query.text in {corpus.text(int(one)) for one in members}
        assert stored == (kind == "exact")
    assert [one.text for one in queries(corpus, kind, 40)] == [one.text for one in found]


def test_near_queries_are_spread(corpus: Corpus) -> None:
    found = [one.similarity for one in queries(corpus, "near", 200)]
    assert min(found) < 0.8
    assert max(found) > 0.95


def test_what_is_wrong_is_named(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size: 0"):
        made(0, tmp_path)
    with pytest.raises(ValueError, match="twins: 2"):
        made(1, tmp_path, twins=2)
    empty = int(np.flatnonzero(corpus.sizes() == 0)[0])
    with pytest.raises(ValueError, match=f"tenants: {empty} has no entry"):
        queries(corpus, "near", 1, tenants=[empty])


async def killed_filling(corpus: Corpus, url: str) -> None:
    """End it somewhere in the middle."""
    task = asyncio.create_task(fill(corpus, url))
    await asyncio.sleep(0)
    while not task.done() and not await asyncio.to_thread(documents, url):
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])


def documents(url: str) -> int:
    with Redis.from_url(url, protocol=2) as redis:
        try:
            return int(redis.execute_command("FT.SEARCH", "sc:{0}:responses:index:1", "*", "LIMIT", 0, 0)[0])
        except exceptions.ResponseError:  # no index yet
            return 0


def test_a_filled_redis_is_served_and_filling_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        asyncio.run(killed_filling(corpus, server.url))
        left = documents(server.url)
        assert left > 0
        again = filled(corpus, server.url)
        assert again.stored == SIZE - left
        assert documents(server.url) == SIZE
        assert filled(corpus, server.url).stored == 0
        asked = list(itertools.chain.from_iterable(queries(corpus, kind, 10) for kind in ("exact", "near")))
        keys = tmp_path / "keys.json"
        write_keys(keys, corpus, {one.tenant for one in asked})
        settings = {"redis_url": server.url, "secret": SECRET, "keys_file": str(keys), "verifier": "off"}
        with served(tmp_path / "service", **settings) as service:
            for one in asked:
                nearest = answer(service.http, corpus, one.tenant, one.text, one.vector)
                assert nearest == pytest.approx(one.similarity, abs=1e-3)


def answer(http: httpx.Client, corpus: Corpus, tenant: int, text: str, vector: Floats) -> float:
    """The similarity of what the service finds nearest."""
    body = {
        "agent_type": corpus.agent_type(tenant),
        "prompt": text,
        "embedding": vector.tolist(),
        "tiers": ["semantic"],
    }
    headers = {"Authorization": f"Bearer {api_key(tenant)}"}
    found = http.post("/v1/cache/lookup", json=body, headers=headers).raise_for_status().json()
    return float(found["similarity"] if found["outcome"] == "hit" else found["nearest"]["similarity"])
