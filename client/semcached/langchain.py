"""A cache for LangChain's models: `set_llm_cache(SemcachedCache())`. Needs `semcached[langchain]`."""

import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.load import dumps, loads
from langchain_core.outputs import ChatGeneration, Generation
from msgspec import UNSET, UnsetType

from semcached import calls
from semcached.calls import Call
from semcached.client import AsyncClient, Client
from semcached.errors import SemcachedError
from semcached.guarded import ask, ask_async, built, default_async_client, default_client, say_once
from semcached.model import Hit, Miss
from semcached.options import checked_options
from semcached.testing import is_testing

ROLES = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
}
NEUTRAL = {"content", "type", "id", "response_metadata", "usage_metadata", "tool_call_id", "example"}
"""Of a message: what goes elsewhere, and what says how it came about, not what it says."""
REMEMBERED = 1024
KEPT = "langchain"
NAME = "langchain"

with warnings.catch_warnings():  # it says once per process that it is beta: here, before there are threads
    warnings.simplefilter("ignore")
    loads("[]", allowed_objects="core")


class SemcachedCache(BaseCache):
    """Asks by the text of the messages; everything else (`llm_string`, tool calls, names) is in the scope.

    Fail-open: without the service each lookup is a miss. Answers with tool calls are served to equal prompts
    only. What isn't whole by its `finish_reason` isn't kept.
    """

    def __init__(
        self,
        *,
        agent_type: str = "langchain",
        model: str | None = None,
        ttl: float | UnsetType | None = UNSET,
        threshold: float | None = None,
        client: Client | None = None,
        async_client: AsyncClient | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        """A cache of one agent_type, by whose policy it goes.

        Args:
            agent_type: which kind of agent asks.
            model: the model's name, for statistics and prices; the scope has it anyway.
            ttl: seconds; absent: the policy's; None: no end.
            threshold: least similarity, instead of the policy's.
            client: for sync calls; else the one of the environment.
            async_client: for async calls; else the one of the environment.
            timeout_s: how long a service that hangs may hold up a call.

        Raises:
            TypeError: a number is none.
            ValueError: a number is out of its range.
        """
        checked_options(ttl=ttl, timeout_s=timeout_s)
        self._named = {"agent_type": agent_type, "model": model}
        self._ttl = {} if ttl is UNSET else {"ttl_s": ttl}
        self._threshold = {} if threshold is None else {"threshold": threshold}
        self._client = client
        self._async_client = async_client
        self._timeout_s = timeout_s
        self._misses: OrderedDict[tuple[str, str], str] = OrderedDict()

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """See LangChain."""
        if is_testing():
            return None
        call = built(NAME, lambda: self._question(prompt, llm_string))
        answer = ask(self._client or default_client(), NAME, call, self._timeout_s)
        return self._found(prompt, llm_string, answer)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """See LangChain."""
        if is_testing():
            return None
        call = built(NAME, lambda: self._question(prompt, llm_string))
        client = self._async_client or default_async_client()
        answer = await ask_async(client, NAME, call, self._timeout_s)
        return self._found(prompt, llm_string, answer)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """See LangChain."""
        if not is_testing():
            call = built(NAME, lambda: self._answer(prompt, llm_string, return_val))
            ask(self._client or default_client(), NAME, call, self._timeout_s)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """See LangChain."""
        if not is_testing():
            call = built(NAME, lambda: self._answer(prompt, llm_string, return_val))
            await ask_async(self._async_client or default_async_client(), NAME, call, self._timeout_s)

    def clear(self, **_: Any) -> None:
        """Delete the answers of the agent_type.

        Raises:
            SemcachedError: it failed; here nothing is passed over.
        """
        client = self._client or default_client()
        if client is None:
            raise SemcachedError("there is no client: see SEMCACHED_URL")
        client.send(self._clearing())

    async def aclear(self, **_: Any) -> None:
        """As `clear`."""
        client = self._async_client or default_async_client()
        if client is None:
            raise SemcachedError("there is no client: see SEMCACHED_URL")
        await client.send(self._clearing())

    def _clearing(self) -> Call[Any]:
        where = {"agent_type": self._named["agent_type"] or ""}
        return calls.invalidate({"agent_type": where["agent_type"]}, ["responses"], dry_run=False)

    def _question(self, prompt: str, llm_string: str) -> Call[Hit | Miss]:
        asked = {**self._named, **query(prompt, llm_string), **self._threshold}
        return calls.lookup(asked)  # type: ignore[arg-type] # the contract's fields

    def _found(self, prompt: str, llm_string: str, answer: Hit | Miss | None) -> RETURN_VAL_TYPE | None:
        if isinstance(answer, Miss):
            self._misses[prompt, llm_string] = answer.lookup_id
            while len(self._misses) > REMEMBERED:
                self._misses.popitem(last=False)
        if not isinstance(answer, Hit) or not isinstance(answer.metadata, dict):
            return None
        generations = _read(answer.metadata.get(KEPT))
        alike = answer.tier == "semantic"
        return None if generations is None or (alike and any(map(_calls_tools, generations))) else generations

    def _answer(self, prompt: str, llm_string: str, generations: RETURN_VAL_TYPE) -> Call[Any] | None:
        kept = dumps(list(generations))
        text = "\n".join(one.text for one in generations)
        metadata = {KEPT: kept, "finish_reason": next(filter(None, map(_finish_reason, generations)), None)}
        answer = {"response": text or kept, "metadata": metadata, **self._ttl}
        lookup_id = self._misses.pop((prompt, llm_string), None)
        named = {} if lookup_id is None else {"lookup_id": lookup_id}
        return calls.store({**self._named, **query(prompt, llm_string), **answer, **named})  # type: ignore[typeddict-item] # the contract's fields


def query(prompt: str, llm_string: str) -> dict[str, Any]:
    """The question as the service wants it.

    A chat model's prompt is its messages in LangChain's JSON, mostly boilerplate: all such prompts look alike
    to an embedder. What their texts don't say goes into `params`.
    """
    messages = _messages(prompt)
    if messages is None:
        return {"prompt": prompt, "params": {"llm": llm_string}}
    rest = [_rest(kwargs) for _, kwargs in messages]
    params: dict[str, Any] = {"llm": llm_string} | ({"messages": rest} if any(rest) else {})
    return {"messages": [_said(role, kwargs) for role, kwargs in messages], "params": params}


def _messages(prompt: str) -> list[tuple[str, dict[str, Any]]] | None:
    """Role and fields of each; None: this is no list of messages that the service has roles for."""
    try:
        given = json.loads(prompt)
    except ValueError:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        return None
    if not all(one.get("lc") == 1 and isinstance(one.get("kwargs"), dict) and one.get("id") for one in given):
        return None
    roles = [ROLES.get(one["id"][-1]) for one in given]
    if not all(_is_content(one["kwargs"].get("content")) for one in given):
        return None
    return (
        [(role, one["kwargs"]) for role, one in zip(roles, given, strict=True) if role]
        if all(roles)
        else None
    )


def _is_content(content: object) -> bool:
    return isinstance(content, str) or (
        isinstance(content, list) and all(isinstance(one, str | dict) for one in content)
    )


def _said(role: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    content = kwargs["content"]
    if isinstance(content, list):
        content = [{"type": "text", "text": one} if isinstance(one, str) else one for one in content]
    called = {"tool_call_id": kwargs["tool_call_id"]} if kwargs.get("tool_call_id") else {}
    return {"role": role, "content": content, **called}


def _rest(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a message says beside its text: tool calls, names."""
    return {name: value for name, value in sorted(kwargs.items()) if name not in NEUTRAL and value}


def _read(kept: Any) -> Sequence[Generation] | None:
    """What was stored; None: another version of LangChain's wrote it, or another program."""
    if not isinstance(kept, str):
        return None
    try:
        found = loads(kept, allowed_objects="core")
    except Exception as error:  # noqa: BLE001 - fail-open: LangChain documents none of what it raises
        say_once(NAME, "read", f"an answer can't be read: {type(error).__name__}: {error}")
        return None
    return found if isinstance(found, list) and all(isinstance(one, Generation) for one in found) else None


def _calls_tools(generation: Generation) -> bool:
    message = generation.message if isinstance(generation, ChatGeneration) else None
    return bool(getattr(message, "tool_calls", None) or getattr(message, "invalid_tool_calls", None))


def _finish_reason(generation: Generation) -> str | None:
    """Why it ended, as OpenAI's and Anthropic's models tell it."""
    told = dict(generation.generation_info or {})
    if isinstance(generation, ChatGeneration):
        told = generation.message.response_metadata | told
    reason = told.get("finish_reason") or told.get("stop_reason")
    return reason if isinstance(reason, str) else None
