"""POST /v1/responses."""

import json
from collections.abc import Iterator

from tests.provider import words
from tests.provider.script import Asked, Body, Script
from tests.provider.wire import as_event

ASKED: Body = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What the answer says again of the request."""


def answer(asked: Asked, script: Script, now: float) -> Body:
    """The answer without its usage."""
    request = asked.body
    text, short = words.told(asked, script)
    end = script.end or ("max_output_tokens" if short else None)
    told = {name: request.get(name, default) for name, default in ASKED.items()}
    reasoning = {"effort": None, "summary": None} | (request.get("reasoning") or {})
    return {
        "id": words.fresh("resp_"),
        "object": "response",
        "created_at": int(now),
        "status": "completed" if end is None else "incomplete",
        "error": None,
        "incomplete_details": None if end is None else {"reason": end},
        "model": request["model"],
        "output": _output(text, script, "completed" if end is None else "incomplete"),
        "reasoning": reasoning,
        **told,
    } | script.extra


def _output(text: str, script: Script, status: str) -> list[Body]:
    items: list[Body] = []
    if script.thinking is not None:
        summary = [{"type": "summary_text", "text": script.thinking}]
        items.append({"id": words.fresh("rs_"), "type": "reasoning", "summary": summary})
    items += script.more
    if text or script.refusal is not None:
        items.append(_message(text, script.refusal, status))
    for call in script.calls:
        ids = {"id": words.fresh("fc_"), "type": "function_call", "call_id": words.fresh("call_")}
        told = {"name": call.name, "arguments": json.dumps(call.arguments)}
        items.append(ids | told | {"status": "completed"})
    return items


def _message(text: str, refusal: str | None, status: str) -> Body:
    said = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    part = said if refusal is None else {"type": "refusal", "refusal": refusal}
    ids = {"id": words.fresh("msg_"), "type": "message"}
    return ids | {"status": status, "role": "assistant", "content": [part]}


def events(body: Body, request: Body) -> list[bytes]:
    """The same as a stream."""
    obfuscates = (request.get("stream_options") or {}).get("include_obfuscation") is not False
    out = []
    for number, one in enumerate(_events(body)):
        told = one | {"sequence_number": number}
        if one["type"].endswith(".delta") and obfuscates:
            told |= {"obfuscation": "aB3x"}
        out.append(as_event(told, one["type"]))
    return out


def _events(body: Body) -> Iterator[Body]:
    begun = body | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for at, item in enumerate(body["output"]):
        where = {"output_index": at}
        yield {"type": "response.output_item.added", "item": _opening(item)} | where
        for one in _inside(item):
            yield one | where | {"item_id": item["id"]}
        yield {"type": "response.output_item.done", "item": item} | where
    yield {"type": f"response.{body['status']}", "response": body}


def _opening(item: Body) -> Body:
    empty: dict[str, Body] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "reasoning": {"summary": []},
    }
    begun = {"status": "in_progress"} if "status" in item else {}
    return item | empty.get(item["type"], {}) | begun


def _inside(item: Body) -> Iterator[Body]:
    if item["type"] == "message":
        for at, part in enumerate(item["content"]):
            yield from _part(at, part)
    elif item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in words.argument_pieces(json.loads(item["arguments"])):
            yield {"type": f"{kind}.delta", "delta": piece}
        yield {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
    elif item["type"] == "reasoning":
        for at, part in enumerate(item["summary"]):
            yield from _summary(at, part)


def _part(at: int, part: Body) -> Iterator[Body]:
    where = {"content_index": at}
    field = "text" if part["type"] == "output_text" else "refusal"
    kind = "response.output_text" if field == "text" else "response.refusal"
    more: Body = {"logprobs": []} if field == "text" else {}
    yield {"type": "response.content_part.added", "part": part | {field: ""}} | where
    for piece in words.pieces(part[field]):
        yield {"type": f"{kind}.delta", "delta": piece} | more | where
    yield {"type": f"{kind}.done", field: part[field]} | more | where
    yield {"type": "response.content_part.done", "part": part} | where


def _summary(at: int, part: Body) -> Iterator[Body]:
    where = {"summary_index": at}
    yield {"type": "response.reasoning_summary_part.added", "part": part | {"text": ""}} | where
    for piece in words.pieces(part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", "delta": piece} | where
    yield {"type": "response.reasoning_summary_text.done", "text": part["text"]} | where
    yield {"type": "response.reasoning_summary_part.done", "part": part} | where
