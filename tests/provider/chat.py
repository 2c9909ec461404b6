"""POST /v1/chat/completions."""

import json
from collections.abc import Iterator

from tests.provider import words
from tests.provider.script import Asked, Body, Script
from tests.provider.wire import as_event

DONE = b"data: [DONE]\n\n"


def answer(asked: Asked, script: Script, now: float) -> Body:
    """The answer without its usage."""
    request = asked.body
    text, short = words.told(asked, script)
    ends = "tool_calls" if script.calls else "stop"
    end = script.end or ("length" if short else ends)
    choices = [_choice(at, text, script, end, request) for at in range(request.get("n") or 1)]
    return {
        "id": words.fresh("chatcmpl-"),
        "object": "chat.completion",
        "created": int(now),
        "model": request["model"],
        "choices": choices,
        "service_tier": "default",
        "system_fingerprint": "fp_50cad350e4",
    } | script.extra


def _choice(at: int, text: str, script: Script, end: str, request: Body) -> Body:
    said = text if at == 0 else f"{text} ({at})"
    content = None if script.refusal is not None else said or None
    message: Body = {"role": "assistant", "content": content, "refusal": script.refusal, "annotations": []}
    if script.calls:
        message["tool_calls"] = [
            {
                "id": words.fresh("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in script.calls
        ]
    logprobs = _logprobs(words.pieces(said)) if request.get("logprobs") else None
    return {"index": at, "message": message, "logprobs": logprobs, "finish_reason": end}


def _logprobs(pieces: list[str]) -> Body:
    told = [
        {"token": one, "logprob": -0.25, "bytes": list(one.encode()), "top_logprobs": []} for one in pieces
    ]
    return {"content": told, "refusal": None}


def events(body: Body, request: Body) -> list[bytes]:
    """The same as a stream."""
    options = request.get("stream_options") or {}
    counted = bool(options.get("include_usage"))
    chunk = {name: body[name] for name in body if name not in {"choices", "usage", "object"}}
    chunk |= {"object": "chat.completion.chunk"}
    more: Body = {"usage": None} if counted else {}
    if options.get("include_obfuscation") is not False:
        more |= {"obfuscation": "aB3x"}
    out = [as_event(chunk | {"choices": [one]} | more) for one in _choices(body)]
    if counted:
        out.append(as_event(chunk | {"choices": [], "usage": body["usage"]}))
    return [*out, DONE]


def _choices(body: Body) -> Iterator[Body]:
    for choice in body["choices"]:
        for delta, logprobs in _deltas(choice):
            yield {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": None}
    for choice in body["choices"]:
        last = {"delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
        yield {"index": choice["index"]} | last


def _deltas(choice: Body) -> Iterator[tuple[Body, Body | None]]:
    message = choice["message"]
    yield {"role": "assistant", "content": "" if message["content"] else None, "refusal": None}, None
    for piece in words.pieces(message["content"] or ""):
        yield {"content": piece}, _logprobs([piece]) if choice["logprobs"] else None
    for piece in words.pieces(message["refusal"] or ""):
        yield {"refusal": piece}, None
    for at, call in enumerate(message.get("tool_calls", [])):
        told = call["function"]
        opening = call | {"function": told | {"arguments": ""}}
        yield {"tool_calls": [{"index": at} | opening]}, None
        for piece in words.argument_pieces(json.loads(told["arguments"])):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, None
