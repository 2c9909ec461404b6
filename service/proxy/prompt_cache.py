"""The provider's own prompt cache: marks on the way there, and what it saved on the way back."""

from typing import Any

import msgspec

from semcached.prompts import UnknownModelError, marked, savings
from service.cache.dialects.dialect import Body
from service.cache.prices import NANO
from service.proxy.call import Call

_APIS: dict[str, Any] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}


def with_marks(call: Call) -> bytes:
    """The body with breakpoints where they serve; as it came where there are none to set, or some already."""
    if call.dialect is None or call.asked is None:
        return call.body
    asked = marked(call.asked, _APIS[call.dialect.path])
    return call.body if asked == call.asked else msgspec.json.encode(asked)


def saved_nano_usd(answer: Body, model: str | None) -> int | None:
    """What the provider took less for tokens that it had cached; below zero where more was written than read.

    None: the model has no price, or the answer says nothing of it.
    """
    try:
        return round(savings(answer.get("usage") or {}, model or "").saved_usd * NANO)
    except (UnknownModelError, ValueError):
        return None
