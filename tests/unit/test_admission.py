"""Which answers are stored: both sides of each rule."""

from typing import Any

import msgspec
import pytest

from service.cache.admission import is_error, is_refusal, refusal_of, text_of
from service.model import Admission, StoreRequest

ASKED = {"agent_type": "a", "prompt": "q"}


def refused(response: Any, metadata: Any = None, **rules: Any) -> str | None:
    body = msgspec.json.encode(ASKED | {"response": response, "metadata": metadata})
    request = msgspec.json.decode(body, type=StoreRequest)
    return refusal_of(response, request, msgspec.convert(rules, Admission))


def chat(content: Any, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"object": "chat.completion", "choices": [{"message": said, "finish_reason": finish}]}


def response(content: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": content}]
    return {"object": "response", "status": status, "error": None, "output": output, **fields}


def message(content: Any, stop: str | None = "end_turn") -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": stop}


def block(text: str, kind: str = "text") -> dict[str, str]:
    return {"type": kind, "text": text}


TOOL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("a", "a"),
        (chat("a"), "a"),
        (chat([block("a"), block("b")]), "a\nb"),
        (chat(None, tool_calls=[TOOL]), None),
        (response([block("a", "output_text")]), "a"),
        (message([block("a")]), "a"),
        (message([{"type": "thinking", "thinking": "hm"}, block("a")]), "a"),
        (message([block("a"), {"type": "tool_use", "name": "f", "input": {}}]), None),
        ({"answer": "a"}, None),
        ({"choices": "many", "output": 1, "content": None, "type": "message"}, None),
        ({"choices": [1, {}, {"message": 1}], "object": "response", "output": [{"content": [None]}]}, None),
        ([1], None),
        (None, None),
    ],
)
def test_the_text_inside(answer: Any, text: str | None) -> None:
    assert text_of(answer) == text


@pytest.mark.parametrize(
    ("answer", "metadata"),
    [
        (chat("a", "length"), None),
        (chat("a", "content_filter"), None),
        (response([block("a")], "incomplete"), None),
        (response([block("a")], "failed"), None),
        (response([block("a")], "in_progress"), None),
        (message([block("a")], "max_tokens"), None),
        (message([block("a")], "refusal"), None),
        (message([block("a")], "pause_turn"), None),
        ("a", {"finish_reason": "length"}),
        ("a", {"finish_reason": "MAX_TOKENS"}),
        ("a", {"stop_reason": "max_tokens"}),
    ],
)
def test_a_truncated_answer_is_never_stored(answer: Any, metadata: Any) -> None:
    assert refused(answer, metadata, refusals=False) == "finish_reason"


@pytest.mark.parametrize(
    ("answer", "metadata"),
    [
        (chat("a"), None),
        (chat("a", None), None),
        (chat(None, "tool_calls", tool_calls=[TOOL]), None),
        (response([block("a", "output_text")]), None),
        (message([block("a")]), None),
        (message([block("a")], "stop_sequence"), None),
        (message([block("a")], "tool_use"), None),
        ("a", {"finish_reason": "stop", "stop_reason": None}),
        ("a", {"finish_reason": 5}),
        ({"length": "length", "status": "incomplete", "stop_reason": "max_tokens"}, None),
    ],
)
def test_a_whole_answer_is(answer: Any, metadata: Any) -> None:
    assert refused(answer, metadata) is None


@pytest.mark.parametrize(
    ("answer", "rules", "why"),
    [
        ("", {}, "min_chars"),
        (" \n", {}, "min_chars"),
        (None, {}, "min_chars"),
        (chat(""), {}, "min_chars"),
        (0, {}, None),
        ([], {}, None),
        ("four", {"min_chars": 5}, "min_chars"),
        ("fours", {"min_chars": 5}, None),
        (chat("four"), {"min_chars": 5}, "min_chars"),
        ({"a": 1}, {"min_chars": 5}, None),
        (12, {"min_chars": 5}, "min_chars"),
        ("Call our COMPETITOR", {"forbid": ["competitor"]}, "forbid"),
        (chat("Call our competitor"), {"forbid": ["Competitor"]}, "forbid"),
        ({"a": "Competitor"}, {"forbid": ["competitor"]}, "forbid"),
        ("cafe\u0301", {"forbid": ["CAFÉ"]}, "forbid"),
        ("don\u2019t", {"forbid": ["don't"]}, "forbid"),
        (chat("fine", model="competitor"), {"forbid": ["competitor"]}, None),
        ("Yours, ACME", {"require": ["acme", "yours"]}, None),
        ("Yours", {"require": ["acme", "yours"]}, "require"),
    ],
)
def test_a_tenants_own_rules(answer: Any, rules: dict[str, Any], why: str | None) -> None:
    assert refused(answer, **rules) == why


@pytest.mark.parametrize(
    "answer",
    [
        "Error: connection refused",
        "error: ENOENT: no such file or directory, open 'x'",
        "API error: bad key",
        "**Error:** it broke",
        "ValueError: invalid literal for int()",
        "java.lang.NullPointerException: Cannot invoke",
        "openai.RateLimitError: Error code: 429 - {'error': {'message': 'Rate limit reached'}}",
        "Unhandled exception: boom",
        'Traceback (most recent call last):\n  File "a.py", line 1\n    1/0\nZeroDivisionError: by zero',
        "```\nTraceback (most recent call last):\n  x\nKeyError: 'a'\n```",
        "Internal Server Error",
        "500 Internal Server Error",
        "HTTP 503 Service Unavailable",
        "HTTP/1.1 502 Bad Gateway",
        "429 Too Many Requests",
        "Error code: 429",
        "Error 500: oops",
        "Rate limit exceeded, please try again in 20s",
        "Rate limit reached for gpt-6 in organization org-x",
        "You exceeded your current quota, please check your plan and billing details.",
        "That model is currently overloaded with other requests. You can retry your request.",
        "An unexpected error occurred. Please try again.",
        "Request timed out.",
        "Failed to fetch",
        "<html>\n<head><title>502 Bad Gateway</title></head></html>",
        {"error": "boom"},
        {"error": {"message": "boom", "code": 1}},
        {"error": {}},
        {"error": True},
        {"isError": True, "content": []},
        {"is_error": True},
        {"status": "failed"},
        {"status": "error", "message": "no"},
        {"type": "error", "error": {"type": "overloaded_error"}},
    ],
)
def test_errors_are_kept_out(answer: Any) -> None:
    assert is_error(answer)
    assert refused(answer) == "error"
    assert refused(answer, refusals=False) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Error: ENOENT means that a file or folder doesn't exist. Check the path.",
        'The message "Error: ENOENT" says that a file is missing.',
        '"429 Too Many Requests" means you sent too many requests.',
        "404 errors come from missing pages.",
        "Errors are part of life.",
        "Error: the word comes from Latin. " + "Sailors used it first. " * 50,
        "Traceback (most recent call last):\n  x\nKeyError: 'a'\n\nThe key is missing. Use dict.get instead.",
        "Exception: if you're under 18, ask a parent.",
        "Terror: a novel by Dan Simmons.",
        "Rate limits are 60 calls per minute.",
        "ValueError",
        "Request a quote on our page.",
        {"error": None, "answer": 1},
        {"error": False},
        {"error": ""},
        {"error": 0},
        {"error": []},
        {"errors": ["x"]},
        {"isError": False},
        {"isError": "true"},
        {"status": "ok"},
        {"status": 500},
        ["error"],
        5,
        None,
    ],
)
def test_what_only_speaks_of_errors_is_none(answer: Any) -> None:
    assert not is_error(answer)
    assert refused(answer) in {None, "min_chars"}


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "I am sorry, I cannot do this.",
        "I'm really sorry, but I won't be able to do that.",
        "Sorry, I'm unable to help.",
        "I apologize, but I cannot fulfill this request.",
        "Unfortunately, I am not able to access your account.",
        "I cannot assist with that.",
        "I am unable to provide legal advice.",
        "I'm not able to help with that.",
        "I won't be able to help with that.",
        "I must decline.",
        "As an AI language model, I don't have personal opinions.",
        "As an AI, I can't browse the internet.",
        "I'm sorry, but as an AI language model I cannot do that",
        "I don't have access to real-time information.",
        "Sorry, but I don't have enough information to answer.",
        '"I can\'t help with that."',
    ],
)
def test_refusals_are_kept_out(text: str) -> None:
    assert is_refusal(text)
    assert refused(text) == "refusal"
    assert refused(chat(text)) == "refusal"
    assert refused(text, refusals=False) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that! To return your order, go to Orders.",
        "Sorry, we can't refund opened items.",
        "Unfortunately, Paris has no direct flight there; change in Rome.",
        "As an AI engineer, you should learn Python.",
        "As an AI language model, I can translate that: bonjour.",
        "I can't believe it's that easy: press the button.",
        "You can't help with that before the parcel is posted.",
        "If the clerk says \"I'm sorry, but I can't help with that\", ask for the manager.",
        "I'm sorry, but I can't recommend one plan over the other without numbers. " + "Here they are. " * 80,
        "Sorry is a programming language. I won it in a lottery.",
    ],
)
def test_what_is_only_polite_is_stored(text: str) -> None:
    assert not is_refusal(text)
    assert refused(text) is None


def test_a_refusal_in_a_place_of_its_own() -> None:
    assert refused(chat("", refusal="No.")) == "min_chars"
    assert refused(chat("Well.", refusal="No.")) == "refusal"
    assert refused(response([{"type": "refusal", "refusal": "No."}])) == "refusal"
    assert refused(chat("Well.", refusal=None)) is None
