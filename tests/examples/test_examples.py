"""The examples run as their README says, on a service of their own and on one that runs already."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.processes import free_port, served
from examples import agent
from semcached import set_testing

ROOT = Path(__file__).parents[2]
AT_ONCE = ("--first-ms", "0", "--token-ms", "0", "--tool-ms", "0")
QUESTIONS, REQUESTS, TOOL_CALLS, DISTINCT_READS = 13, 24, 11, 9

Json = dict[str, Any]


def run(module: str, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEMCACHED_")}
    return subprocess.run(
        [sys.executable, "-m", f"examples.{module}", *arguments],
        cwd=ROOT,
        env=clean | ({"SEMCACHED_URL": url} if url else {}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def support_agent(*arguments: str, url: str | None = None) -> dict[str, Json]:
    """The runs by name."""
    done = run("support_agent", *AT_ONCE, *arguments, "--json", url=url)
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def runs() -> dict[str, Json]:
    return support_agent()


def answers(one: Json) -> list[str]:
    return [turn["answer"] for turn in one["turns"]]


def test_without_the_service_all_is_asked_and_runs(runs: dict[str, Json]) -> None:
    one = runs["without"]
    assert (len(one["turns"]), one["requests"], one["llm_calls"]) == (QUESTIONS, REQUESTS, REQUESTS)
    assert (one["tool_calls"], one["reads"], one["writes"]) == (TOOL_CALLS, TOOL_CALLS - 1, 1)
    assert one["usd"] > 0


def test_the_first_run_asks_each_thing_once(runs: dict[str, Json]) -> None:
    one = runs["first"]
    assert (one["requests"], one["llm_calls"], one["exact"], one["semantic"]) == (REQUESTS, 20, 4, 0)
    assert (one["reads"], one["writes"]) == (DISTINCT_READS, 1)
    assert answers(one) == answers(runs["without"])
    assert 0 < one["usd"] < runs["without"]["usd"]


def test_the_second_asks_nothing_and_writes_again(runs: dict[str, Json]) -> None:
    one = runs["again"]
    assert (one["requests"], one["llm_calls"], one["exact"], one["semantic"]) == (REQUESTS, 0, REQUESTS, 0)
    assert (one["tool_calls"], one["reads"], one["writes"]) == (TOOL_CALLS, 0, 1)
    assert one["usd"] == 0
    assert answers(one) == answers(runs["first"])


def test_other_words_are_served_where_the_answer_fits(runs: dict[str, Json]) -> None:
    one = runs["in other words"]
    assert one["requests"] == one["llm_calls"] + one["exact"] + one["semantic"]
    similar = [
        (turn, before)
        for turn, before in zip(one["turns"], runs["first"]["turns"], strict=True)
        if turn["x_cache"] == "HIT"
    ]
    assert similar
    assert one["semantic"] == len(similar)
    assert all(turn["answer"] == before["answer"] for turn, before in similar)
    assert not any(turn["calls_a_tool"] for turn, _ in similar)
    assert one["writes"] == 1
    assert one["reads"] < runs["without"]["reads"]


def test_the_trap_is_not_served(runs: dict[str, Json]) -> None:
    (trap,) = (turn for turn in runs["in other words"]["turns"] if "unsubscribe" in turn["question"])
    assert (trap["x_cache"], "off the list" in trap["answer"]) == ("MISS", True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A service's URL, and the port of the provider that it passes on to, where nobody listens yet."""
    port = free_port()
    upstream = f"http://127.0.0.1:{port}/v1"
    folder = tmp_path_factory.mktemp("service")
    with served(folder, openai_upstream=upstream, redis_timeout_s="5") as service:
        yield f"http://127.0.0.1:{service.port}", str(port)


def test_a_running_service_remembers(running: tuple[str, str]) -> None:
    url, port = running
    first, later = (support_agent("--port", port, url=url)["first"] for _ in range(2))
    assert (first["llm_calls"], later["llm_calls"], later["reads"]) == (20, 0, 0)
    assert answers(later) == answers(first)


def test_a_running_service_with_another_provider_is_named(running: tuple[str, str]) -> None:
    url, _ = running
    done = run("support_agent", *AT_ONCE, "--port", "0", url=url)
    assert done.returncode == 1
    assert f"the service at {url} needs SEMCACHED_OPENAI_UPSTREAM=http://127.0.0.1:" in done.stderr


def test_the_tables() -> None:
    done = run("support_agent", *AT_ONCE, "--port", "0", url="http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "|  | without | first | again | in other words |"
    assert any(line.startswith("| **calls to the LLM** | 24 | 20 | 0 |") for line in lines)
    assert any(line.startswith("| How do I reach you by phone? | served, 0.98") for line in lines)


def test_nobody_sees_the_order_of_another() -> None:
    with set_testing():
        bens, anns = agent.tools_of("ben"), agent.tools_of("ann")
        assert agent.called(anns, "get_order", '{"number": 1041}')["item"] == "walking boots"
        assert agent.called(bens, "get_order", '{"number": 1041}') == {
            "error": "get_order: you have no order 1041"
        }
        assert agent.called(bens, "get_order", '{"customer": "ann", "number": 1041}').keys() == {"error"}
        assert agent.called(bens, "drop_table", "{}").keys() == {"error"}


def test_marks_save_what_unmarked_turns_pay() -> None:
    done = run("anthropic_prompt_caching", "--json")
    assert done.returncode == 0, done.stderr
    bare, marked = json.loads(done.stdout).values()
    assert bare["turns"] == marked["turns"] == 20
    assert bare["read"] == bare["written"] == 0
    assert marked["read"] + marked["written"] + marked["uncached"] == bare["uncached"]
    assert marked["read"] > marked["written"]
    assert marked["usd"] < bare["usd"] / 2
