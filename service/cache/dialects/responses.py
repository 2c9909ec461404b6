"""OpenAI's responses: what of a request counts, and which answers are whole."""

from collections.abc import Mapping
from typing import Any, Literal

from service.cache.dialects import fields
from service.cache.dialects.dialect import Body, Gathering, Reading, Spent
from service.cache.dialects.responses_stream import Events, events
from service.model import Tier

NEUTRAL = frozenset(
    {
        "stream", "stream_options", "user", "safety_identifier", "metadata", "service_tier", "cache_control",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    }
)  # fmt: skip
"""Fields that don't change the answer; all others do, known or not."""

_ASSUMED = {"store": True, "background": False}  # said or not, it is the same
_REPEATED = ("metadata", "user", "safety_identifier", "prompt_cache_key")  # by the answer, of the request
_OWN_TOOLS = frozenset({"function", "custom", "namespace"})  # the client runs them
_CALLS = {"function_call": ("name", "arguments"), "custom_tool_call": ("name", "input")}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_ODDS = "message.output_text.logprobs"


class Responses:
    """POST /v1/responses."""

    path = "/v1/responses"
    provider: Literal["openai"] = "openai"

    def read(self, body: Body, headers: Mapping[str, str]) -> Reading:  # noqa: ARG002 - the body says it all
        """A request."""
        streams = body.get("stream") is True
        why = _why_not(body)
        if why is not None:
            return fields.bypassed(why, streams=streams)
        talk = _conversation(body["input"])
        return fields.reading(_fields(self.path, body, talk), _tiers(body, talk), streams=streams)

    def gathering(self) -> Gathering:
        """For the stream of an answer."""
        return Events(self.is_whole)

    def is_whole(self, answer: Body) -> bool:
        """Whether it is completed, and has something in it that a replay can say again."""
        if answer.get("object") != "response" or answer.get("status") != "completed":
            return False
        if answer.get("error") or answer.get("incomplete_details") or not isinstance(answer.get("id"), str):
            return False
        output = answer.get("output")
        return isinstance(output, list) and all(_is_item(one) for one in output) and _says(output)

    def spent(self, answer: Body) -> Spent | None:
        """What it says that it took."""
        return fields.spent(answer.get("usage"), ("input_tokens", "output_tokens"))

    def addressed(self, answer: Body, body: Body) -> Body:
        """A kept answer as one to `body`: another user's name isn't told."""
        own = {name: body.get(name) for name in _REPEATED if name in answer}
        if own.get("metadata", 0) is None:
            own["metadata"] = {}
        return answer | own

    def replay(self, answer: Body, *, usage: bool) -> list[bytes]:  # noqa: ARG002 - it is always told
        """A whole answer as a stream."""
        return events(answer)


def _why_not(body: Body) -> str | None:
    """Why a request is bypassed."""
    if not fields.shallow(body):
        return "unreadable"
    given = body.get("input")
    items = [body, *given] if isinstance(given, list) else [body]
    reasons = {
        "previous_response_id": body.get("previous_response_id") is not None,
        "conversation": body.get("conversation") is not None,
        "background": body.get("background") not in (None, False),
        "prewarm": body.get("generate") is False,
        "prompt": _has_loose_prompt(body.get("prompt")),
        "server_tools": any(_has_foreign_tools(one.get("tools")) for one in items if isinstance(one, dict)),
        "unreadable": not _is_readable(body),
    }
    return next((why for why, holds in reasons.items() if holds), fields.preparing(body))


def _is_readable(body: Body) -> bool:
    stream, given, instructions = (body.get(name) for name in ("stream", "input", "instructions"))
    return (
        isinstance(stream, bool | None)
        and isinstance(given, str | list)
        and isinstance(instructions, str | None)
    )


def _has_loose_prompt(prompt: Any) -> bool:
    """Whether it names a template that may change at the provider from one call to the next."""
    return prompt is not None and not (isinstance(prompt, dict) and prompt.get("version"))


def _has_foreign_tools(tools: Any) -> bool:
    """Whether there is a tool that the provider runs, or one whose calls no replay can say."""
    for one in tools if isinstance(tools, list) else []:
        kind = one.get("type") if isinstance(one, dict) else None
        if isinstance(kind, str) and (kind not in _OWN_TOOLS or _has_foreign_tools(one.get("tools"))):
            return True
    return False


def _conversation(given: str | list[Any]) -> list[Body]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    ids = fields.Ids()
    return [_item(one, ids) for one in given]


def _item(given: Any, ids: fields.Ids) -> Body:
    if not isinstance(given, dict):
        return fields.whole("tool", given)
    item = fields.bare(given)
    if item.get("status") == "completed":  # as an answer is sent back
        del item["status"]
    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        return _message(item)
    if not isinstance(kind, str) or kind not in _OUTPUTS | _CALLS.keys():
        return fields.whole("assistant" if kind == "reasoning" else "tool", item)
    item |= {name: ids.of(item[name]) for name in ("id", "call_id") if name in item}
    if kind in _OUTPUTS and "output" in item:
        item["output"] = fields.plain(item["output"], "input_text")
    return fields.whole("assistant" if kind in _CALLS else "tool", item)


def _message(item: Body) -> Body:
    said = {name: one for name, one in item.items() if name not in {"type", "id"}}
    kind = "output_text" if said.get("role") == "assistant" else "input_text"
    if isinstance(said.get("content"), list):
        said["content"] = fields.plain([_part(one) for one in said["content"]], kind)
    return fields.message(said)


def _part(part: Any) -> Any:
    """A text part without what an answer has empty."""
    if not isinstance(part, dict) or part.get("type") != "output_text":
        return part
    return {
        name: one for name, one in part.items() if not (name in {"annotations", "logprobs"} and one == [])
    }


def _fields(path: str, body: Body, talk: list[Body]) -> Body:
    said = {name: one for name, one in body.items() if one is not None and name not in NEUTRAL}
    apart = {"input", "instructions", "tools"}
    counts = {
        name: one for name, one in said.items() if name not in apart and one is not _ASSUMED.get(name, said)
    }
    ahead = fields.lead(talk)
    return fields.query(
        path,
        counts,
        talk[ahead:],
        system=body.get("instructions"),
        before=talk[:ahead],
        tools=fields.definitions(body.get("tools")),
    )


def _tiers(body: Body, talk: list[Body]) -> tuple[Tier, ...]:
    """Exact only where a similar question's answer can't be meant: its odds, a call, or one to go on from.

    Who sends back the id of an answer that the provider stored goes on from the question that it answered.
    """
    include = body.get("include")
    odds = isinstance(include, list) and _ODDS in include
    told = odds or bool(body.get("top_logprobs"))
    alone = told or body.get("store") is not False or fields.forced(body.get("tool_choice"))
    return (Tier.EXACT,) if alone or not fields.only_text(talk) else tuple(Tier)


def _says(output: list[Body]) -> bool:
    """Whether there is a call, or a text that isn't empty."""
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return any(part["text"] for part in parts) or any(item["type"] in _CALLS for item in output)


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    kind, status = item.get("type"), item.get("status", "completed")
    if not isinstance(kind, str) or status not in ("completed", None):
        return False
    if kind in _CALLS:
        return all(isinstance(item.get(name), str) for name in ("call_id", *_CALLS[kind]))
    if kind == "message":
        return item.get("role") == "assistant" and _are_parts(item.get("content"), "output_text")
    return kind == "reasoning" and _is_reasoning(item)


def _is_reasoning(item: Body) -> bool:
    content = item.get("content")
    told = content is None or _are_parts(content, "reasoning_text")
    return told and _are_parts(item.get("summary"), "summary_text")


def _are_parts(parts: Any, kind: str) -> bool:
    """Whether these are texts of a kind; no refusals."""
    return isinstance(parts, list) and all(_is_part(one, kind) for one in parts)


def _is_part(part: Any, kind: str) -> bool:
    return (
        isinstance(part, dict)
        and part.get("type") == kind
        and isinstance(part.get("text"), str)
        and isinstance(part.get("annotations"), list | None)
        and isinstance(part.get("logprobs"), list | None)
    )
