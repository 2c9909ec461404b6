"""The bench of verified serving: its cache, arms and arithmetic, on a short stream of committed texts."""

import random
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bench import plot
from bench.learning import arms, figures, tables
from bench.learning.__main__ import compared
from bench.learning.arms import Fixed, Verified
from bench.learning.scoring import Readings
from bench.learning.simulate import Cache, Outcome, run
from bench.learning.streams import Plain, Stream, absent, prepared
from bench.quality.sets import utterances
from bench.quality.vectors import embedded
from service.embedders.local import MiniLM

LENGTH = 500


@pytest.fixture(scope="module")
def stream(minilm: MiniLM) -> Stream:
    """Few intents, many wordings; some requests come again."""
    draws = random.Random(1)  # noqa: S311 - no secret
    intents = sorted({one.intent for one in utterances("populate", None)})[:12]
    texts = [(one.text, one.intent) for one in utterances("populate", None) if one.intent in intents]
    asked = [texts[int(len(texts) * draws.random() ** 2)] for _ in range(LENGTH)]
    return prepared(Plain("banking77", 1, asked), embedded(minilm, [text for text, _ in asked], None))


@pytest.fixture(scope="module")
def readings() -> Readings:
    return Readings("banking77", None)


def test_neighbours_are_all_that_are_near(stream: Stream) -> None:
    assert len(stream.texts) == len(stream.near) == len(set(stream.texts)) < LENGTH
    for at, (near, similarities) in enumerate(zip(stream.near, stream.similarities, strict=True)):
        assert at not in near
        assert similarities.tolist() == sorted(similarities.tolist(), reverse=True)
        assert all(at in stream.near[one] for one in near)


def test_what_is_stored_is_found(stream: Stream, readings: Readings) -> None:
    cache = Cache(stream, readings)
    asked = max(range(len(stream.texts)), key=lambda text: len(stream.near[text]))
    assert cache.near(asked) == []
    farthest = int(stream.near[asked][-1])
    cache.semantic[farthest] = True
    assert [one.text for one in cache.near(asked)] == [farthest]


def test_exact_repeats_are_no_observations(stream: Stream, readings: Readings) -> None:
    outcomes = run(stream, readings, Fixed(2.0))
    assert (outcomes == Outcome.EXACT).sum() == LENGTH - len(stream.texts)
    assert not (outcomes >= Outcome.RIGHT).any()


def test_the_bound_holds_on_a_short_stream(stream: Stream, readings: Readings) -> None:
    found = {
        bound: [run(stream, readings, Verified(bound, seed)) for seed in range(3)] for bound in (0.02, 0.3)
    }
    for bound, outcomes in found.items():
        assert figures.held(outcomes, bound)["held"]
        assert figures.held(outcomes, bound)["least_p"] > 0.01
    strict, lax = (figures.meant(outcomes)["semantic"] for outcomes in found.values())
    assert 0 <= strict < lax


def test_the_same_seed_says_the_same(stream: Stream, readings: Readings) -> None:
    once, again, other = (run(stream, readings, Verified(0.3, seed)) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_binomial_tail() -> None:
    assert figures.tail(0, 10, 0.5) == 1
    assert figures.tail(10, 10, 0.5) == pytest.approx(2**-10)
    assert figures.tail(5, 9, 0.5) == pytest.approx(0.5)
    assert figures.tail(500, 20_000, 0.02) == pytest.approx(5.2e-7, rel=0.2)


def test_an_oracle_uses_its_limit_up() -> None:
    served = np.array([Outcome.RIGHT] * 8 + [Outcome.WRONG] * 2, np.int8)
    careful = np.array([Outcome.RIGHT] * 4 + [Outcome.MISS] * 6, np.int8)
    exact = np.array([Outcome.EXACT] + [Outcome.MISS] * 9, np.int8)
    tried = {
        "cosine": {"0.8": [served], "0.9": [careful]},
        "guards": {"0.8": [served]},
        "verifier": {},
        "exact only": {"-": [exact]},
    }
    assert figures.oracles(tried, [0.2]) == {"cosine": 1.0, "guards": 1.0, "verifier": 0.1}
    assert figures.oracles(tried, [0.1]) == pytest.approx({"cosine": 0.7, "guards": 0.55, "verifier": 0.1})
    assert figures.oracles(tried, [0.0]) == {"cosine": 0.4, "guards": 0.1, "verifier": 0.1}


def test_tables_and_plot(stream: Stream, readings: Readings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "COSINES", (0.9,))
    monkeypatch.setattr(arms, "CUTS", (0.9,))
    found = compared("banking77", [stream], readings)
    said = "\n".join(tables.told(found))
    assert "each request" in said
    assert "not pooled" in said
    root = ET.fromstring(plot.learning({"sets": [found]}))  # noqa: S314 - our own
    assert root.tag.endswith("svg")


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "text2sql" in (absent(tmp_path, "text2sql") or "")
