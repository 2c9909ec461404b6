"""Tokens, and the usage of a provider that caches no prompts. `rules.py` has the one that does."""

import json
from typing import Literal, Protocol

from tests.provider.script import Body


class Rejected(Exception):  # noqa: N818 - as `rules.py` has it
    """The provider takes no such request."""

    def __init__(self, status: int, body: Body) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class Counting(Protocol):
    """What a provider counts."""

    def usage(
        self,
        api: Literal["chat", "responses", "messages"],
        request: Body,
        output_tokens: int,
        account: str = "",
    ) -> Body:
        """The usage object of an answer."""


def tokens(value: object) -> int:
    """About four characters each."""
    text = value if isinstance(value, str) else json.dumps(value)
    return -(-len(text) // 4)


def input_tokens(request: Body) -> int:
    told = ("system", "instructions", "messages", "input", "tools")
    return sum(tokens(request[name]) for name in told if request.get(name))


class Plain:
    """No prompt cache."""

    def usage(
        self,
        api: Literal["chat", "responses", "messages"],
        request: Body,
        output_tokens: int,
        account: str = "",
    ) -> Body:
        del account
        given = input_tokens(request)
        if api == "messages":
            return _messages(given, output_tokens)
        first, second = ("prompt", "completion") if api == "chat" else ("input", "output")
        return {
            f"{first}_tokens": given,
            f"{first}_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            f"{second}_tokens": output_tokens,
            f"{second}_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + output_tokens,
        }


def _messages(given: int, output_tokens: int) -> Body:
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }
