"""`cached_answer`: a function from prompt to text, with the cache before it."""

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from semcached import calls
from semcached.calls import Call
from semcached.guarded import say_once
from semcached.model import Hit, Miss
from semcached.options import checked_options
from semcached.places import place_of
from semcached.signatures import Parameters
from semcached.tools import TIMEOUT_S, WAIT_S, Sources
from semcached.wrapping import checked, wrapped

A = TypeVar("A", bound=Callable[..., str] | Callable[..., Coroutine[Any, Any, str]])

CUT_SHORT = {"finish_reason": "error"}
"""Never stored, by whatever policy: the service lets the next one who waits lead."""


class AnswerRecipe:
    """See `wrapping.Recipe`."""

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        scope: Mapping[str, Any],
        version: str | None,
        *,
        shares: bool,
        asks: Mapping[str, Any],
        keeps: Mapping[str, Any],
        sources: Sources,
        timeout_s: float,
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self._parameters = parameters
        self._scope = scope
        self._version = version
        self._shares = shares
        self._asks = asks
        self._keeps = keeps
        self._sources = sources

    def asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """See `Recipe`."""
        bound = self._parameters.bound(args, kwargs)
        if bound is None:
            return None
        given = bound.given
        prompt = given.pop(self._parameters.names[0])
        if type(prompt) is not str:
            say_once(self.name, "arguments", "runs uncached: the prompt is no str")
            return None
        params = self._parameters.as_json(given)
        if params is None:
            return None
        version = self._version if self._shares else bound.versioned(self._version)
        asked = {**self._scope, "prompt_version": version, "prompt": prompt}
        return asked | ({"params": params} if given else {})

    def lookup(self, asked: dict[str, Any]) -> Call[Hit | Miss]:
        """See `Recipe`."""
        return calls.lookup({**asked, **self._asks})  # type: ignore[typeddict-item] # its own fields

    def serves(self, answer: Any) -> bool:
        """See `Recipe`. Another program may have stored JSON that is no text."""
        return isinstance(answer, Hit) and type(answer.response) is str

    def value(self, hit: Hit) -> Any:
        """See `Recipe`."""
        return hit.response

    def store(self, asked: dict[str, Any], miss: Miss, result: Any, took_s: float) -> Call[Any] | None:
        """See `Recipe`."""
        if type(result) is not str:
            say_once(self.name, "result", f"a result isn't kept: it is no str but {type(result).__name__}")
            return None
        sources = self._sources(result) if callable(self._sources) else self._sources
        usage = {"latency_ms": took_s * 1000}
        return self._kept(
            asked, miss, {"response": result, "sources": list(sources), "usage": usage, **self._keeps}
        )

    def give_up(self, asked: dict[str, Any], miss: Miss) -> Call[Any]:
        """See `Recipe`."""
        return self._kept(asked, miss, {"response": "", "metadata": CUT_SHORT})

    def _kept(self, asked: dict[str, Any], miss: Miss, what: dict[str, Any]) -> Call[Any]:
        return calls.store({**asked, **what, "lookup_id": miss.lookup_id})  # type: ignore[typeddict-item] # its own fields


def cached_answer(
    *,
    agent_type: str,
    model: str | None,
    system: str | None = None,
    prompt_version: str | UnsetType | None = UNSET,
    attributes: Mapping[str, str] | None = None,
    tiers: Collection[str] | None = None,
    threshold: float | None = None,
    ttl: float | UnsetType | None = UNSET,
    ignore: Collection[str] = (),
    wait: float | None = WAIT_S,
    sources: Sources = (),
    client: Any = None,
    timeout_s: float = TIMEOUT_S,
) -> Callable[[A], A]:
    """Keep a function's answers, and serve them to equal prompts, and to similar ones as the policy says.

    The function's first parameter (after `self`) is the prompt; its others go into the scope as `params`:
    they must be plain JSON, and answers are shared between equal ones only. Else all is as in `cached_tool`:
    two instances of one class share, so the system prompt must not be an attribute of `self`.

    Args:
        agent_type: which kind of agent asks; its policy decides.
        model: the LLM that answers.
        system: the system prompt, if it changes the answer.
        prompt_version: of what the function makes of the prompt. Absent: its module, name and class, so that
            two functions don't share; None or a text: whoever has the same shares.
        attributes: names and values that must be equal.
        tiers: where to look, `exact` or `semantic`; both if None.
        threshold: least similarity, instead of the policy's.
        ttl: seconds, 1 or more; absent: the policy's; None: no end.
        ignore: parameters that don't change the answer; not the prompt.
        wait: see `cached_tool`.
        sources: see `cached_tool`.
        client: see `cached_tool`.
        timeout_s: see `cached_tool`.

    Raises:
        TypeError: see `cached_tool`; or the function has no parameter that could be the prompt.
        ValueError: see `cached_tool`.
    """
    checked_options(ttl=ttl, wait=wait, timeout_s=timeout_s, sources=sources)

    def decorated(fn: A) -> A:
        checked(fn, "cached_answer")
        name = getattr(fn, "__qualname__", agent_type)
        parameters = Parameters(name, fn, ignore, shares=prompt_version is not UNSET)
        if parameters.first is None or parameters.first not in parameters.names:
            raise TypeError(f"{name}: needs a parameter that isn't ignored, the prompt, as its first")
        version = place_of(fn, "a prompt_version") if prompt_version is UNSET else prompt_version
        scope = {"agent_type": agent_type, "model": model, "system": system}
        asks = {"tiers": tiers, "threshold": threshold, "wait_s": wait}
        recipe = AnswerRecipe(
            name,
            parameters,
            scope | ({} if attributes is None else {"attributes": dict(attributes)}),
            version,
            shares=prompt_version is not UNSET,
            asks={of: value for of, value in asks.items() if value is not None},
            keeps={} if ttl is UNSET else {"ttl_s": ttl},
            sources=sources,
            timeout_s=timeout_s,
        )
        return wrapped(fn, recipe, client)

    return decorated
