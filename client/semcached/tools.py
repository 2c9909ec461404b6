"""`cached_tool`: a tool's results, kept by the service."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import UNSET, UnsetType

from semcached import calls
from semcached.calls import Call
from semcached.exact import exact
from semcached.guarded import say_once
from semcached.model import ToolHit, ToolMiss
from semcached.options import checked_options
from semcached.places import place_of
from semcached.signatures import Parameters
from semcached.wrapping import checked, wrapped

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import ParamSpec

    from semcached.client import AsyncClient, Client

    P = ParamSpec("P")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

Sources = Sequence[str] | Callable[[Any], Sequence[str]]

WAIT_S, TIMEOUT_S = 10.0, 1.0
FAILED = {"error": "the tool raised, or its result can't be kept"}
"""Never stored: the service refuses errors, and lets the next one who waits lead."""


class ToolRecipe:
    """See `wrapping.Recipe`."""

    def __init__(
        self,
        tool: str,
        parameters: Parameters,
        *,
        agent_type: str,
        version: str | None,
        ttl: float | UnsetType | None,
        wait: float | None,
        sources: Sources,
        timeout_s: float,
    ) -> None:
        self.name = tool
        self.timeout_s = timeout_s
        self._parameters = parameters
        self._named: dict[str, Any] = {"agent_type": agent_type, "tool": tool}
        self._version = version
        self._wait = wait
        self._ttl = {} if ttl is UNSET else {"ttl_s": ttl}
        self._sources = sources

    def asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """See `Recipe`."""
        bound = self._parameters.bound(args, kwargs)
        arguments = None if bound is None else self._parameters.as_json(bound.given)
        if bound is None or arguments is None:
            return None
        return {**self._named, "version": bound.versioned(self._version), "arguments": arguments}

    def lookup(self, asked: dict[str, Any]) -> Call[ToolHit | ToolMiss]:
        """See `Recipe`."""
        return calls.lookup_tool({**asked, "wait_s": self._wait})  # type: ignore[typeddict-item] # its own fields

    def serves(self, answer: Any) -> bool:
        """See `Recipe`."""
        if isinstance(answer, ToolMiss) and answer.reason == "policy":
            say_once(
                self.name,
                "policy",
                f"the service keeps no results of it, by {answer.rule}: see docs/tools.md",
            )
        return isinstance(answer, ToolHit)

    def value(self, hit: ToolHit) -> Any:
        """See `Recipe`."""
        return hit.result

    def store(self, asked: dict[str, Any], miss: ToolMiss, result: Any, _: float) -> Call[Any] | None:
        """See `Recipe`."""
        text = exact(result)
        if text is None:
            kind = type(result).__name__
            say_once(
                self.name, "result", f"a result isn't kept: JSON wouldn't give it back as it is ({kind})"
            )
            return None
        sources = self._sources(result) if callable(self._sources) else self._sources
        return self._kept(asked, miss, {"result": text, "sources": list(sources), **self._ttl})

    def give_up(self, asked: dict[str, Any], miss: ToolMiss) -> Call[Any]:
        """See `Recipe`."""
        return self._kept(asked, miss, {"result": FAILED})

    def _kept(self, asked: dict[str, Any], miss: ToolMiss, what: dict[str, Any]) -> Call[Any]:
        return calls.store_tool({**asked, **what, "lookup_id": miss.lookup_id})  # type: ignore[typeddict-item] # its own fields


def named(fn: Any, name: str | None, version: str | None) -> tuple[str, str | None]:
    """Tool and version.

    Without a `name` the version says where the function is defined, too: two modules' `search` are two tools.

    Raises:
        TypeError: the function has no name of its own.
    """
    if name is not None:
        return name, version
    place = place_of(fn, "a name: @cached_tool(name=…)")
    return fn.__name__, place if version is None else f"{place} {version}"


@overload
def cached_tool(fn: F, /) -> F: ...


@overload
def cached_tool(
    *,
    ttl: float | UnsetType | None = ...,
    version: str | None = ...,
    ignore: Collection[str] = ...,
    agent_type: str = ...,
    name: str | None = ...,
    wait: float | None = ...,
    sources: Sources = ...,
    client: "AsyncClient",
    timeout_s: float = ...,
) -> "Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]": ...


@overload
def cached_tool(
    *,
    ttl: float | UnsetType | None = ...,
    version: str | None = ...,
    ignore: Collection[str] = ...,
    agent_type: str = ...,
    name: str | None = ...,
    wait: float | None = ...,
    sources: Sources = ...,
    client: "Client",
    timeout_s: float = ...,
) -> "Callable[[Callable[P, T]], Callable[P, T]]": ...


@overload
def cached_tool(
    *,
    ttl: float | UnsetType | None = ...,
    version: str | None = ...,
    ignore: Collection[str] = ...,
    agent_type: str = ...,
    name: str | None = ...,
    wait: float | None = ...,
    sources: Sources = ...,
    client: None = ...,
    timeout_s: float = ...,
) -> Callable[[F], F]: ...


def cached_tool(
    fn: Any = None,
    /,
    *,
    ttl: float | UnsetType | None = UNSET,
    version: str | None = None,
    ignore: Collection[str] = (),
    agent_type: str = "default",
    name: str | None = None,
    wait: float | None = WAIT_S,
    sources: Sources = (),
    client: Any = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """Keep a function's results: sync, async, or a method.

    The key is agent_type, name, version and the arguments by name, which must be plain JSON. So must results
    be, or they aren't kept. Errors never are. Of concurrent equal calls one runs, in whatever process.
    Without the service the function simply runs.

    Of a method's `self` (or `cls`) the key has the class alone: two instances of one class share. What a
    result depends on must be an argument.

    Args:
        fn: the function, in `@cached_tool` without brackets.
        ttl: seconds, 1 or more; absent: the tool's policy's; None: no end.
        version: of the function; another one has other results.
        ignore: parameters that don't change the result.
        agent_type: which kind of agent asks.
        name: the tool's; else the function's, together with its module. With one, equal names share, of
            functions and of methods of one class.
        wait: how long equal calls wait for the one that runs, 0 to 60 s; more than it takes. None: they run,
            too.
        sources: what a result was read from, or a function of the result.
        client: else the one of SEMCACHED_URL and SEMCACHED_API_KEY.
        timeout_s: how long a service that hangs may hold up a call.

    Raises:
        TypeError: it is a generator, no function, decorated already, has no name that is its alone, captures
            variables, or an option doesn't fit it.
        ValueError: a number is out of its range.
    """
    checked_options(ttl=ttl, wait=wait, timeout_s=timeout_s, sources=sources)

    def decorated(fn: F) -> F:
        checked(fn, "cached_tool")
        tool, of_version = named(fn, name, version)
        recipe = ToolRecipe(
            tool,
            Parameters(tool, fn, ignore, shares=name is not None),
            agent_type=agent_type,
            version=of_version,
            ttl=ttl,
            wait=wait,
            sources=sources,
            timeout_s=timeout_s,
        )
        return wrapped(fn, recipe, client)

    return decorated if fn is None else decorated(fn)
