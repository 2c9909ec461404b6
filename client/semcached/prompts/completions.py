"""Marks OpenAI's requests, chat completions and responses: order, key, breakpoints from gpt-5.6 on."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import takewhile
from typing import Any, Literal

from semcached.prompts.marking import RANKS, Volatilities, put, rank_of, text_of, with_ordered_tools
from semcached.prompts.prefix import (
    MARKS_AT_MOST,
    SYSTEM_ROLES,
    Api,
    Block,
    Prefix,
    Request,
    canonical,
    mode_of,
    openai_api_of,
    text_part,
    tool_name,
)
from semcached.prompts.tokens import Counter, estimate
from semcached.prompts.volatile import find_volatile

Lifetime = Literal["30m", "12h"]

_CHAINS = ("previous_response_id", "conversation", "prompt")
"""With these, `instructions` aren't the same as a developer message."""
_FILES = ("file", "input_file")
_VOLATILE = RANKS["volatile"]


def openai(
    request: Request,
    *,
    api: Literal["chat", "responses"] | None = None,
    volatility: Volatilities | None = None,
    ttl: Lifetime = "30m",
    continues: bool = True,
    version: str | None = None,
    shard: str | None = None,
    sort_tools: bool = True,
    move_instructions: bool = True,
    model: str | None = None,
    count: Counter = estimate,
) -> dict[str, Any]:
    """The request, its static part first, with a `prompt_cache_key`, and breakpoints if its model needs them.

    Reordered are tools (by name) and the leading system or developer messages and their parts
    (by volatility), and neither where it has breakpoints already; the conversation never. Twice is as once.

    Args:
        request: of `chat.completions.create` or `responses.create`; it stays, parts of it are shared.
        api: which of them; None: responses if it has `input` or `instructions`, else chat.
        volatility: of texts of the leading messages and of parts of the first user message.
        ttl: of breakpoints; 12h in responses only.
        continues: another request will begin with this one; False: its own end isn't written.
        version: goes into the key in place of tools and beginning, as of a prompt that is released.
        shard: goes into the key, where one prefix gets more than some 15 requests a minute.
        sort_tools: False keeps the order of tools.
        move_instructions: make `instructions` a developer message, which can be marked (gpt-5.6 and later).
        model: where the request doesn't name it as OpenAI does.
        count: tokens of a text.

    Raises:
        ValueError: a TTL that the API hasn't, or a volatility that isn't known.
    """
    api = api or openai_api_of(request)
    if (api, ttl) == ("chat", "12h"):
        raise ValueError("ttl='12h' is for api='responses'; chat completions have 30m")
    volatility = volatility or {}
    marked = dict(request)
    prefix = Prefix(request, api, model=model, count=count)
    if move_instructions and prefix.has_breakpoints:
        marked = _with_moved_instructions(marked, api)
    if not has_breakpoints(marked, api):
        marked = with_ordered_tools(marked) if sort_tools else marked
        marked = _ordered(marked, api, volatility)
    prefix = Prefix(marked, api, model=model, count=count)
    if prefix.has_breakpoints:
        marked = _marked(prefix, volatility, ttl, continues=continues)
    if marked.get("prompt_cache_key") is None:
        marked["prompt_cache_key"] = _key(prefix, volatility, version, shard)
    return marked


def has_marks(request: Request, api: Api) -> bool:
    """Whether the caller has said anything of caching."""
    names = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
    return any(request.get(name) is not None for name in names) or has_breakpoints(request, api)


def has_breakpoints(request: Request, api: Api) -> bool:
    """Whether any is there."""
    return any(block.mark is not None for block in Prefix(request, api).blocks)


def _with_moved_instructions(request: dict[str, Any], api: Api) -> dict[str, Any]:
    text, given = request.get("instructions"), request.get("input")
    chained = any(request.get(name) is not None for name in _CHAINS)
    if api != "responses" or chained or not text or not isinstance(text, str):
        return request
    items = given if isinstance(given, list) else []
    if isinstance(given, str):
        items = [{"role": "user", "content": [text_part(api, "user", given)]}]
    developer = {"role": "developer", "content": [text_part(api, "developer", text)]}
    rest = {name: value for name, value in request.items() if name != "instructions"}
    return {**rest, "input": [developer, *items]}


def _ordered(request: dict[str, Any], api: Api, volatility: Volatilities) -> dict[str, Any]:
    field = "messages" if api == "chat" else "input"
    items = request.get(field)
    if not isinstance(items, list) or not volatility:
        return request
    leading = [_ordered_parts(one, volatility) for one in takewhile(_is_system, items)]
    leading.sort(key=lambda message: max(_ranks(message, volatility), default=0))
    return {**request, field: [*leading, *items[len(leading) :]]}


def _ordered_parts(message: Mapping[str, Any], volatility: Volatilities) -> Mapping[str, Any]:
    parts = message.get("content")
    if not isinstance(parts, list):
        return message
    return {**message, "content": sorted(parts, key=lambda part: rank_of(text_of(part), volatility))}


def _ranks(message: Mapping[str, Any], volatility: Volatilities) -> list[int]:
    content = message.get("content")
    return [
        rank_of(text_of(part), volatility) for part in (content if isinstance(content, list) else [content])
    ]


def _is_system(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in SYSTEM_ROLES


def _marked(prefix: Prefix, volatility: Volatilities, ttl: Lifetime, *, continues: bool) -> dict[str, Any]:
    request = dict(prefix.request)
    ranks = [rank_of(block.text, volatility) for block in _system(prefix)]
    options = request.get("prompt_cache_options")
    if (not continues or _VOLATILE in ranks) and (options is None or "mode" not in options):
        request["prompt_cache_options"] = {**(options or {}), "mode": "explicit"}
    there = {at for at, block in enumerate(prefix.blocks) if block.mark is not None}
    free = MARKS_AT_MOST - (mode_of(request) == "implicit") - len(there)
    grows = continues and _VOLATILE not in ranks and mode_of(request) == "explicit"
    wanted = [at for at in _ends(prefix, volatility, tail=grows) if at not in there]
    # A lifetime beside `prompt_cache_retention` may be refused.
    plain = ttl == "30m" or request.get("prompt_cache_retention") is not None
    mark = {"mode": "explicit"} if plain else {"mode": "explicit", "ttl": ttl}
    for at in wanted[: max(0, free)]:
        block = prefix.blocks[at]
        request = put(request, block.path, partial(_with, block=block, api=prefix.api, mark=mark))
    return request


def _with(part: Any, *, block: Block, api: Api, mark: dict[str, str]) -> Any:
    if isinstance(part, str) and block.path == ("input",):
        return [{"role": "user", "content": [{**block.value, "prompt_cache_breakpoint": mark}]}]
    if isinstance(part, str):
        return [{**text_part(api, block.role, part), "prompt_cache_breakpoint": mark}]
    return {**part, "prompt_cache_breakpoint": mark}


def _ends(prefix: Prefix, volatility: Volatilities, *, tail: bool) -> Iterator[int]:
    """Where the static part, the documents and the tenant's part end; none twice, none below the minimum.

    `tail`: the conversation's latest input first, for its caller doesn't want the provider to mark it.
    """
    seen = set()
    for end in [*([len(prefix.blocks) - 1] if tail else []), *_places(prefix, volatility)]:
        at = prefix.last_markable(end)
        if at >= 0 and at not in seen and at >= prefix.first:
            seen.add(at)
            yield at


def _places(prefix: Prefix, volatility: Volatilities) -> Iterator[int]:
    system = _system(prefix)
    first = next((at for at, one in enumerate(prefix.blocks) if one.section != "tools"), 0)
    ranks = [rank_of(block.text, volatility) for block in system]
    stable = ranks[: ranks.index(_VOLATILE)] if _VOLATILE in ranks else ranks
    for rank in range(_VOLATILE):
        if rank in stable:
            yield first + len(stable) - 1 - stable[::-1].index(rank)
    if stable == ranks:
        documents = list(
            takewhile(lambda one: _is_document(one, volatility), prefix.blocks[first + len(ranks) :])
        )
        if documents:
            yield first + len(ranks) + len(documents) - 1


def _is_document(block: Block, volatility: Volatilities) -> bool:
    kind = block.value.get("type") if isinstance(block.value, dict) else None
    return block.role == "user" and (kind in _FILES or volatility.get(block.text, "volatile") != "volatile")


def _system(prefix: Prefix) -> list[Block]:
    return [block for block in prefix.blocks if block.section == "system"]


def _key(prefix: Prefix, volatility: Volatilities, version: str | None, shard: str | None) -> str:
    """The same for all requests that could read from each other: with another key nothing is read."""
    parts: list[Any] = [prefix.model]
    if version is not None:
        parts.append(version)
    else:
        parts += [tool_name(block.value) for block in prefix.blocks if block.section == "tools"]
        parts.append(_beginning(prefix, volatility))
    if shard is not None:
        parts.append({"shard": shard})
    return "semcached-" + hashlib.blake2b(canonical(parts), digest_size=12).hexdigest()


def _beginning(prefix: Prefix, volatility: Volatilities) -> str:
    """The first text, if it stays: all that could be read has it. Empty where models read parts of a text."""
    text = next((block.text for block in _system(prefix)), "")
    stays = rank_of(text, volatility) <= RANKS["document"] and find_volatile(text) is None
    return text if prefix.has_breakpoints and stays else ""
