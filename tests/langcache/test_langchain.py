"""LangChain and redisvl through their own LangCache wrappers, against a service on a real socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from langchain_redis import LangCacheSemanticCache
from redisvl.extensions.cache.llm import LangCacheSemanticCache as RedisVLCache

from tests.langcache.conftest import Service

pytestmark = pytest.mark.anyio

ASKED, ALIKE = "How do I reset my password?", "How can I reset my password?"
ELSE = "What does the premium plan cost per month?"


class Model(BaseChatModel):
    """Answers each call with its number."""

    name_of_it: str = "a"
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "counting"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"name": self.name_of_it}

    def _generate(
        self,
        messages: list[BaseMessage],  # noqa: ARG002 - these are the base class's
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> ChatResult:
        self.calls += 1
        said = AIMessage(f"{self.name_of_it} {self.calls}")
        return ChatResult(generations=[ChatGeneration(message=said)])


class Ask(Protocol):
    async def __call__(self, model: Model, messages: list[Any], **given: Any) -> str: ...


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    async def asked(model: Model, messages: list[Any], **given: Any) -> str:
        if request.param == "sync":
            return str(model.invoke(messages, **given).content)
        return str((await model.ainvoke(messages, **given)).content)

    return asked


@asynccontextmanager
async def closed(cache: RedisVLCache) -> AsyncIterator[None]:
    """The wrappers leave their SDK open."""
    with cache._client:
        async with cache._client:
            yield


@pytest.fixture
async def wrapped(service: Service, cache_id: str) -> AsyncIterator[LangCacheSemanticCache]:
    cache = LangCacheSemanticCache(
        server_url=service.url, api_key=service.keys["writer"], cache_id=cache_id, ttl=600
    )
    set_llm_cache(cache)
    async with closed(cache.cache):
        yield cache
    set_llm_cache(None)


@pytest.mark.usefixtures("wrapped")
async def test_a_second_call_is_served(ask: Ask) -> None:
    model = Model()
    messages = [SystemMessage("Be kind."), HumanMessage(ASKED)]
    assert [await ask(model, messages) for _ in range(3)] == ["a 1"] * 3
    assert await ask(model, [SystemMessage("Be kind."), HumanMessage(ALIKE)]) == "a 1"
    assert model.calls == 1


DIFFERENT: dict[str, list[BaseMessage]] = {
    "another question": [SystemMessage("Be kind."), HumanMessage(ELSE)],
    "another number": [SystemMessage("Be kind."), HumanMessage("How do I reset my 2 passwords?")],
    "another system message": [SystemMessage("Be rude."), HumanMessage(ASKED)],
    "none": [HumanMessage(ASKED)],
    "a name": [SystemMessage("Be kind."), HumanMessage(ASKED, name="Ann")],
    "another field": [SystemMessage("Be kind."), HumanMessage(ASKED, additional_kwargs={"n": 1})],
    "a history": [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage(ASKED)],
    "another history": [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("No"), HumanMessage(ASKED)],
    "what came after": [SystemMessage("Be kind."), HumanMessage(ASKED), AIMessage("Well?")],
    "a tool's result": [
        SystemMessage("Be kind."),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        ToolMessage("x", tool_call_id="1"),
        HumanMessage(ASKED),
    ],
    "an image": [
        SystemMessage("Be kind."),
        HumanMessage(
            [{"type": "text", "text": ASKED}, {"type": "image_url", "image_url": {"url": "http://x"}}]
        ),
    ],
}


@pytest.mark.usefixtures("wrapped")
async def test_boilerplate_makes_nothing_alike(ask: Ask) -> None:
    """Every one against every other: the texts are the same but for a few characters."""
    model, said = Model(), {}
    prompts = {"the first": [SystemMessage("Be kind."), HumanMessage(ASKED)], **DIFFERENT}
    for name, messages in prompts.items():
        said[name] = await ask(model, messages)
    assert len(set(said.values())) == len(prompts)
    for name, messages in prompts.items():
        assert await ask(model, messages) == said[name]


@pytest.mark.usefixtures("wrapped")
async def test_nor_do_long_prompts(ask: Ask) -> None:
    model, system = Model(), SystemMessage("You are an assistant. " * 400)
    first = await ask(model, [system, HumanMessage(ASKED)])
    assert await ask(model, [system, HumanMessage(ELSE)]) != first
    assert await ask(model, [system, HumanMessage(ALIKE)]) == first


@pytest.mark.usefixtures("wrapped")
async def test_two_llm_strings_never_share(ask: Ask) -> None:
    one, other = Model(), Model(name_of_it="b")
    assert await ask(one, [HumanMessage(ASKED)]) == "a 1"
    assert await ask(other, [HumanMessage(ASKED)]) == "b 1"
    assert await ask(other, [HumanMessage(ALIKE)]) == "b 1"
    assert await ask(one, [HumanMessage(ASKED)], stop=["."]) == "a 2"
    assert await ask(one, [HumanMessage(ASKED)], tools=[{"name": "f" * 6000}]) == "a 3"
    assert await ask(one, [HumanMessage(ASKED)], tools=[{"name": "f" * 5999 + "g"}]) == "a 4"
    assert await ask(one, [HumanMessage(ASKED)]) == "a 1"


async def test_clearing(wrapped: LangCacheSemanticCache, ask: Ask) -> None:
    model = Model()
    await ask(model, [HumanMessage(ASKED)])
    wrapped.clear()
    assert await ask(model, [HumanMessage(ASKED)]) == "a 2"
    await wrapped.aclear()
    assert await ask(model, [HumanMessage(ASKED)]) == "a 3"


async def test_a_generation_comes_back_as_it_was(wrapped: LangCacheSemanticCache) -> None:
    prompt = dumps([HumanMessage("hello, \0 wörld\n")])
    given = [Generation(text="a, b\n"), ChatGeneration(message=AIMessage("c", response_metadata={"x": [1]}))]
    await wrapped.aupdate(prompt, "llm, one", given)
    for found in (wrapped.lookup(prompt, "llm, one"), await wrapped.alookup(prompt, "llm, one")):
        assert found == given
    assert wrapped.lookup(prompt, "llm, two") is None
    (kept,) = wrapped.cache.check(prompt=prompt)
    assert kept["prompt"] == prompt


async def test_a_serialised_question_is_no_plain_one(wrapped: LangCacheSemanticCache) -> None:
    wrapped.update(dumps([HumanMessage(ASKED)]), "llm", [Generation(text="x")])
    assert wrapped.lookup(ASKED, "llm") is None
    assert wrapped.cache.check(prompt=ASKED) == []


@pytest.fixture(params=["normalized", "redis"])
async def redisvl(
    request: pytest.FixtureRequest, service: Service, cache_id: str
) -> AsyncIterator[RedisVLCache]:
    cache = RedisVLCache(
        server_url=service.url,
        api_key=service.keys["writer"],
        cache_id=cache_id,
        ttl=600,
        distance_scale=request.param,
    )
    async with closed(cache):
        yield cache


async def test_redisvl(redisvl: RedisVLCache) -> None:
    kept = redisvl.store(ASKED, "Settings.", metadata={"lang": "en, us", "plan": "pro"})
    for found in (
        redisvl.check(ASKED, attributes={"lang": "en, us"}),
        await redisvl.acheck(ASKED, attributes={"plan": "pro", "lang": "en, us"}),
    ):
        assert [(one["entry_id"], one["vector_distance"], one["metadata"]) for one in found] == [
            (kept, 0, {"lang": "en, us", "plan": "pro"})
        ]
    assert redisvl.check(ASKED, attributes={"lang": "en"}) == []
    (near,) = await redisvl.acheck(ALIKE, distance_threshold=0.4)
    at = near["vector_distance"]
    assert 0 < at < 0.4
    assert len(redisvl.check(ALIKE, distance_threshold=at + 1e-6)) == 1
    assert redisvl.check(ALIKE, distance_threshold=at - 1e-6) == []
    other = await redisvl.astore(ELSE, "Ten.", metadata={"lang": "de"})
    assert redisvl.delete_by_attributes({"lang": "en, us"})["deleted_entries_count"] == 1
    await redisvl.adelete_by_id(other)
    assert redisvl.check(ASKED) == redisvl.check(ELSE) == []
    await redisvl.astore(ELSE, "Ten.")
    await redisvl.aclear()
    assert await redisvl.acheck(ELSE) == []
