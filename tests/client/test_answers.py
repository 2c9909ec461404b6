"""`cached_answer` on a real service."""

import asyncio
import inspect
from typing import Any

import anyio
import pytest

from semcached import Admission, AsyncClient, Client, Hit, Policy, cached_answer, set_testing

pytestmark = pytest.mark.anyio


def made(client: Client, agent: str, **options: Any) -> tuple[Any, list[Any]]:
    runs: list[Any] = []
    options = {"prompt_version": "1"} | options

    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30, **options)
    def answer(prompt: str, *, tone: str = "plain", trace: object = None) -> str:
        runs.append((prompt, tone, trace))
        return f"{prompt} in a {tone} tone, {len(runs)}"

    return answer, runs


def test_equal_prompts_with_equal_parameters_share(client: Client, agent: str) -> None:
    answer, runs = made(client, agent, ignore=["trace"])
    first = answer("How do I pay?")
    assert [answer(prompt="How do I pay?", tone="plain"), answer("How do I pay?", trace=object())] == [
        first
    ] * 2
    assert answer("How do I pay?", tone="kind") != first
    assert len(runs) == 2
    hit = client.lookup(
        agent_type=agent,
        model="m",
        prompt="How do I pay?",
        prompt_version="1",
        params={"tone": "plain"},
    )
    assert isinstance(hit, Hit)
    assert hit.response == first


def test_similar_prompts_share_as_the_policy_says(client: Client, agent: str) -> None:
    client.put_policy(agent, Policy(threshold=0.5, guards={"question": False}))
    answer, runs = made(client, agent, threshold=0.95)
    first = answer("How do I reset my password?")
    assert answer("how do I reset my password") == first
    assert answer("What does delivery cost?") != first
    assert len(runs) == 2
    exact, exact_runs = made(client, agent, tiers=["exact"], prompt_version="other")
    exact("How do I reset my password?")
    exact("how do I reset my password")
    assert len(exact_runs) == 2


def test_two_functions_share_only_where_they_say_so(client: Client, agent: str) -> None:
    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30)
    def one(prompt: str) -> str:
        return f"one {prompt}"

    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30)
    def two(prompt: str) -> str:
        return f"two {prompt}"

    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30, prompt_version=None)
    def open_to_all(prompt: str) -> str:
        return f"open {prompt}"

    assert [one("q"), two("q"), open_to_all("q")] == ["one q", "two q", "open q"]
    client.store(agent_type=agent, model="m", prompt="warmed", response="warm")
    assert open_to_all("warmed") == "warm"
    assert one("warmed") == "one warmed"


async def test_async_single_flight_errors_and_lease(url: str, agent: str) -> None:
    runs: list[str] = []
    async with AsyncClient(url, connect_timeout_s=30) as client:

        @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30, wait=60, prompt_version=None)
        async def answer(prompt: str) -> str:
            runs.append(prompt)
            await asyncio.sleep(0.3)
            if len(runs) == 1:
                raise ConnectionError("the LLM is away")
            return "fine"

        with anyio.fail_after(25):
            found = await asyncio.gather(*(answer("q") for _ in range(30)), return_exceptions=True)
    assert sorted(map(str, found)) == ["fine"] * 29 + ["the LLM is away"]
    assert len(runs) == 2


def test_a_lease_that_is_given_back_stores_nothing_whatever_the_policy(client: Client, agent: str) -> None:
    client.put_policy(agent, Policy(admission=Admission(refusals=False)))

    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30)
    def answer(prompt: str) -> str:
        raise ConnectionError(prompt)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            answer("q")
    assert client.entries(agent_type=agent).items == []
    assert client.stats(agent).stores.refused == {"finish_reason": 2}


def test_what_is_no_text_isnt_kept(client: Client, agent: str, caplog: pytest.LogCaptureFixture) -> None:
    @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30, prompt_version=None)
    def answer(prompt: Any, option: Any = None) -> Any:
        runs.append(option)
        return {"text": prompt}

    runs: list[Any] = []
    for _ in range(2):
        assert answer("q") == {"text": "q"}
        assert answer(7) == {"text": 7}
        assert answer("q", {1}) == {"text": "q"}
    assert len(runs) == 6
    assert caplog.text.count("it is no str but dict") == 1
    client.store(agent_type=agent, model="m", prompt="j", params={"option": None}, response=[1])
    assert answer("j") == {"text": "j"}


def test_methods_tests_and_signatures(client: Client, agent: str) -> None:
    class Writer:
        runs = 0

        @cached_answer(agent_type=agent, model="m", client=client, timeout_s=30)
        def write(self, prompt: str) -> str:
            """Writes."""
            type(self).runs += 1
            return prompt

    assert [Writer().write("p"), Writer().write(prompt="p"), Writer.runs] == ["p", "p", 1]
    with set_testing():
        Writer().write("p")
    assert Writer.runs == 2
    assert list(inspect.signature(Writer.write).parameters) == ["self", "prompt"]
    with pytest.raises(TypeError, match="needs a parameter"):
        cached_answer(agent_type="a", model=None)(lambda: "x")
