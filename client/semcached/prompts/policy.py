"""Marks for a proxy: what serves any request, and harms none."""

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
        return request if messages.has_marks(request) else _of_anthropic(request, model)
    if completions.has_marks(request, api):
        return request
    return completions.openai(request, api=api, sort_tools=False, move_instructions=False, model=model)


def _of_anthropic(request: Request, model: str | None) -> Request:
    """A lone question's own end isn't written, for it may stay alone: a write costs more than no cache."""
    said = request.get("messages")
    continues = bool(request.get("tools")) or (isinstance(said, list) and len(said) > 1)
    return messages.anthropic(request, continues=continues, sort_tools=False, model=model)
