"""Where functions and classes are defined: what tells two of one name apart."""

import inspect
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

_MAIN = {"__main__", "__mp_main__"}
"""Any script's module: as it was started, and in the processes that `multiprocessing` starts for it."""


def place_of(fn: Callable[..., Any], instead: str) -> str:
    """Module and qualified name. `instead`: what the user may give in their place, as in `name=…`.

    Raises:
        TypeError: they don't tell the function from others.
    """
    inner = inspect.unwrap(fn)
    home = _home(fn.__module__, getattr(inner, "__globals__", {}))
    reason = None
    if fn.__name__ == "<lambda>":
        reason = "a lambda has no name; write def"
    elif inspect.ismethod(fn):
        reason = "a bound method doesn't say whose it is; decorate it in its class"
    elif home is None:
        reason = "code without a file, as a notebook's, has no name of its own; move it to a module"
    elif captured := _captured(inner, fn.__qualname__):
        reason = f"it captures {captured}, which is no part of the key; make it a parameter"
    if reason is not None:
        raise TypeError(f"{fn.__qualname__}: {reason}, or give it {instead}")
    return f"{home}.{fn.__qualname__}"


def place_of_class(kind: type) -> str | None:
    """As of a function; None: it has none."""
    home = _home(kind.__module__, getattr(sys.modules.get(kind.__module__), "__dict__", {}))
    return None if home is None else f"{home}.{kind.__qualname__}"


def _home(module: str, scope: Mapping[str, Any]) -> str | None:
    """The module's name, of a script a digest of its path; None: it has neither. `scope`: its variables."""
    if module not in _MAIN:
        return module
    if scope.get("__name__") != module:
        return None
    spec, file = scope.get("__spec__"), scope.get("__file__")
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name)
    if not file or file.startswith("<"):
        return None
    return f"script-{sha256(bytes(Path(file).resolve())).hexdigest()[:16]}"


def _captured(fn: Callable[..., Any], qualified: str) -> str:
    """Variables of the function around it, which is called for each such function anew."""
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    return ", ".join(of for of in names if of != "__class__") if "<locals>" in qualified else ""
