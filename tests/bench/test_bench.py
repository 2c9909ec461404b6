"""Every bench runs at a tiny size, so that none rots. Figures come from real runs."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> str:
    """What it printed; a package is run as a module."""
    named = [f"bench/{script}"] if script.endswith(".py") else ["-m", f"bench.{script}"]
    return subprocess.run(
        [sys.executable, *named, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def test_quality(tmp_path: Path) -> None:
    output = tmp_path / "quality.json"
    names = ["--data", str(tmp_path), "--cache", str(tmp_path), "--limit", "250"]
    printed = run("quality", *names, "--output", str(output))
    assert f"skipped qqp: {tmp_path}/qqp is absent" in printed
    found = json.loads(output.read_text())
    assert [one["set"] for one in found["pairs"]["sets"]] == ["reworded"]
    assert output.with_suffix(".svg").read_text().startswith("<svg")
    (banking,) = found["populate"]["sets"]
    shares = [one["hits_of_all"]["share"] for one in banking["asked"]["all"]["thresholds"].values()]
    assert shares == sorted(shares, reverse=True)
    assert 0 <= shares[-1] < shares[0] < 1
    assert found["streams"]["streams"] == []


def test_price(tmp_path: Path) -> None:
    output = tmp_path / "price.json"
    small = ["--entries", "150", "--queries", "60", "--rounds", "1", "--threshold", "0.8"]
    run("price.py", *small, "--output", str(output))
    kinds = json.loads(output.read_text())["kinds"]
    assert {"far", "grey"} <= kinds.keys()
    assert all(one["p50"] > 0 for kind in kinds.values() for one in kind["arms"].values())


def test_embedding(tmp_path: Path) -> None:
    output = tmp_path / "embedding.json"
    run("embedding", "--rounds", "1", "--texts", "16", "--output", str(output))
    told = json.loads(output.read_text())
    assert (
        0
        < told["model"]["cpu_ms_of_a_piece"]
        < told["settings"]["unbatched"]["1 callers"]["cpu_ms"]["median"]
    )
    found = told["settings"]
    sizes = {name: one["16 callers"]["texts_per_run"]["median"] for name, one in found.items()}
    assert sizes["unbatched"] == 1 < sizes["chosen"] <= sizes["any padding"]
    assert all(one["1 callers"]["texts_per_run"]["median"] == 1 for one in found.values())
    assert all(one["16 callers"]["cpu_ms"]["median"] > 0 for one in found.values())


def test_sizing(tmp_path: Path) -> None:
    output = tmp_path / "sizing.json"
    run("sizing.py", "--entries", "300", "--answer", "500", "--output", str(output))
    found = json.loads(output.read_text())
    assert found["bytes_per_entry"]["record"] > 500
    assert found["bytes_per_entry"]["document"] > 384 * 2
    assert all(reload["answers_meanwhile"].keys() <= {"degraded", "hit"} for reload in found["reloads"])


def test_bounds(tmp_path: Path) -> None:
    output = tmp_path / "bounds.json"
    run("bounds.py", "--scale", "20", "--output", str(output))
    found = json.loads(output.read_text())
    for name in ("one", "two"):
        assert found[name]["hot_left"] == found[name]["free_left"] == found[name]["hot"]
        assert found[name]["uncounted_keys"] == 0
        assert found[name]["most"] < found[name]["bound"] * 2
    assert found["killed"]["left_by_the_killed"] >= found["killed"]["bound"]  # more, if it was quick enough
    assert found["killed"]["uncounted_keys"] == 0


def test_conversations(tmp_path: Path) -> None:
    turns = [
        {
            "year": 1,
            "topic": topic,
            "turn": 2,
            "history": [f"What is {topic} cancer?"],
            "raw": "Can it spread?",
        }
        | {"rewritten": f"Can {topic} cancer spread?"}
        for topic in ("throat", "lung")
    ]
    dialogues = {side: [{"role": "user", "content": text} for text in (side, "That's all.")] for side in "ab"}
    pair = {"last_message": "That's all.", "label": 1, **dialogues}
    sets: list[tuple[str, str, list[Any]]]
    sets = [("trec_cast", "turns", turns), ("sgd_context", "conversations", [pair])]
    for folder, name, rows in sets:
        (tmp_path / folder / "public").mkdir(parents=True)
        with gzip.open(tmp_path / folder / "public" / f"{name}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "conversations.json"
    run("conversations.py", "--data", str(tmp_path), "--limit", "3", "--output", str(output))
    found = json.loads(output.read_text())["results"]
    assert found["sgd_context, standalone"]["right"]["served"] == 1
    assert found["sgd_context, exact"]["right"]["served"] == 0
    rewritten = found["trec_cast, rewrite"]
    assert [row["served"] for row in rewritten.values()] == [0, 2, 2]
    assert found["trec_cast, standalone"]["right: asked in words that stand alone"]["served"] == 0


def test_eviction() -> None:
    *_, row = run("eviction.py", "volatile-lru", "--entries", "700").splitlines()
    policy, whole, _, _, layout, failed, exact, _ = row.split()
    assert policy == "volatile-lru"
    assert 0 < int(whole) < 700
    assert (int(layout), int(failed)) == (4, 0)  # layout, generation, migrations, processes
    assert int(exact) > 0


def test_cacheability(tmp_path: Path) -> None:
    folder = tmp_path / "situated_qa" / "public"
    folder.mkdir(parents=True)
    rows = [f"who is the president of country {n}\ttime\t1\tx\n" for n in range(20)]
    rows += [f"what is a thing of kind {n}\ttime\t0\tx\n" for n in range(20)]
    with gzip.open(folder / "context_dependence.tsv.gz", "wt") as file:
        file.write("".join(["text\tdepends_on\tlabel\tsource\n", *rows]))
    output = tmp_path / "cacheability.json"
    run("cacheability.py", "--data", str(tmp_path), "--output", str(output))
    found = json.loads(output.read_text())
    halves = [found[f"situated_qa_{half}"] for half in ("tune", "report")]
    assert sum(half["of_the_kind"] for half in halves) == 20
    assert all((half["recall"], half["cost"]) == (100, 0) for half in halves)


def test_stampede(tmp_path: Path) -> None:
    """Over two processes."""
    output = tmp_path / "stampede.json"
    run("stampede", "--callers", "60", "--output", str(output))
    found = json.loads(output.read_text())
    for kind in ("responses", "tools"):
        assert found[kind] == {
            "callers at once": {"hit": 59, "led": 1},
            "the leader who dies": "led",
            "those after": {"hit": 5, "led": 1},
            "a store behind an invalidation": "invalidated",
        }


def test_corpus(tmp_path: Path) -> None:
    output = tmp_path / "corpus.json"
    names = ["--data", str(tmp_path), "--cache", str(tmp_path), "--redis-dir", str(tmp_path / "redis")]
    printed = run("corpus", "--size", "300", "--twins", "0.3", *names, "--likeness", "--output", str(output))
    assert f"skipped query_stream: {tmp_path}/query_stream is absent" in printed
    found = json.loads(output.read_text())
    assert found["filled"]["stored"] == found["corpus"]["entries"] == 300
    assert found["filled"]["bytes_per_entry"] > 2 * 384 * 4  # the document and the graph
    assert found["corpus"]["largest"][0] > 100
    assert found["likeness"]["furthest"] < 0.2


def test_client(tmp_path: Path) -> None:
    output = tmp_path / "client.json"
    run("client", "--calls", "20", "--imports", "1", "--output", str(output))
    found = json.loads(output.read_text())
    assert found["import_ms"].keys() == {"semcached", "cached_tool", "Client", "httpx", "httpx and msgspec"}
    assert found["sync"].keys() == {"hit over a request", "miss over its two requests"}
    assert found["refused_us"]["median"] <= found["refused_us"]["longest"]
    assert found["hung_us"]["longest"] >= 900_000  # one waits for the deadline


def test_peers(tmp_path: Path) -> None:
    """Those that this environment has: GPTCache isn't among them."""
    output = tmp_path / "peers.json"
    small = ["--sizes", "200", "--rounds", "2", "--lookups", "5", "--stores", "2", "--here"]
    places = ["--data", str(tmp_path / "none"), "--cache", str(tmp_path)]
    printed = run("peers", *small, *places, "--output", str(output))
    assert "GPTCache: needs an environment of its own" in printed
    (found,) = json.loads(output.read_text())["sizes"]
    assert found["absent"].keys() == {"GPTCache", "GPTCache, no report"}
    assert len(found["contenders"]) == 7
    for one in found["contenders"].values():
        for kind in ("semantic", "exact", "miss"):
            assert one[kind]["calls"] == one[kind]["right"] > 0
        assert one["store"]["calls"] == 4
    assert output.with_suffix(".svg").read_text().startswith("<svg")


def test_peers_with_tenants(tmp_path: Path) -> None:
    """Who can't tell them apart is left out; the others serve each its own nearest."""
    output = tmp_path / "peers.json"
    small = ["--sizes", "200", "--rounds", "1", "--lookups", "5", "--stores", "2", "--here"]
    places = ["--data", str(tmp_path / "none"), "--cache", str(tmp_path)]
    run("peers", *small, *places, "--tenants", "3", "--peers", "redisvl,langchain", "--output", str(output))
    (found,) = json.loads(output.read_text())["sizes"]
    assert found["absent"].keys() == {"LangChain RedisSemanticCache"}
    assert len(found["contenders"]) == 4
    assert all(one["semantic"]["right"] == 5 for one in found["contenders"].values())


def test_pipelines(tmp_path: Path) -> None:
    """Beside itself."""
    output = tmp_path / "pipelines.json"
    run("pipelines", "--other", str(ROOT), "--calls", "64", "--rounds", "1", "--output", str(output))
    found = json.loads(output.read_text())
    for callers in (1, 16, 64):
        told = found[f"{callers} at once"]
        assert told["this"]["calls_per_s"] > 0
        assert told["cpu ratio, median of rounds"] > 0


def test_forms(tmp_path: Path) -> None:
    output = tmp_path / "forms.json"
    run("forms.py", "--entries", "3000", "--queries", "16", "--output", str(output))
    found = json.loads(output.read_text())
    for name in ("with places", "without"):
        assert found[name]["bytes_per_entry"] > found[name]["graph_bytes"] > 384 * 2
        *_, largest, _ = found[name]["sizes"].values()
        right, many = largest["read all"]["recall 0.65"]
        assert 0 < right <= many
    assert found["with places"]["sizes"]["1500"]["ours"]["recall 0.65"][0] > 0


def test_comparing(tmp_path: Path) -> None:
    output = tmp_path / "comparing.json"
    printed = run("comparing", "--data", str(tmp_path), "--output", str(output))
    assert f"skipped: {tmp_path}/stsb is absent" in printed
    rows = {row["kind"]: row for row in json.loads(output.read_text())["rows"]}
    assert {kind: row["pairs"] for kind, row in rows.items()} == {"light": 30, "strong": 30, "trap": 90}
    assert rows["trap"]["shipped"] == 0 < rows["light"]["shipped"] <= rows["light"]["words"]
    assert rows["trap"]["cosine"] > rows["trap"]["words"]


def test_decisions(tmp_path: Path) -> None:
    output = tmp_path / "decisions.json"
    printed = run("decisions", "--lookups", "20", "--rounds", "1", "--output", str(output))
    assert "decisions in" in printed
    found = json.loads(output.read_text())
    assert found["decisions"] == 64
    assert 40 < found["bytes_per_1000"] / 1000 < 400
    assert all(found[kind]["with"]["cpu_us"] > 0 for kind in ("exact", "semantic", "miss"))
