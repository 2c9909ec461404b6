"""Marks for a proxy: what serves any request, and harms none."""

from typing import Any

from semcached.prompts import completions, messages
from semcached.prompts.prefix import Api, Request


def marked(request: Request, api: Api, model: str | None = None) -> Request:
    """The request with breakpoints and a key where they serve; as it was where its caller has set any.

    Nothing is reordered or moved. Never fails: what isn't understood stays as it is.

    Args:
        request: as it came, decoded.
        api: which call it is of.
        model: the upstream's name of it, where it differs.
    """
    if api == "messages":
        return (
            request
            if messages.has_marks(request)
            else messages.anthropic(request, sort_tools=False, model=model)
        )
    if completions.has_marks(request, api):
        return request
    changed: dict[str, Any] = completions.openai(
        request, api=api, sort_tools=False, move_instructions=False, model=model
    )
    return changed
