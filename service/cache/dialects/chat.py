"""OpenAI's chat completions: what of a request counts, and which answers are whole."""

from collections.abc import Mapping
from typing import Any, Literal

from service.cache.dialects import fields
from service.cache.dialects.chat_stream import TEXTS, Chunks, chunks
from service.cache.dialects.dialect import Body, Gathering, Reading, Spent
from service.model import Tier

NEUTRAL = frozenset(
    {
        "stream", "stream_options", "user", "safety_identifier", "metadata", "service_tier", "store",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control",
    }
)  # fmt: skip
"""Fields that don't change the answer; all others do, known or not."""

_FINISHED = frozenset({"stop", "tool_calls", "function_call"})
_OWN_TOOLS = frozenset({"function", "custom"})  # the client runs them
_CALLED = {"function": ("name", "arguments"), "custom": ("name", "input")}


class Chat:
    """POST /v1/chat/completions."""

    path = "/v1/chat/completions"
    provider: Literal["openai"] = "openai"

    def read(self, body: Body, headers: Mapping[str, str]) -> Reading:  # noqa: ARG002 - the body says it all
        """A request."""
        streams, options = body.get("stream") is True, body.get("stream_options")
        wanted = isinstance(options, dict) and options.get("include_usage") is True
        usage = wanted or not streams
        messages = body.get("messages")
        why = _why_not(body)
        if why is not None or not isinstance(messages, list):
            return fields.bypassed(why or "unreadable", streams=streams, usage_wanted=usage)
        talk = _conversation(messages)
        return fields.reading(
            _fields(self.path, body, talk), _tiers(body, talk), streams=streams, usage_wanted=usage
        )

    def gathering(self) -> Gathering:
        """For the stream of an answer."""
        return Chunks(self.is_whole)

    def is_whole(self, answer: Body) -> bool:
        """Whether every choice ended by itself with something in it that a replay can say again."""
        if answer.get("object") != "chat.completion" or answer.get("error"):
            return False
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return False
        return all(_is_whole(at, choice) for at, choice in enumerate(choices))

    def spent(self, answer: Body) -> Spent | None:
        """What it says that it took."""
        return fields.spent(answer.get("usage"), ("prompt_tokens", "completion_tokens"))

    def addressed(self, answer: Body, body: Body) -> Body:
        """A kept answer as one to `body`."""
        return answer | {"metadata": body.get("metadata")} if "metadata" in answer else answer

    def replay(self, answer: Body, *, usage: bool) -> list[bytes]:
        """A whole answer as a stream."""
        return chunks(answer, usage=usage)


def _why_not(body: Body) -> str | None:
    """Why a request is bypassed."""
    if not fields.shallow(body) or not isinstance(body.get("stream"), bool | None):
        return "unreadable"
    modalities = body.get("modalities")
    if body.get("audio") is not None or (isinstance(modalities, list) and "audio" in modalities):
        return "audio"
    if body.get("web_search_options") is not None or _has_foreign_tools(body.get("tools")):
        return "server_tools"
    return fields.preparing(body)


def _has_foreign_tools(tools: Any) -> bool:
    """Whether there is a tool that the provider runs."""
    if not isinstance(tools, list):
        return False
    kinds = [one.get("type", "function") for one in tools if isinstance(one, dict)]
    return any(isinstance(kind, str) and kind not in _OWN_TOOLS for kind in kinds)


def _conversation(messages: list[Any]) -> list[Body]:
    ids = fields.Ids()
    return [_message(one, ids) for one in messages]


def _message(given: Any, ids: fields.Ids) -> Body:
    if not isinstance(given, dict):
        return fields.whole("tool", given)
    said = fields.bare(given)
    if said.get("annotations") == []:  # as an answer is sent back
        del said["annotations"]
    if "content" in said:
        said["content"] = fields.plain(said["content"])
    if "tool_call_id" in said:
        said["tool_call_id"] = ids.of(said["tool_call_id"])
    calls = said.get("tool_calls")
    if isinstance(calls, list):
        said["tool_calls"] = [_renamed(call, ids) for call in calls]
    return fields.message(said)


def _renamed(call: Any, ids: fields.Ids) -> Any:
    return call | {"id": ids.of(call["id"])} if isinstance(call, dict) and "id" in call else call


def _fields(path: str, body: Body, talk: list[Body]) -> Body:
    counts = {
        name: one
        for name, one in body.items()
        if one is not None and name not in NEUTRAL and name not in {"messages", "tools"}
    }
    ahead = fields.lead(talk)
    system = _system(talk[:ahead])
    return fields.query(
        path,
        counts,
        talk[ahead:],
        system=system,
        before=talk[:ahead] if system is None else (),
        tools=fields.definitions(body.get("tools")),
    )


def _system(before: list[Body]) -> str | None:
    """What stands before the conversation, where that is one plain message of the system."""
    if len(before) != 1 or before[0].keys() != {"role", "content"} or before[0]["role"] != "system":
        return None
    content = before[0]["content"]
    return content if isinstance(content, str) else None


def _tiers(body: Body, talk: list[Body]) -> tuple[Tier, ...]:
    """Exact only where a similar question's answer can't be meant: several, their odds, or a call."""
    alone = body.get("n") not in {None, 1} if isinstance(body.get("n"), int | None) else True
    odds = bool(body.get("logprobs")) or body.get("top_logprobs") is not None
    call = fields.forced(body.get("tool_choice")) or isinstance(body.get("function_call"), dict)
    return (Tier.EXACT,) if alone or odds or call or not fields.only_text(talk) else tuple(Tier)


def _is_whole(at: int, choice: Any) -> bool:
    if not isinstance(choice, dict) or choice.get("index") != at or "delta" in choice:
        return False
    message, reason = choice.get("message"), choice.get("finish_reason")
    return (
        isinstance(message, dict)
        and isinstance(reason, str)
        and reason in _FINISHED
        and _is_odds(choice.get("logprobs"))
        and _is_message(message)
    )


def _is_message(message: Body) -> bool:
    """Whether it has a text or calls, and nothing but what a stream can say."""
    known = {"role", "annotations", "tool_calls", "function_call", *TEXTS}
    if message.get("role") != "assistant" or any(message[name] for name in message.keys() - known):
        return False
    texts = [message.get(name) for name in TEXTS]
    calls, call = message.get("tool_calls") or [], message.get("function_call")
    return (
        not message.get("refusal")
        and all(isinstance(one, str | None) for one in texts)
        and isinstance(message.get("annotations"), list | None)
        and isinstance(calls, list)
        and all(_is_call(one) for one in calls)
        and (call is None or _says(call, _CALLED["function"]))
        and bool(message.get("content") or calls or call)
    )


def _is_call(call: Any) -> bool:
    if not isinstance(call, dict) or not isinstance(call.get("id"), str) or "index" in call:
        return False
    kinds = [kind for kind in _CALLED if call.get(kind) is not None]
    return kinds == [call.get("type")] and _says(call[kinds[0]], _CALLED[kinds[0]])


def _says(called: Any, names: tuple[str, str]) -> bool:
    return isinstance(called, dict) and all(isinstance(called.get(name), str) for name in names)


def _is_odds(logprobs: Any) -> bool:
    if logprobs is None:
        return True
    return isinstance(logprobs, dict) and all(isinstance(one, list | None) for one in logprobs.values())
