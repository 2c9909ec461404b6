"""The LangChain cache, with the real langchain-core and a model that answers from a list."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from bench.processes import free_port
from semcached import AsyncClient, Client, Policy, set_testing
from semcached.langchain import SemcachedCache, query

pytestmark = pytest.mark.anyio


class Model(GenericFakeChatModel):
    """Counts its answers."""

    asked: list[Any] = []  # noqa: RUF012 - pydantic copies it

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


def answers(*messages: AIMessage) -> Iterator[AIMessage]:
    yield from messages
    n = 0
    while True:
        n += 1
        yield AIMessage(
            f"answer {n}", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        )


def model(cache: SemcachedCache, *messages: AIMessage, **options: Any) -> Model:
    return Model(messages=answers(*messages), cache=cache, **options)


@pytest.fixture
def cache(client: Client, agent: str) -> SemcachedCache:
    return SemcachedCache(agent_type=agent, client=client, timeout_s=30)


def test_a_second_question_is_served(cache: SemcachedCache) -> None:
    llm = model(cache)
    first = llm.invoke([SystemMessage("Be brief."), HumanMessage("What is a lease?")])
    again = llm.invoke([SystemMessage("Be brief."), HumanMessage("What is a lease?", id="another")])
    assert again.content == first.content == "answer 1"
    assert isinstance(again, AIMessage)
    assert again.usage_metadata is not None
    assert again.usage_metadata["output_tokens"] == 2
    assert llm.invoke([HumanMessage("What is a lease?")]).content == "answer 2"
    assert llm.invoke([HumanMessage("What is a lease?")], stop=["x"]).content == "answer 3"
    assert len(llm.asked) == 3


def test_similar_by_the_text_alone(cache: SemcachedCache, client: Client, agent: str) -> None:
    client.put_policy(agent, Policy(threshold=0.95))
    llm = model(cache)
    first = llm.invoke("How do I reset my password?")
    assert llm.invoke("how do I reset my password").content == first.content
    assert llm.invoke("What does delivery cost?").content != first.content
    (entry,) = [one for one in client.entries(agent_type=agent).items if one.response == "answer 1"]
    assert entry.prompt == "How do I reset my password?"


async def test_async(url: str, agent: str) -> None:
    async with AsyncClient(url, connect_timeout_s=30) as client:
        cache = SemcachedCache(agent_type=agent, async_client=client, timeout_s=30)
        llm = model(cache)
        first = await llm.ainvoke("q")
        assert (await llm.ainvoke("q")).content == first.content
        await cache.aclear()
        assert (await llm.ainvoke("q")).content != first.content


def test_tool_calls_are_served_to_equal_prompts_only(
    cache: SemcachedCache, client: Client, agent: str
) -> None:
    client.put_policy(agent, Policy(threshold=0.95))
    calling = AIMessage("", tool_calls=[{"name": "reset", "args": {"user": "u"}, "id": "1"}])
    llm = model(cache, calling)
    first = llm.invoke("How do I reset my password?")
    again = llm.invoke("How do I reset my password?")
    assert isinstance(first, AIMessage)
    assert isinstance(again, AIMessage)
    assert again.tool_calls == first.tool_calls != []
    assert llm.invoke("how do I reset my password").content == "answer 1"


def test_what_isnt_whole_isnt_kept(cache: SemcachedCache) -> None:
    cut = [AIMessage("cut", response_metadata={"finish_reason": "length"}) for _ in range(2)]
    llm = model(cache, *cut, AIMessage("I'm sorry, but I can't help with that."))
    assert [llm.invoke("q").content for _ in range(5)][:2] == ["cut", "cut"]
    assert len(llm.asked) == 4


def test_completions_and_clear(cache: SemcachedCache) -> None:
    llm = FakeListLLM(responses=["one", "two"], cache=cache)
    assert [llm.invoke("q"), llm.invoke("q")] == ["one", "one"]
    cache.clear()
    assert llm.invoke("q") == "two"


def test_an_invalidation_between_question_and_answer(
    cache: SemcachedCache, client: Client, agent: str
) -> None:
    class Slow(Model):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            client.invalidate({"agent_type": agent})
            return super()._generate(*args, **kwargs)

    llm = Slow(messages=answers(), cache=cache)
    assert [llm.invoke("q").content, llm.invoke("q").content] == ["answer 1", "answer 2"]


def test_without_the_service() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        llm = model(SemcachedCache(client=client))
        assert [llm.invoke("q").content, llm.invoke("q").content] == ["answer 1", "answer 2"]


def test_tests_switch_it_off(cache: SemcachedCache) -> None:
    llm = model(cache)
    with set_testing():
        assert [llm.invoke("q").content, llm.invoke("q").content] == ["answer 1", "answer 2"]
    assert [llm.invoke("q").content, llm.invoke("q").content] == ["answer 3", "answer 3"]


def test_another_programs_entry_is_a_miss(cache: SemcachedCache, client: Client, agent: str) -> None:
    asked = query("a completion", "llm")
    for metadata in (None, {"langchain": "[1]"}, {"langchain": "no JSON"}, {"langchain": 7}):
        client.store(agent_type=agent, **asked, response="r", metadata=metadata)
        assert cache.lookup("a completion", "llm") is None


def test_what_a_prompt_becomes() -> None:
    from langchain_core.load import dumps  # noqa: PLC0415 - beside what it is for

    messages = [
        SystemMessage("s"),
        HumanMessage(["one", {"type": "image_url", "image_url": {"url": "u"}}], name="Ann"),
        AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "1"}], response_metadata={"id": "x"}),
        ToolMessage("r", tool_call_id="1"),
    ]
    asked = query(dumps(messages), "llm")
    assert asked["messages"] == [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
    ]
    assert asked["params"]["llm"] == "llm"
    rest = asked["params"]["messages"]
    assert rest[1] == {"name": "Ann"}
    assert rest[2]["tool_calls"][0]["name"] == "t"
    assert query("plain [", "llm") == {"prompt": "plain [", "params": {"llm": "llm"}}
    assert query("[]", "llm")["prompt"] == "[]"
