"""Which answers are stored. docs/policies.md says what each rule takes for what."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from service.model import Admission, StoreRequest

LONGEST_NOTICE = 1000
"""Characters. A longer text says more than that something failed, or was refused."""

BAD_REQUEST = 400

CUT_SHORT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded", "incomplete"}
    | {"content_filter", "safety", "recitation", "guardrail_intervened", "refusal", "pause_turn"}
    | {"failed", "error"}
)
"""Why providers stop before an answer is whole; compared without case."""

_ABLE = (
    r"(?:can(?:'t|not| not)|could(?:n't| not)|am (?:not able|unable)|'m (?:not able|unable)|won't|will not)"
)
_DOING = (
    r"(?:help|assist|provide|answer|do|fulfil+|comply|support|discuss|share|create|generate|continue|engage|"
    r"access|browse|complete|respond|offer|give|perform|process|write|talk|advise|look up)"
)
_SORRY = (
    r"(?:i'?m (?:very |so |really )?sorry|i am (?:very |so )?sorry|sorry|i apologi[sz]e|my apologies|"
    r"unfortunately)"
)
_SORRY, _ABLE, _DOING = (one.replace(" ", r"\ ") for one in (_SORRY, _ABLE, _DOING))  # as VERBOSE wants them
_REFUSAL = re.compile(
    rf"""
    {_SORRY}[,.!;:]?\s(?:but\s)?(?:as\ an?\ ai\b[^.]{{0,60}}?\s)?i\s?
        (?:{_ABLE}|do(?:n't|\ not)\ (?:have|know)|must\ decline|have\ to\ decline)\b
    | {_SORRY}[,.!;:]?\s(?:but\s)?(?:that|this)(?:'s|\ is)\ (?:not\ something|outside)
    | as\ an?\ ai(?:\ (?:language\ )?(?:model|assistant|system|chatbot))?[^.]{{0,60}}?,?\s
        i\s?(?:{_ABLE}|do(?:n't|\ not)\ (?:have|know)|have\ no\b|must\ decline)
    | i\s?{_ABLE}\ (?:be\ able\ )?(?:to\ )?{_DOING}\b
    | i\ do(?:n't|\ not)\ have\ (?:access|the\ ability|enough|any\ information|real-time|permission)
    | i\ (?:must|have\ to)\ (?:respectfully\ )?decline\b
    | i'?d\ rather\ not\b
    """,
    re.VERBOSE,
)
_ERROR = re.compile(
    r"""
    (?!terror)
    (?: (?:(?:fatal|internal|unexpected|unknown|server|api|runtime|network|connection)\ )?error
      | (?:[a-z_]\w*\.)*[a-z_]\w*(?:error|exception)
      | unhandled\ exception
    )\s*(?:\(?\d{3}\)?\s*)?[:!]
    | error\ (?:code)?:?\ ?[45]\d{2}\b
    | (?:http(?:/\d(?:\.\d)?)?\ |error\ (?:code\ )?|status\ (?:code\ )?)?[45]\d{2}[\s:\-]+
        (?:too\ many\ requests|(?:internal\ )?server\ error|bad\ gateway|gateway\ time-?out|bad\ request
          |service\ (?:temporarily\ )?unavailable|unauthori[sz]ed|forbidden|not\ found|request\ timeout)
    | (?:internal\ server\ error|bad\ gateway|service\ (?:temporarily\ )?unavailable|gateway\ time-?out
        |too\ many\ requests)\s*(?:[.:!(]|$)
    | an?\ (?:internal\ |unexpected\ |unknown\ |server\ )*(?:error|exception)\ (?:has\ )?occurred
    | (?:the\ )?(?:request|operation|connection|query|call)\ (?:has\ )?timed\ out\b
    | (?:api\ )?rate[ -]limit(?:ed)?\ (?:was\ |has\ been\ |is\ )?(?:exceeded|reached|hit|error)\b
    | you(?:'ve|\ have)?\ (?:exceeded|reached|hit)\ your\ (?:current\ |daily\ |monthly\ )?
        (?:quota|rate\ limit|usage\ limit)
    | (?:that\ |the\ )?(?:model|server|service|engine)\ is\ (?:currently\ |temporarily\ )?
        (?:overloaded|unavailable)
    | failed\ to\ (?:fetch|connect|load|parse|generate|get\ a?\ ?response)\b
    | <(?:!doctype\ html|html)\b.{0,200}?<title>\s*(?:4\d\d|5\d\d|error)\b
    """,
    re.VERBOSE | re.DOTALL,
)
_EXPLAINS = re.compile(
    r"\b(?:means?|meaning|indicates?|occurs?|happens?|typically|usually|refers? to|stands for|signals|"
    r"(?:is|are|gets?) (?:thrown|raised|shown|returned)|to (?:fix|solve|resolve)|tells you)\b"
)
_TRACEBACK = "Traceback (most recent call last)"
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?::|$)")
_FENCE = " \t\r\n\"'`*_>#["


def refusal_of(answer: object, request: StoreRequest, rules: Admission) -> str | None:
    """The rule that keeps an answer out; None: it may be stored."""
    if is_cut_short(answer, request.metadata):
        return "finish_reason"
    text = text_of(answer)
    if text is None:
        text = "" if answer is None else bytes(request.response).decode()
    why = _out_of_bounds(text, rules)
    return why if why is not None or not rules.refusals else failure_of(answer, text)


def failure_of(answer: object, text: str) -> str | None:
    """`error` or `refusal` where an answer, whose text that is, is nothing else."""
    if is_error(answer) or (text is not answer and is_error(text)):
        return "error"
    return "refusal" if _declined(answer) or is_refusal(text) else None


def _out_of_bounds(text: str, rules: Admission) -> str | None:
    """The rule of the tenant's own that a text breaks."""
    if len(text.strip()) < rules.min_chars:
        return "min_chars"
    if rules.forbid or rules.require:
        plain = _folded(text)
        if any(_folded(one) in plain for one in rules.forbid):
            return "forbid"
        if not all(_folded(one) in plain for one in rules.require):
            return "require"
    return None


def is_cut_short(answer: object, metadata: dict[str, Any] | None) -> bool:
    """Whether it ended before it was whole: by its own words, or by its metadata's."""
    reasons = [(metadata or {}).get(name) for name in ("finish_reason", "stop_reason")]
    if isinstance(answer, dict):
        reasons += [choice.get("finish_reason") for choice in listed(answer.get("choices"))]
        if answer.get("type") == "message":
            reasons.append(answer.get("stop_reason"))
        if answer.get("object") == "response" and answer.get("status", "completed") != "completed":
            return True
    return any(isinstance(one, str) and one.lower() in CUT_SHORT for one in reasons)


def is_failed_call(result: object) -> bool:
    """Whether a tool's result says that the call failed: as `is_error`, and in the forms of common APIs.

    GraphQL's `errors`, `ok` or `success` false, a `status` of 400 or more beside what it means (RFC 9457),
    and MCP's content of one text that is an error's.
    """
    if not isinstance(result, dict):
        return is_error(result)
    status = result.get("status", result.get("statusCode", result.get("status_code")))
    told = {"message", "title", "detail", "error", "errors"} & result.keys()
    refused = isinstance(status, int) and status >= BAD_REQUEST and bool(told)
    denied = result.get("ok") is False or result.get("success") is False
    listed = isinstance(errors := result.get("errors"), list) and bool(errors)
    return is_error(result) or refused or denied or listed or _is_error_content(result.get("content"))


def _is_error_content(content: object) -> bool:
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return False
    return isinstance(text := content[0].get("text"), str) and _is_error_text(text)


def is_error(answer: object) -> bool:
    """Whether decoded JSON says that something failed: by a mark, or as a text that says nothing else."""
    if isinstance(answer, str):
        return _is_error_text(answer)
    if not isinstance(answer, dict):
        return False
    error = answer.get("error")
    marked = answer.get("isError") is True or answer.get("is_error") is True
    failed = isinstance(status := answer.get("status"), str) and status.lower() in {"failed", "error"}
    return marked or failed or not (error is None or error is False or error in ("", 0, []))


def is_refusal(text: str) -> bool:
    """Whether a text only declines."""
    return len(text) <= LONGEST_NOTICE and _REFUSAL.match(_opening(text)) is not None


def text_of(answer: object) -> str | None:
    """The text: of a string, of an OpenAI chat completion or response, of an Anthropic message; else None.

    None also where there is more than text, as the call of a tool.
    """
    if isinstance(answer, str):
        return answer
    if not isinstance(answer, dict):
        return None
    parts = list(_parts(answer))
    texts = [one for one in parts if isinstance(one, str)]
    return "\n".join(texts) if texts and len(texts) == len(parts) else None


def _parts(answer: dict[str, Any]) -> Iterator[object]:
    """The texts of a provider's answer; whatever else it has as it is."""
    for choice in listed(answer.get("choices")):
        message = choice.get("message")
        if isinstance(message, dict):
            yield from message.get("tool_calls") or ()
            content = message.get("content")
            yield from (_text(block) for block in content) if isinstance(content, list) else (content,)
    if answer.get("object") == "response":
        for item in listed(answer.get("output")):
            if item.get("type") != "reasoning":
                yield from (_text(block) for block in item.get("content") or (item,))
    if answer.get("type") == "message" and isinstance(content := answer.get("content"), list):
        yield from (_text(block) for block in content if not thinks(block))


def _text(block: object) -> object:
    return block.get("text", block) if isinstance(block, dict) else block


def thinks(block: object) -> bool:
    """Whether a block of an Anthropic message is the model's reasoning."""
    return isinstance(block, dict) and block.get("type") in {"thinking", "redacted_thinking"}


def _declined(answer: object) -> bool:
    """Whether a provider's answer carries the model's refusal in a place of its own."""
    if not isinstance(answer, dict):
        return False
    messages = [choice.get("message") for choice in listed(answer.get("choices"))]
    blocks = [block for item in listed(answer.get("output")) for block in listed(item.get("content"))]
    return any(isinstance(one, dict) and one.get("refusal") for one in [*messages, *blocks])


def listed(value: object) -> list[dict[str, Any]]:
    """The objects of a list; of anything else none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _is_error_text(text: str) -> bool:
    if len(text) > LONGEST_NOTICE or _TRACEBACK in text:
        plain = text.strip(_FENCE)
        return plain.startswith(_TRACEBACK) and _RAISED.match(plain[plain.rfind("\n") + 1 :]) is not None
    plain = _opening(text)
    return _ERROR.match(plain) is not None and _EXPLAINS.search(plain) is None


def _opening(text: str) -> str:
    """As `_folded`, without quotes and marks before it."""
    return _folded(text).lstrip(_FENCE)


def _folded(text: str) -> str:
    """To compare without case, whatever the apostrophes."""
    plain = unicodedata.normalize("NFC", text).casefold()
    return plain.replace("\u2019", "'").replace("\u2018", "'").replace("\u02bc", "'")
