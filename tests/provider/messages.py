"""POST /v1/messages."""

from collections.abc import Iterator
from typing import Any

from tests.provider import words
from tests.provider.script import Asked, Body, Script
from tests.provider.wire import as_event

CUMULATIVE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "server_tool_use",
)


def answer(asked: Asked, script: Script, now: float) -> Body:
    """The answer without its usage."""
    del now
    text, short = words.told(asked, script)
    ends = "tool_use" if script.calls else "end_turn"
    end = script.end or ("max_tokens" if short else ends)
    return {
        "id": words.fresh("msg_01"),
        "type": "message",
        "role": "assistant",
        "model": asked.body["model"],
        "content": _content(text, script),
        "stop_reason": "refusal" if script.refusal is not None else end,
        "stop_sequence": None,
        "stop_details": None if script.refusal is None else {"type": "refusal", "category": script.refusal},
    } | script.extra


def _content(text: str, script: Script) -> list[Body]:
    blocks: list[Body] = []
    if script.thinking is not None:
        blocks.append({"type": "thinking", "thinking": script.thinking, "signature": words.fresh("Eq")})
    blocks += script.more
    if text:
        blocks.append({"type": "text", "text": text})
    for call in script.calls:
        ids = {"id": words.fresh("toolu_01"), "name": call.name}
        blocks.append({"type": "tool_use"} | ids | {"input": call.arguments})
    return blocks


def events(body: Body) -> list[bytes]:
    """The same as a stream."""
    return [as_event(one, one["type"]) for one in _events(body)]


def _events(body: Body) -> Iterator[Body]:
    usage = body["usage"]
    begun: Body = {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    first = body | begun | {"usage": usage | {"output_tokens": min(1, usage["output_tokens"])}}
    yield {"type": "message_start", "message": first}
    for at, block in enumerate(body["content"]):
        opening, deltas = _block(block)
        yield {"type": "content_block_start", "index": at, "content_block": opening}
        if at == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": at, "delta": delta}
        yield {"type": "content_block_stop", "index": at}
    ends = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    told = {name: usage[name] for name in CUMULATIVE if name in usage}
    yield {"type": "message_delta", "delta": ends, "usage": told}
    yield {"type": "message_stop"}


def _block(block: Body) -> tuple[Body, list[Any]]:
    """How a block begins, and what is added to it."""
    kind = block["type"]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations") or []]
        opening = block | {"text": ""} | ({"citations": []} if cited else {})
        return opening, [*cited, *_added("text", block["text"])]
    if kind == "thinking":
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return block | {"thinking": "", "signature": ""}, [*_added("thinking", block["thinking"]), signed]
    if kind in {"tool_use", "server_tool_use"}:
        parts = words.argument_pieces(block["input"]) if block["input"] else []
        deltas = [{"type": "input_json_delta", "partial_json": one} for one in ["", *parts]]
        return block | {"input": {}}, deltas
    return block, []


def _added(kind: str, text: str) -> list[Body]:
    return [{"type": f"{kind}_delta", kind: one} for one in words.pieces(text)]
