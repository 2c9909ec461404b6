"""The OpenAI Agents SDK: a run is asked once, and then told again, tool calls and all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, NamedTuple

import openai
import pytest
from agents import Agent, OpenAIProvider, RunConfig, Runner, SQLiteSession, TResponseInputItem, function_tool
from agents.result import RunResultBase

from bench.processes import Served
from tests.provider.script import Asked, Call, Script
from tests.provider.server import Provider

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("api", ["chat_completions", "responses"])]


@function_tool
def weather(city: str) -> str:
    """What it is like outside."""
    return f"sunny in {city}"


AGENT = Agent(name="guide", instructions="Be brief.", tools=[weather], model="gpt-5.1")


def loop(asked: Asked) -> Script:
    """A call, and then the answer, each after some thought."""
    if "sunny" in str(asked.body):
        return Script(text="It is sunny.", thinking="So I was told.")
    return Script(calls=(Call("weather", {"city": "Bern"}),), thinking="Let me look.")


class Through(NamedTuple):
    """Runs through the service, and what X-Cache said."""

    config: RunConfig
    x_cache: list[str]


@asynccontextmanager
async def through(service: Served, api: str) -> AsyncIterator[Through]:
    said: list[str] = []

    async def note(response: Any) -> None:
        said.append(response.headers["x-cache"])

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    url = f"http://127.0.0.1:{service.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-test", http_client=http) as client:
        models = OpenAIProvider(openai_client=client, use_responses=api == "responses")
        yield Through(RunConfig(model_provider=models), said)


def told(result: RunResultBase) -> list[Any]:
    """All items of a run, with their ids, as they would be sent back."""
    return result.to_input_list()


async def test_a_second_run_asks_nobody(api: str, service: Served, provider: Provider, question: str) -> None:
    provider.mode = loop
    async with through(service, api) as way:
        first, second = [await Runner.run(AGENT, question, run_config=way.config) for _ in range(2)]
    assert way.x_cache == ["MISS", "MISS", "HIT", "HIT"]
    assert provider.calls == 2
    assert (first.final_output, told(first)) == ("It is sunny.", told(second))
    assert first.context_wrapper.usage == second.context_wrapper.usage


async def test_a_streamed_run_is_told_again(
    api: str, service: Served, provider: Provider, question: str
) -> None:
    """Streamed first, then whole and streamed."""
    provider.mode = loop
    async with through(service, api) as way:
        streams = []
        runs: list[RunResultBase] = []
        for _ in range(2):
            streamed = Runner.run_streamed(AGENT, question, run_config=way.config)
            streams.append([event.type async for event in streamed.stream_events()])
            runs += [streamed, await Runner.run(AGENT, question, run_config=way.config)]
    assert way.x_cache == ["MISS"] * 2 + ["HIT"] * 6
    assert {run.final_output for run in runs} == {"It is sunny."}
    assert [kind for kind in streams[0] if kind != "raw_response_event"] == [
        kind for kind in streams[1] if kind != "raw_response_event"
    ]


async def test_a_conversation_goes_on(api: str, service: Served, provider: Provider, question: str) -> None:
    """The second turn sends the first one's items back, with ids and calls."""
    provider.mode = loop
    async with through(service, api) as way:
        for _ in range(2):
            first = await Runner.run(AGENT, question, run_config=way.config)
            more: TResponseInputItem = {"role": "user", "content": f"Why? {question}"}
            asked = [*first.to_input_list(), more]
            await Runner.run(AGENT, asked, run_config=way.config)
    assert way.x_cache == ["MISS"] * 3 + ["HIT"] * 3
    assert provider.calls == 3


async def test_a_session_is_told_again(api: str, service: Served, provider: Provider, question: str) -> None:
    """Its items come out of a database."""
    provider.mode = loop
    async with through(service, api) as way:
        for _ in range(2):
            with closing(SQLiteSession("one")) as session:
                for asked in (question, f"Why? {question}"):
                    await Runner.run(AGENT, asked, run_config=way.config, session=session)
    assert way.x_cache == ["MISS"] * 3 + ["HIT"] * 3


async def test_another_answer_of_the_tool_is_asked_about(
    api: str, service: Served, provider: Provider, question: str
) -> None:
    """Only what the tool said differs between the two runs."""

    @function_tool(name_override="weather")
    def changed(city: str) -> str:
        """What it is like outside."""
        return f"sunny, then rain in {city}"

    provider.mode = loop
    async with through(service, api) as way:
        await Runner.run(AGENT, question, run_config=way.config)
        await Runner.run(AGENT.clone(tools=[changed]), question, run_config=way.config)
    assert way.x_cache == ["MISS", "MISS", "HIT", "MISS"]
