"""The shipped decision on the committed pairs beside what is recorded; the quality bench's arithmetic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import numpy as np
import pytest

from bench.processes import served
from bench.quality import baseline, decide, pairs, plot, streams
from bench.quality.__main__ import plain
from bench.quality.baseline import Tally
from bench.quality.rates import Sweep, mean, share
from bench.quality.sets import COMMITTED, Labelled, sample
from bench.verifier.sets import Pair, reworded
from service.embedders.local import MiniLM


def test_no_more_wrong_answers_than_recorded() -> None:
    before, now = baseline.recorded(), baseline.tallied()
    if found := baseline.worse(before, now):
        pytest.fail("\n".join([*found, "", baseline.table(before, now)]), pytrace=False)


def test_what_got_worse_is_named() -> None:
    before = {"a/trap": Tally(0, 3, 9), "a/same": Tally(20, 0, 30)}
    assert baseline.worse(before, before) == []
    assert baseline.worse(before, before | {"a/trap": Tally(0, 2, 9), "a/same": Tally(18, 0, 30)}) == []
    assert baseline.worse(before, before | {"a/trap": Tally(0, 4, 9)}) == []
    more, all_more = baseline.worse(before, before | {"a/trap": Tally(0, 6, 9)})
    assert more == "a/trap: 6 wrong answers, 3 recorded"
    assert all_more == "all: 6 wrong answers, 3 recorded"
    (fewer,) = baseline.worse(before, before | {"a/same": Tally(17, 0, 30)})
    assert fewer == "a: 17 right answers, 20 recorded"
    (others,) = baseline.worse(before, {"a/trap": Tally(0, 3, 9)} | {"a/same": Tally(20, 0, 31)})
    assert "--update-baseline" in others


def asked_alone(http: httpx.Client, chosen: Sequence[Pair]) -> list[dict[str, Any]]:
    """Each pair in a cache of its own: `text_a` stored, `text_b` asked."""
    stores = [
        {"agent_type": f"pair {at}", "prompt": pair.text_a, "response": "x"} for at, pair in enumerate(chosen)
    ]
    http.post("/v1/cache/store/batch", json={"items": stores}).raise_for_status()
    lookups = [
        {"agent_type": f"pair {at}", "prompt": pair.text_b, "explain": True} for at, pair in enumerate(chosen)
    ]
    found: list[dict[str, Any]] = (
        http.post("/v1/cache/lookup/batch", json={"items": lookups}).raise_for_status().json()["items"]
    )
    return found


def test_pairs_are_decided_as_the_service_does(tmp_path: Path, minilm: MiniLM) -> None:
    chosen = sample(reworded(), 120)
    verifier = decide.shipped_verifier()
    said = pairs.judged(pairs.Setup(COMMITTED, minilm, verifier, None, None), chosen)
    with served(tmp_path, redis_timeout_s="5") as service:
        answers = asked_alone(service.http, chosen)
    for one, answer in zip(said, answers, strict=True):
        (candidate,) = answer["decision"]["candidates"]
        assert candidate["similarity"] == pytest.approx(one.similarity, abs=2e-4)
        assert (answer["outcome"] == "hit") == decide.serves(one, verifier)
    assert 0 < sum(answer["outcome"] == "hit" for answer in answers) < len(chosen)


@pytest.mark.parametrize(
    ("name", "cosine"),
    [("GPTCache", 0.6), ("LiteLLM", 0.8), ("Upstash", 0.8), ("LangCache", 0.85), ("RedisVL", 0.9)],
)
def test_where_a_peer_begins_to_serve(name: str, cosine: float) -> None:
    (peer,) = (one for one in decide.PEERS if one.name == name)
    around = np.array([cosine - 1e-6, cosine + 1e-6, -1.0, 1.0])
    assert decide.peer_decider(peer, around).served.tolist() == [False, True, False, True]


def test_the_best_share_at_a_false_rate() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.7, 0.6, np.nan, -np.inf, 0.5])
    labels = np.array([1, 1, 0, 1, 0, 1, 1, 0])
    sweep = Sweep(scores, labels, ["a", "b", "b", "c", "d", "e", "f", "g"])
    # Scores that tie are served together: 0.8 costs a trap, a third of all.
    assert sweep.at([0.0, 0.3, 0.34, 1.0]) == [0.2, 0.2, 0.6, 0.6]
    (estimate,) = sweep.estimates([0.34])
    assert estimate.low < estimate.rate == 0.6 < estimate.high


def test_intervals() -> None:
    one = share(1, 50)
    assert (one.share, round(one.low, 4), round(one.high, 4)) == (0.02, 0.0035, 0.105)
    assert (round(share(0, 50).high, 4), share(0, 0).high) == (0.0713, 1.0)
    both = mean([share(0, 50), share(0, 50)])
    assert (both.rate, both.low, round(both.high, 4)) == (0, 0, round(0.07135 / 2**0.5, 4))


def test_a_stream_stores_what_it_missed() -> None:
    texts = [("How do I pay?", "pay", "miss"), ("Where is my card?", "card", "miss")]
    texts += [("How do I pay?", "pay", "exact"), ("How do I pay?", "other", "miss")]
    seen = streams.replayed("x", [{"text": a, "class": b, "expect": c} for a, b, c in texts])
    assert [(one.tier, one.right) for one in seen] == [
        (None, None), (None, None), ("exact", True), ("exact", False),
    ]  # fmt: skip
    found = streams.figures(seen)
    assert (found["hit"].share, found["exact"].share, found["wrong_of_hits"].share) == (0.5, 0.5, 0.5)
    assert [one["queries"] for _, one in streams.windows([*seen, *seen])] == [2, 2, 2, 2]


def test_the_plot_is_svg() -> None:
    chosen = [Pair("reworded", "k", str(at), "a", "b", at % 2) for at in range(8)]
    said = [decide.judge(0.6 + at / 20, "a", "b", None) for at in range(8)]
    result = pairs.measured(Labelled("reworded", chosen, trained=False, texts_trained=0), said, None)
    root = ET.fromstring(plot.drawn(plain({"sets": [result], "curve_at": pairs.CURVE})))  # noqa: S314 - our own
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == sum(name in plot.COLOURS for name in result["deciders"])
