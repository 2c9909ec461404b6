"""Anthropic's messages: what of a request counts, and which answers are whole."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeGuard

from service.cache.dialects import fields
from service.cache.dialects.dialect import Body, Gathering, Reading, Spent
from service.cache.dialects.messages_stream import Pieces, events
from service.model import Tier

NEUTRAL = frozenset({"stream", "metadata", "cache_control", "diagnostics", "service_tier"})
"""Fields that don't change the answer; all others do, known or not."""

_FINISHED = frozenset({"end_turn", "stop_sequence", "tool_use"})
_FREE = frozenset({"auto", "none"})
_OWN_TOOLS = ("bash_", "text_editor_", "memory_")  # besides `custom`; the client runs them
_SAID = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name"),
}
"""Blocks that a replay can say again, with the texts that each has."""
_ATTRIBUTION = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")


class Messages:
    """POST /v1/messages."""

    path = "/v1/messages"
    provider: Literal["anthropic"] = "anthropic"

    def read(self, body: Body, headers: Mapping[str, str]) -> Reading:
        """A request."""
        streams, messages = body.get("stream") is True, body.get("messages")
        why = _why_not(body)
        if why is not None or not isinstance(messages, list):
            return fields.bypassed(why or "unreadable", streams=streams)
        ids = fields.Ids()
        talk = [_message(one, ids) for one in messages]
        query = _query(self.path, body, talk)
        query["params"] |= _version(headers)
        return fields.reading(query, _tiers(body, talk), streams=streams)

    def gathering(self) -> Gathering:
        """For the stream of an answer."""
        return Pieces(self.is_whole)

    def is_whole(self, answer: Body) -> bool:
        """Whether it ended by itself, with something in it that a replay can say again."""
        blocks = answer.get("content")
        return (
            fields.shallow(answer)
            and answer.get("type") == "message"
            and answer.get("role") == "assistant"
            and all(isinstance(answer.get(name), str) for name in ("id", "model"))
            and isinstance(blocks, list)
            and bool(blocks)
            and all(_is_block(one) for one in blocks)
            and _has_ended(answer)
            and any(block["type"] == "tool_use" for block in blocks) == (answer["stop_reason"] == "tool_use")
            and self.spent(answer) is not None
        )

    def spent(self, answer: Body) -> Spent | None:
        """What it says that it took."""
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            return None
        given, made = usage.get("input_tokens"), usage.get("output_tokens")
        cached, written = (usage.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
        if not (_is_count(given) and _is_count(made) and _is_count(cached) and _is_count(written)):
            return None
        return Spent(given + cached + written, made, cached, written)

    def addressed(self, answer: Body, body: Body) -> Body:  # noqa: ARG002 - it repeats nothing
        """A kept answer as one to `body`."""
        return answer

    def replay(self, answer: Body, *, usage: bool) -> list[bytes]:  # noqa: ARG002 - it is always told
        """A whole answer as a stream."""
        return events(answer)


def _why_not(body: Body) -> str | None:
    """Why a request is bypassed."""
    if not fields.shallow(body) or not isinstance(body.get("stream"), bool | None):
        return "unreadable"
    asked = body.get("diagnostics")
    reasons = {
        "prewarm": body.get("max_tokens") == 0,
        "server_tools": bool(body.get("mcp_servers")) or _has_foreign_tools(body.get("tools")),
        "container": body.get("container") is not None,
        "conversation": body.get("thread") is not None,  # the rest of it lies at the provider
        "diagnostics": isinstance(asked, dict) and asked.get("previous_message_id") is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _has_foreign_tools(tools: Any) -> bool:
    """Whether there is a tool that the provider runs, or that we don't know."""
    if not isinstance(tools, list):
        return False
    kinds = [one.get("type") or "custom" for one in tools if isinstance(one, dict)]
    own = [isinstance(kind, str) and (kind == "custom" or kind.startswith(_OWN_TOOLS)) for kind in kinds]
    return not all(own)


def _message(given: Any, ids: fields.Ids) -> Body:
    if not isinstance(given, dict):
        return fields.whole("tool", given)
    said = fields.bare(given)
    content = fields.plain(said.get("content"))
    if isinstance(content, list):
        content = [_renamed(one, ids) for one in content]
    return fields.message(said | {"content": content} if "content" in said else said)


def _renamed(block: Any, ids: fields.Ids) -> Any:
    """A block with the ids of calls renamed."""
    if not isinstance(block, dict):
        return block
    named = {"tool_use_id"} if "tool_use_id" in block else set()
    if isinstance(block.get("type"), str) and block["type"].endswith("tool_use") and "id" in block:
        named.add("id")
    return block | {name: ids.of(block[name]) for name in sorted(named)}


def _query(path: str, body: Body, talk: list[Body]) -> Body:
    system = fields.plain(fields.bare(_listed(body.get("system"))))
    named = {"messages", "tools", "system"}
    counts = {name: one for name, one in body.items() if one is not None and name not in NEUTRAL | named}
    if system is not None and not isinstance(system, str):
        counts["system"] = system
    ahead = fields.lead(talk)
    return fields.query(
        path,
        counts,
        talk[ahead:],
        system=system if isinstance(system, str) else None,
        before=talk[:ahead],
        tools=fields.definitions(body.get("tools")),
    )


def _listed(system: Any) -> Any:
    """No list at all and an empty one are the same, also where only Claude Code's line stood in it."""
    if not isinstance(system, list):
        return system
    return system[_is_attribution(system[0]) :] or None if system else None


def _is_attribution(block: Any) -> bool:
    """Whether it says who is billed, and nothing to the model: Claude Code makes it anew for each request."""
    if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        return False
    return _ATTRIBUTION.fullmatch(block["text"]) is not None


def _version(headers: Mapping[str, str]) -> Body:
    betas = {one.strip() for one in headers.get("anthropic-beta", "").split(",")} - {""}
    return {"version": headers.get("anthropic-version"), "betas": sorted(betas)}


def _tiers(body: Body, talk: list[Body]) -> tuple[Tier, ...]:
    """Exact only where a similar question's answer can't be meant."""
    choice = body.get("tool_choice")
    call = isinstance(choice, dict) and not fields.is_one_of(choice.get("type"), _FREE)
    return (Tier.EXACT,) if call or not fields.only_text(talk) else tuple(Tier)


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return False
    texts = _SAID.get(block["type"])
    if texts is None or not all(isinstance(block.get(name), str) for name in texts):
        return False
    if block["type"] == "text":
        cited = block.get("citations") or []
        return isinstance(cited, list) and all(isinstance(one, dict) for one in cited)
    return block["type"] != "tool_use" or _is_own_call(block)


def _is_own_call(block: Body) -> bool:
    """Whether the model itself calls the tool, no program that runs at the provider."""
    caller = block.get("caller")
    direct = caller is None or (isinstance(caller, dict) and caller.get("type") == "direct")
    return isinstance(block.get("input"), dict) and direct


def _has_ended(answer: Body) -> bool:
    """Whether the model ended it, and nobody stopped it."""
    reason, sequence = answer.get("stop_reason"), answer.get("stop_sequence")
    return (
        isinstance(reason, str)
        and reason in _FINISHED
        and isinstance(sequence, str) == (reason == "stop_sequence")
        and isinstance(sequence, str | None)
        and answer.get("stop_details") is None
        and answer.get("container") is None
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
