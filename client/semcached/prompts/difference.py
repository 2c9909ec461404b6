"""Why a request didn't read what the one before wrote."""

from itertools import zip_longest
from typing import Any, Literal

from msgspec import Struct

from semcached.prompts.prefix import Api, Block, Prefix, Request, api_of, settings

What = Literal["model", "setting", "tools", "system", "messages", "nothing"]


class Difference(Struct, frozen=True, kw_only=True):
    """The first segment of the prefix that another request changed."""

    what: What
    name: (
        str  # of the segment: "model", "tool_choice", "tool 2: search", "system block 0", "message 3, part 1"
    )
    detail: str
    index: int | None = None
    part: int | None = None
    kept: tuple[str, ...] = ()  # whole levels that can still be read: tools, system

    @property
    def broke(self) -> bool:
        """False: the other request begins with all of the one."""
        return self.what != "nothing"

    def __str__(self) -> str:
        """One sentence."""
        if not self.broke:
            return f"the prefix holds: {self.detail}"
        kept = f"; still cached: {', '.join(self.kept)}" if self.kept else ""
        return f"{self.name} broke the prefix: {self.detail}{kept}"


def diff(one: Request, other: Request, *, api: Api | None = None) -> Difference:
    """What of `one` the provider can't read any more for `other`; marks don't count.

    A change of the model, of a tool, and of OpenAI's key, text format, reasoning effort, verbosity and
    service tier takes everything; of the system prompt everything but the tools; of Anthropic's
    `tool_choice`, `thinking`, and whether there are images, the messages.
    """
    api = api or api_of(one)
    if one.get("model") != other.get("model"):
        return _of("model", "model", one.get("model"), other.get("model"))
    before, after = settings(one, api), settings(other, api)
    broken = _setting(before["all"], after["all"], ())
    if broken is not None:
        return broken
    return _of_blocks(one, other, api)


def _of_blocks(one: Request, other: Request, api: Api) -> Difference:
    both = (Prefix(one, api).blocks, Prefix(other, api).blocks)
    first, second = ([block for block in blocks if block.section != "messages"] for blocks in both)
    there = {block.section for block in first}
    kept = tuple(level for level in ("tools", "system") if level in there)
    # OpenAI has no breakpoint behind the tools.
    shared = _blocks(first, second, kept if api == "messages" else (), whole=True)
    old, new = settings(one, api)["messages"], settings(other, api)["messages"]
    broken = shared or _setting(old, new, kept)
    if broken is not None:
        return broken
    first, second = ([block for block in blocks if block.section == "messages"] for blocks in both)
    detail = f"{len(second) - len(first)} more blocks in the messages"
    broken = _blocks(first, second, kept, whole=False)
    return broken or Difference(what="nothing", name="", detail=detail)


def _setting(one: dict[str, Any], other: dict[str, Any], kept: tuple[str, ...]) -> Difference | None:
    changed = next((name for name in one if one[name] != other[name]), None)
    return None if changed is None else _of("setting", changed, one[changed], other[changed], kept)


def _of(what: What, name: str, one: Any, other: Any, kept: tuple[str, ...] = ()) -> Difference:
    return Difference(what=what, name=name, detail=f"{_short(one)} became {_short(other)}", kept=kept)


def _blocks(
    first: list[Block], second: list[Block], levels: tuple[str, ...], *, whole: bool
) -> Difference | None:
    """The first pair that differs; `whole`: what comes behind the end breaks it, too."""
    for old, new in zip_longest(first, second):
        if old is None and not whole:
            return None
        if old is None or new is None or not _equal(old, new):
            return _pair(old, new, levels)
    return None


def _equal(old: Block, new: Block) -> bool:
    return (old.section, old.role, old.value) == (new.section, new.role, new.value)


def _pair(old: Block | None, new: Block | None, levels: tuple[str, ...]) -> Difference:
    block = old or new
    assert block is not None  # noqa: S101 - zip_longest gives one at least
    if old is not None and new is not None and old.section != new.section:
        block = min(old, new, key=lambda one: ("tools", "system", "messages").index(one.section))
    if new is None:
        detail = "it is gone"
    elif old is None or block is new:
        detail = "it is new"
    else:
        detail = _changed(old.value, new.value)
    order = ("tools", "system", "messages")
    kept = tuple(level for level in order[: order.index(block.section)] if level in levels)
    return Difference(
        what=block.section, name=block.name, detail=detail, index=block.number, part=block.part, kept=kept
    )


def _changed(old: Any, new: Any) -> str:
    """Which field, and from where on."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if names:
            return f"{names[0]}: {_texts(old.get(names[0]), new.get(names[0]))}"
        return "its role changed"
    return _texts(old, new)


def _texts(old: Any, new: Any) -> str:
    if not (isinstance(old, str) and isinstance(new, str)):
        return f"{_short(old)} became {_short(new)}"
    at = next(
        (at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
    )
    start = max(0, at - 12)
    return f"{_short(old[start:])} became {_short(new[start:])} at character {at}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - of a line
