"""What both helpers do to a request: copies with a mark here, an order there."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from semcached.prompts.prefix import Path, Request, canonical, tool_name

Volatility = Literal["static", "document", "tenant", "volatile"]
"""How often a part of the system prompt changes: never, with the documents, by tenant, with every call."""

RANKS: dict[Volatility, int] = {"static": 0, "document": 1, "tenant": 2, "volatile": 3}

Volatilities = Mapping[str, Volatility]
"""From a block's text, exactly; what isn't named is static."""


def rank_of(text: str, volatility: Volatilities) -> int:
    """Where it goes.

    Raises:
        ValueError: a word that isn't a volatility.
    """
    word = volatility.get(text, "static")
    if word not in RANKS:
        raise ValueError(f"volatility: {word!r} is none of {', '.join(RANKS)}")
    return RANKS[word]


def put(node: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    """A copy with `change` made at `path`; what isn't on the way is shared."""
    if not path:
        return change(node)
    step, *rest = path
    copy: Any = dict(node) if isinstance(node, Mapping) else list(node)
    copy[step] = put(copy[step], tuple(rest), change)
    return copy


def ordered_tools(tools: Iterable[Any]) -> list[Any]:
    """By name; inside they stay, for models write arguments in the order of a schema's properties."""
    return sorted(tools, key=lambda tool: (tool_name(tool), canonical(tool)))


def with_ordered_tools(request: Request) -> dict[str, Any]:
    """The request, its tools in order."""
    tools = request.get("tools")
    return {**request, "tools": ordered_tools(tools)} if isinstance(tools, list) else dict(request)


def text_of(value: Any) -> str:
    """A string content's, a text block's; empty: it has none."""
    text = value.get("text") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else ""
