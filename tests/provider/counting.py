"""Tokens: about four characters each."""

import time
from typing import Literal

from tests.provider.rules import PromptCache
from tests.provider.script import Body


def tokens(value: str) -> int:
    """Of what is said."""
    return -(-len(value) // 4)


def input_tokens(api: Literal["responses", "messages"], request: Body) -> int:
    """Of a request, as the usage of its answer would count them."""
    usage = PromptCache(time.time).usage(api, request, 0)
    given: int = usage["input_tokens"] + usage.get("cache_creation_input_tokens", 0)
    return given
