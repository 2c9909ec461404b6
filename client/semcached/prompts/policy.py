"""Marks for a proxy, which knows one request at a time."""

from typing import Any

from semcached.prompts import completions, messages
from semcached.prompts.marking import Volatility
from semcached.prompts.prefix import Api, Prefix, Request
from semcached.prompts.prices import breakpoints_of
from semcached.prompts.volatile import changes_with_calls

_FORCED = ("any", "tool")


def marked(request: Request, api: Api, model: str | None = None) -> Request:
    """The request with breakpoints and a key where they may serve; as it was where its caller has set any.

    Nothing is reordered or moved. Never fails: what isn't understood stays as it is.

    What it can cost, by the providers' rules: OpenAI's input never more than unmarked. Anthropic's at most
    1.25 times as much, the price of writing: where nothing that was written is read within five minutes,
    as by a system prompt that differs in every call and shows neither a time nor an id, or by a loop of tools
    that drops its beginning. Messages are written in loops of tools alone: those of one-shots (with examples,
    a prefilled answer, a forced tool, a document), of plain chats and of windows of them cost what they cost
    unmarked, and so does all that stands behind a time in the system prompt.

    Args:
        request: as it came, decoded.
        api: which call it is of.
        model: the upstream's name of it, where it differs.
    """
    try:
        return _of_anthropic(request, model) if api == "messages" else _of_openai(request, api, model)
    except RecursionError:  # nested deeper than Python goes
        return request


def _of_anthropic(request: Request, model: str | None) -> Request:
    if messages.has_marks(request):
        return request
    prefix = Prefix(request, "messages", model=model)
    system = (block.text for block in prefix.blocks if block.section == "system")
    volatility: dict[str, Volatility] = {text: "volatile" for text in system if changes_with_calls(text)}
    return messages.with_breakpoints(prefix, volatility, continues=_continues(prefix))


def _of_openai(request: Request, api: Any, model: str | None) -> Request:
    """Models that cache by themselves need nothing, and a key could part what they join."""
    name = model if model is not None else str(request.get("model") or "")
    if not breakpoints_of(name) or completions.has_marks(request, api):
        return request
    return completions.openai(request, api=api, sort_tools=False, move_instructions=False, model=model)


def _continues(prefix: Prefix) -> bool:
    """Whether another request will begin with this one: a loop of tools. A chat may as well be examples."""
    kinds = [one.value.get("type") for one in prefix.blocks if isinstance(one.value, dict)]
    if not prefix.blocks or prefix.blocks[-1].role == "assistant":
        return False
    choice = prefix.request.get("tool_choice")
    forced = isinstance(choice, dict) and choice.get("type") in _FORCED
    return "tool_result" in kinds or (bool(prefix.request.get("tools")) and not forced)
