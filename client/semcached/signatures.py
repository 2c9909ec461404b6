"""What a function was called with, by the names of its parameters."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from semcached.exact import exact
from semcached.guarded import say_once

_ITSELF = {"self", "cls"}


class Parameters:
    """A function's parameters that are part of a key.

    A first parameter named `self` or `cls` never is, nor are those in `ignore`.
    """

    def __init__(self, name: str, fn: Callable[..., Any], ignore: Collection[str]) -> None:
        """Of `fn`, which messages call `name`.

        Raises:
            TypeError: `ignore` names a parameter that the function doesn't have.
        """
        self._name = name
        self._signature = inspect.signature(fn)
        known = self._signature.parameters
        kinds = [(one.name, one.kind) for one in known.values()]
        self._rest = next((of for of, kind in kinds if kind is inspect.Parameter.VAR_POSITIONAL), None)
        self._named_rest = next((of for of, kind in kinds if kind is inspect.Parameter.VAR_KEYWORD), None)
        unknown = set(ignore) - set(known)
        if isinstance(ignore, str) or (unknown and self._named_rest is None):
            raise TypeError(f"{name}: ignore: names no parameters of its: {sorted(unknown) or ignore}")
        self._ignored = set(ignore)
        first = next(iter(known), None)
        self.names = [of for of in known if of not in self._ignored and not (of == first and of in _ITSELF)]

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Values by name, defaults filled in, so that f(1) and f(x=1) are one; None: they don't fit."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return None  # the function itself says it best
        bound.apply_defaults()
        given = {of: bound.arguments[of] for of in self.names}
        if self._rest in given:
            given[self._rest] = list(given[self._rest])
        if self._named_rest in given:
            rest = given[self._named_rest].items()
            given[self._named_rest] = {of: value for of, value in rest if of not in self._ignored}
        return given

    def as_json(self, given: dict[str, Any]) -> Any:
        """JSON of what was bound, as it is now: the function may change it. None: it has none; said once."""
        text = exact(given)
        if text is None:
            wrong = sorted(of for of, value in given.items() if exact(value) is None)
            say_once(
                self._name, "arguments", f"runs uncached: no plain JSON: {', '.join(wrong)} (see `ignore`)"
            )
        return text
