"""Marks Anthropic's requests: where a prefix may be read again by the next one."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from semcached.prompts.marking import Volatilities, put, rank_of, text_of, with_ordered_tools
from semcached.prompts.prefix import MARKS_AT_MOST, Block, Point, Prefix, Request, text_part, without_marks
from semcached.prompts.tokens import Counter, estimate

Lifetime = Literal["5m", "1h"]

ROLLING = 15
"""Blocks between breakpoints: the provider looks back 20."""
_DOCUMENTS = ("document", "search_result")
_TOOL_USE = ("tool_use", "tool_result", "server_tool_use")
_VOLATILE = 3


class _Wish(NamedTuple):
    at: int
    ttl: Lifetime


def anthropic(
    request: Request,
    *,
    volatility: Volatilities | None = None,
    ttl: Lifetime = "5m",
    history_ttl: Lifetime = "5m",
    continues: bool = True,
    replace: bool = False,
    sort_tools: bool = True,
    model: str | None = None,
    count: Counter = estimate,
) -> dict[str, Any]:
    """The request with breakpoints, at most four with those it has.

    Reordered are tools (by name) and system blocks (by volatility), and neither where it has marks already;
    messages never. Twice is as once.

    Args:
        request: of `messages.create`; it stays as it is, parts of it are shared.
        volatility: of system blocks and of parts of the first user message, by their text.
        ttl: of tools, system and documents: 1h where five minutes may pass without a call.
        history_ttl: of the conversation; not longer than `ttl`.
        continues: another request will begin with this one; False: its own end isn't written.
        replace: take the marks that are there away first, as of a request that was marked and has grown.
        sort_tools: False keeps the order of tools.
        model: where the request doesn't name it as Anthropic does.
        count: tokens of a text.

    Raises:
        ValueError: `history_ttl` is longer than `ttl`, or a volatility isn't known.
    """
    if (ttl, history_ttl) == ("5m", "1h"):
        raise ValueError("history_ttl='1h' needs ttl='1h': longer breakpoints come first")
    volatility = volatility or {}
    if replace:
        request = unmarked(request)
    if not Prefix(request, "messages").marks:
        request = _ordered(with_ordered_tools(request) if sort_tools else request, volatility)
    prefix = Prefix(request, "messages", model=model, count=count)
    plan = _Plan(prefix, volatility, ttl, history_ttl)
    return _marked(prefix, list(plan.wishes(continues=continues)), automatic=plan.is_plain)


def with_breakpoints(prefix: Prefix, volatility: Volatilities, *, continues: bool) -> dict[str, Any]:
    """The request in its own order; unless it continues, no message is written, a document neither."""
    plan = _Plan(prefix, volatility, "5m", "5m")
    wishes = [wish for wish in plan.wishes(continues=continues) if continues or wish.at < plan.first]
    return _marked(prefix, wishes, automatic=plan.is_plain)


def unmarked(request: Request) -> dict[str, Any]:
    """The request without breakpoints."""
    bare = {name: value for name, value in request.items() if name != "cache_control"}
    for name in ("tools", "system", "messages"):
        if isinstance(bare.get(name), list):
            bare[name] = without_marks(bare[name])
    return bare


class _Plan:
    """Where breakpoints are wanted, whatever marks there are."""

    def __init__(
        self, prefix: Prefix, volatility: Volatilities, ttl: Lifetime, history_ttl: Lifetime
    ) -> None:
        self._prefix = prefix
        self._blocks = prefix.blocks
        self._volatility = volatility
        self._ttl: Lifetime = ttl
        self._history_ttl: Lifetime = history_ttl
        self.first = next(
            (at for at, one in enumerate(self._blocks) if one.section == "messages"), len(self._blocks)
        )

    @property
    def is_plain(self) -> bool:
        """A chat without tool calls, that the automatic breakpoint serves."""
        kinds = {
            str(one.value.get("type")) for one in self._blocks[self.first :] if isinstance(one.value, dict)
        }
        return kinds.isdisjoint(_TOOL_USE) and len(self._blocks) - self._turn_before() <= ROLLING

    def wishes(self, *, continues: bool) -> Iterator[_Wish]:
        """The most useful first; none twice, none below the minimum."""
        seen = set()
        for place, first, ttl in self._places(continues=continues):
            at = self._prefix.last_markable(place, first)
            if at >= 0 and at not in seen and at >= self._prefix.first:
                seen.add(at)
                yield _Wish(at, ttl)

    def _places(self, *, continues: bool) -> Iterator[tuple[int, int, Lifetime]]:
        """Position, the first block that will do in its place, TTL."""
        ends = self._ends()
        rolling = list(self._rolling()) if continues and _VOLATILE not in self._ranks() else []
        yield from rolling[:2]
        yield from ((at, 0, self._ttl) for at in ends)
        yield from rolling[2:]

    def _rolling(self) -> Iterator[tuple[int, int, Lifetime]]:
        """The end, the end of the request before, and every 15 blocks of a long turn between them."""
        last, before = len(self._blocks) - 1, self._turn_before()
        if last < self.first:
            return
        yield last, self.first, self._history_ttl
        if self.first <= before < last - ROLLING:
            yield from (
                (at, self.first, self._history_ttl)
                for at in (before, *range(last - ROLLING, before, -ROLLING))
            )

    def _turn_before(self) -> int:
        """The last block before the latest assistant message: where the request before this one ended."""
        blocks = self._blocks
        latest = next((at for at in range(len(blocks) - 1, -1, -1) if blocks[at].role == "assistant"), -1)
        while latest >= 0 and blocks[latest].role == "assistant":
            latest -= 1
        return max(latest, self.first - 1)

    def _ends(self) -> Iterator[int]:
        """Of the static part, the tools, the documents, the tenant's part."""
        ranks = self._ranks()
        stable = ranks[: ranks.index(_VOLATILE)] if _VOLATILE in ranks else ranks
        for rank in (0, -1, 1, 2):
            if rank in stable:
                yield len(stable) - 1 - stable[::-1].index(rank)
        if stable == ranks:
            yield from self._documents()

    def _documents(self) -> Iterator[int]:
        """The last of those that the conversation begins with."""
        at = self.first
        while at < len(self._blocks) and self._is_document(self._blocks[at]):
            at += 1
        if at > self.first:
            yield at - 1

    def _is_document(self, block: Block) -> bool:
        kind = block.value.get("type") if isinstance(block.value, dict) else None
        shared = kind in _DOCUMENTS or self._volatility.get(block.text) in ("static", "document", "tenant")
        return shared and (block.role, block.number) == ("user", 0)

    def _ranks(self) -> list[int]:
        """Of the blocks before the messages; -1: a tool."""
        shared = self._blocks[: self.first]
        return [-1 if one.section == "tools" else rank_of(one.text, self._volatility) for one in shared]


def _ordered(request: Request, volatility: Volatilities) -> dict[str, Any]:
    system = request.get("system")
    if not isinstance(system, list):
        return dict(request)
    return {**request, "system": sorted(system, key=lambda block: rank_of(text_of(block), volatility))}


def _marked(prefix: Prefix, wishes: list[_Wish], *, automatic: bool) -> dict[str, Any]:
    request = dict(prefix.request)
    there = {point.at: point for point in prefix.marks}
    free = MARKS_AT_MOST - len(prefix.marks)
    for wish in [wish for wish in wishes if wish.at not in there][: max(0, free)]:
        control = _control(_legal_ttl(wish, prefix.marks))
        if automatic and wish.at == prefix.last_markable(len(prefix.blocks) - 1):
            request["cache_control"] = control
        else:
            request = put(request, prefix.blocks[wish.at].path, partial(_with, control=control))
    return request


def _with(block: Any, *, control: dict[str, str]) -> Any:
    if isinstance(block, str):
        return [{**text_part("messages", "", block), "cache_control": control}]
    return {**block, "cache_control": control}


def _legal_ttl(wish: _Wish, marks: list[Point]) -> Lifetime:
    """Longer ones come first, also among those that were there."""
    if any(point.ttl == "5m" and point.at < wish.at for point in marks):
        return "5m"
    return "1h" if any(point.ttl == "1h" and point.at > wish.at for point in marks) else wish.ttl


def _control(ttl: Lifetime) -> dict[str, str]:
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def has_marks(request: Request) -> bool:
    """Whether any is there."""
    return isinstance(request.get("cache_control"), Mapping) or bool(Prefix(request, "messages").marks)
