"""Helps a provider's own prompt cache: pure functions over plain request dicts, for Anthropic and OpenAI.

`anthropic()` and `openai()` order and mark a request; `explain()` says what will be cached, `diff()` what
broke a prefix, `savings()` what it was worth; `Registry` knows what is still warm. `marked()` is for proxies.
"""

from semcached.prompts.completions import openai
from semcached.prompts.difference import Difference, diff
from semcached.prompts.explanation import Explanation, Part, explain
from semcached.prompts.marking import Volatility
from semcached.prompts.messages import anthropic, unmarked
from semcached.prompts.policy import marked
from semcached.prompts.prices import Price, PriceFile, UnknownModelError, price, price_file
from semcached.prompts.registry import Registry, Sending, Warmth
from semcached.prompts.savings import Savings, savings
from semcached.prompts.tokens import estimate

__all__ = [
    "Difference",
    "Explanation",
    "Part",
    "Price",
    "PriceFile",
    "Registry",
    "Savings",
    "Sending",
    "UnknownModelError",
    "Volatility",
    "Warmth",
    "anthropic",
    "diff",
    "estimate",
    "explain",
    "marked",
    "openai",
    "price",
    "price_file",
    "savings",
    "unmarked",
]
