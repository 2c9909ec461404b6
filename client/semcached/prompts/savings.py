"""What a provider's cache saved, from the usage that it reported."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from semcached.prompts.prices import price, price_file

_MILLION = 1_000_000


class Savings(Struct, frozen=True, kw_only=True):
    """Of one answer: tokens, and USD with and without the cache."""

    model: str
    as_of: str  # the prices
    read: int
    written: int
    uncached: int
    output: int
    paid_usd: float
    full_usd: float  # had nothing been cached

    @property
    def saved_usd(self) -> float:
        """Below zero where more was written than read."""
        return self.full_usd - self.paid_usd

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.model}: {self.read} read, {self.written} written, {self.uncached} uncached, "
            f"{self.output} out: {self.paid_usd:.6f} USD in place of {self.full_usd:.6f}, "
            f"saved {self.saved_usd:.6f} ({self.as_of})"
        )


class Tokens(Struct, frozen=True, kw_only=True):
    """A usage object of any of the APIs, in common words."""

    read: int = 0
    written: int = 0  # with `written_1h`
    written_1h: int = 0
    uncached: int = 0
    output: int = 0


def savings(usage: Any, model: str) -> Savings:
    """From `usage` of an answer: Anthropic's, chat completions' or responses'; a mapping or the SDK's object.

    Raises:
        UnknownModelError: the model has no price.
        ValueError: it isn't a usage object.
    """
    cost = price(model)
    tokens = tokens_of(usage)
    short = cost.write_5m or cost.write_30m or 1.0
    paid = tokens.uncached + cost.read * tokens.read + short * (tokens.written - tokens.written_1h)
    paid += (cost.write_1h or short) * tokens.written_1h
    output = cost.output * tokens.output
    return Savings(
        model=model,
        as_of=price_file().as_of,
        read=tokens.read,
        written=tokens.written,
        uncached=tokens.uncached,
        output=tokens.output,
        paid_usd=(cost.input * paid + output) / _MILLION,
        full_usd=(cost.input * (tokens.uncached + tokens.read + tokens.written) + output) / _MILLION,
    )


def tokens_of(usage: Any) -> Tokens:
    """A usage object's.

    Raises:
        ValueError: it isn't one.
    """
    fields = usage.model_dump() if hasattr(usage, "model_dump") else usage
    if not isinstance(fields, Mapping):
        raise ValueError("usage: neither a mapping nor an object with model_dump()")  # noqa: TRY004 - one error for all
    if "prompt_tokens" in fields:
        return _openai(fields, "prompt_tokens", "completion_tokens")
    if "input_tokens_details" in fields:
        return _openai(fields, "input_tokens", "output_tokens")
    if "input_tokens" not in fields:
        raise ValueError("usage: has neither prompt_tokens nor input_tokens")
    creation = fields.get("cache_creation") or {}
    written = fields.get("cache_creation_input_tokens") or sum(v or 0 for v in creation.values())
    return Tokens(
        read=fields.get("cache_read_input_tokens") or 0,
        written=written,
        written_1h=creation.get("ephemeral_1h_input_tokens") or 0,
        uncached=fields["input_tokens"] or 0,
        output=fields.get("output_tokens") or 0,
    )


def _openai(fields: Mapping[str, Any], total: str, output: str) -> Tokens:
    details = fields.get(f"{total}_details") or {}
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    uncached = max(0, (fields[total] or 0) - read - written)
    return Tokens(read=read, written=written, uncached=uncached, output=fields.get(output) or 0)
