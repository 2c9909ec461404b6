"""What a provider will keep of a request, for how long, and what not and why."""

from msgspec import Struct

from semcached.prompts.prefix import (
    MARKS_AT_MOST,
    STEP,
    Api,
    Block,
    Prefix,
    Request,
    Section,
    Ttl,
    api_of,
    canonical,
    mode_of,
)
from semcached.prompts.prices import find_price
from semcached.prompts.tokens import Counter, estimate
from semcached.prompts.volatile import find_volatile

AUTOMATIC_TTL: Ttl = "5m"
"""OpenAI before gpt-5.6, unless `prompt_cache_retention` says 24h: the least that is said of it."""


class Part(Struct, frozen=True, kw_only=True):
    """One block of the prefix."""

    name: str
    section: Section
    tokens: int
    ttl: Ttl | None = None  # None: it isn't cached
    reason: str | None = None  # why not
    warning: str | None = None  # why it may not be read again

    @property
    def cached(self) -> bool:
        """Whether a second, equal request reads it."""
        return self.ttl is not None


class Explanation(Struct, frozen=True, kw_only=True):
    """Of a whole request; tokens are estimates unless a counter was given."""

    api: Api
    model: str
    minimum: int
    parts: tuple[Part, ...]
    cached_tokens: int  # what a second, equal request reads
    total_tokens: int
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """A table, equal neighbours joined."""
        lines = [
            f"{self.model} ({self.api}): about {self.cached_tokens} of {self.total_tokens} tokens cached"
        ]
        for first, last, tokens in _runs(self.parts):
            name = first.name if first is last else f"{first.name} … {last.name}"
            said = f"cached {first.ttl}" if first.cached else f"not cached: {first.reason}"
            lines.append(f"  {name:44} {tokens:>8}  {said}")
        return "\n".join([*lines, *(f"  ! {warning}" for warning in self.warnings)])


def explain(
    request: Request, model: str | None = None, *, api: Api | None = None, count: Counter = estimate
) -> Explanation:
    """What of a request is cached.

    Args:
        request: as it is sent.
        model: where the request doesn't name it as the provider does.
        api: None: by the model and the request's shape.
        count: tokens of a text.
    """
    prefix = Prefix(request, api or api_of(request, model), model=model, count=count)
    cached, reason = _end(prefix)
    warned = [_warning(at, block, cached) for at, block in enumerate(prefix.blocks)]
    parts = [_part(prefix, at, cached, reason, warned[at]) for at in range(len(prefix.blocks))]
    total = prefix.sizes[-1] if prefix.sizes else 0
    found = tuple(f"{part.name}: {part.warning}" for part in parts if part.warning)
    return Explanation(
        api=prefix.api,
        model=prefix.model,
        minimum=prefix.minimum,
        parts=tuple(parts),
        cached_tokens=_cached_tokens(prefix, cached),
        total_tokens=total,
        warnings=(*_general(prefix), *found),
    )


def _end(prefix: Prefix) -> tuple[int, str]:
    """The last block that is cached, -1 for none, and why those behind it aren't."""
    if not prefix.blocks:
        return -1, "there is nothing"
    if prefix.api == "messages" and len(prefix.marks) > MARKS_AT_MOST:
        return -1, f"{len(prefix.marks)} breakpoints, {MARKS_AT_MOST} are allowed: the request is refused"
    below = f"below the minimum of {prefix.minimum} tokens"
    if not prefix.has_breakpoints:
        enough = prefix.sizes[-1] >= prefix.minimum
        return (len(prefix.blocks) - 1, "") if enough else (-1, below)
    if prefix.points:
        return prefix.points[-1].at, "after the last breakpoint"
    if prefix.marks:
        return -1, below
    return -1, "explicit mode without breakpoints" if mode_of(
        prefix.request
    ) == "explicit" else "no breakpoint"


def _part(prefix: Prefix, at: int, cached: int, reason: str, warning: str | None) -> Part:
    block = prefix.blocks[at]
    tokens = prefix.sizes[at] - (prefix.sizes[at - 1] if at else 0)
    ttl = _ttl(prefix, at) if at <= cached else None
    why = None if ttl is not None else reason
    return Part(name=block.name, section=block.section, tokens=tokens, ttl=ttl, reason=why, warning=warning)


def _ttl(prefix: Prefix, at: int) -> Ttl:
    """Of the first breakpoint behind it."""
    if not prefix.has_breakpoints:
        return automatic_ttl(prefix.request)
    return next(point.ttl for point in prefix.points if point.at >= at)


def automatic_ttl(request: Request) -> Ttl:
    """How long OpenAI keeps a prefix before gpt-5.6, at least."""
    return "24h" if request.get("prompt_cache_retention") == "24h" else AUTOMATIC_TTL


def _cached_tokens(prefix: Prefix, cached: int) -> int:
    if cached < 0:
        return 0
    tokens = prefix.sizes[cached]
    return tokens if prefix.has_breakpoints else tokens // STEP * STEP


def _warning(at: int, block: Block, cached: int) -> str | None:
    """Of tools and system only: in a conversation, what was said doesn't change."""
    if block.section == "messages" or at > cached:
        return None
    text = block.text or canonical(block.value).decode()
    found = find_volatile(text)
    return (
        None
        if found is None
        else f"has {found} before the last breakpoint: if it changes, nothing behind it is read"
    )


def _general(prefix: Prefix) -> list[str]:
    said = []
    if find_price(prefix.model) is None:
        said.append(f"model {prefix.model!r} isn't known: a minimum of {prefix.minimum} tokens is assumed")
    if prefix.api != "messages" and prefix.has_breakpoints:
        explicit = [point for point in prefix.marks if not point.automatic]
        free = MARKS_AT_MOST - (prefix.automatic is not None)
        if len(explicit) > free:
            said.append(f"{len(explicit)} explicit breakpoints: only the latest {free} are written")
        if not explicit and prefix.automatic is not None:
            said.append("no explicit breakpoint: another conversation with the same beginning reads nothing")
        if isinstance(prefix.request.get("instructions"), str):
            said.append("instructions can't be marked: a developer message can")
    if prefix.api != "messages" and prefix.request.get("prompt_cache_key") is None:
        said.append("no prompt_cache_key: equal prefixes may go to different machines")
    return said


def _runs(parts: tuple[Part, ...]) -> list[tuple[Part, Part, int]]:
    runs: list[tuple[Part, Part, int]] = []
    for part in parts:
        if runs and _kind(runs[-1][1]) == _kind(part):
            runs[-1] = (runs[-1][0], part, runs[-1][2] + part.tokens)
        else:
            runs.append((part, part, part.tokens))
    return runs


def _kind(part: Part) -> tuple[object, ...]:
    return part.section, part.ttl, part.reason
