"""What a function was called with, by the names of its parameters."""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from semcached.exact import exact
from semcached.guarded import say_once
from semcached.places import place_of_class

_ITSELF = {"self", "cls"}


class Bound(NamedTuple):
    """Values by name, and the class that a method was called on; None: it is no method."""

    given: dict[str, Any]
    kind: str | None

    def versioned(self, version: str | None) -> str | None:
        """A function's version, and its class."""
        return " ".join(filter(None, (version, self.kind))) or version


class Parameters:
    """A function's parameters that are part of a key.

    A method's `self` or `cls` never is, but its class is; nor are those in `ignore`.
    """

    def __init__(self, name: str, fn: Callable[..., Any], ignore: Collection[str], *, shares: bool) -> None:
        """Of `fn`, which messages call `name`. `shares`: it does so with whatever has its name.

        Raises:
            TypeError: `ignore` names a parameter that the function doesn't have, or nothing is left of a
                method's.
        """
        self._name = name
        self._signature = inspect.signature(fn)
        self._shares = shares
        known = self._signature.parameters
        kinds = [(one.name, one.kind) for one in known.values()]
        self._rest = next((of for of, kind in kinds if kind is inspect.Parameter.VAR_POSITIONAL), None)
        self._named_rest = next((of for of, kind in kinds if kind is inspect.Parameter.VAR_KEYWORD), None)
        unknown = set(ignore) - set(known)
        if isinstance(ignore, str) or (unknown and self._named_rest is None):
            raise TypeError(f"{name}: ignore: names no parameters of its: {sorted(unknown) or ignore}")
        self._ignored = set(ignore)
        self._itself = _itself(fn, next(iter(known), None))
        own = [of for of in known if of != self._itself]
        self.first = own[0] if own else None
        self.names = [of for of in own if of not in self._ignored]
        if self._itself == "self" and not self.names and not shares:
            raise TypeError(
                f"{name}: all instances would share its one result: give it a parameter or a name"
            )

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound | None:
        """Defaults are filled in, so that f(1) and f(x=1) are one. None: it can't be asked for."""
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
        return Bound(given, None) if self._itself is None else self._of(bound.arguments[self._itself], given)

    def _of(self, itself: Any, given: dict[str, Any]) -> Bound | None:
        kind = itself if isinstance(itself, type) else type(itself)
        place = place_of_class(kind) or (kind.__qualname__ if self._shares else None)
        if place is None:
            say_once(
                self._name, "class", f"runs uncached: {kind.__qualname__} has no file: move it to a module"
            )
        return None if place is None else Bound(given, place)

    def as_json(self, given: dict[str, Any]) -> Any:
        """JSON of what was bound, as it is now: the function may change it. None: it has none; said once."""
        text = exact(given)
        if text is None:
            wrong = sorted(of for of, value in given.items() if exact(value) is None)
            say_once(
                self._name, "arguments", f"runs uncached: no plain JSON: {', '.join(wrong)} (see `ignore`)"
            )
        return text


def _itself(fn: Callable[..., Any], first: str | None) -> str | None:
    """The parameter that is a method's instance or class: of what is defined in a class."""
    around = getattr(fn, "__qualname__", "").rpartition(".")[0]
    in_class = around and not around.endswith("<locals>") and not inspect.ismethod(fn)
    return first if in_class and first in _ITSELF else None
