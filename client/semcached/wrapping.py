"""A function with the cache around it: ask, else run and store. Sync and async, by one recipe."""

import asyncio
import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from semcached.calls import Call
from semcached.guarded import ask, ask_async, built, default_async_client, default_client, say_once
from semcached.model import Miss, ToolMiss
from semcached.testing import is_testing

F = TypeVar("F", bound=Callable[..., Any])

PASSED_BY = frozenset({"policy", "degraded"})
"""Reasons of a miss after which a store would be refused, or fail."""

MARK = "_semcached"
_running: ContextVar[tuple[dict[str, Any], ...]] = ContextVar("semcached_running", default=())
"""What runs around this call: asked again in there, it would wait for itself."""
_background: set[asyncio.Task[Any]] = set()


class Recipe(Protocol):
    """What is asked of a function's arguments, and what is stored of its result."""

    name: str
    timeout_s: float

    def asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The call's fields, no part of which the function can change; None: it runs uncached."""

    def lookup(self, asked: dict[str, Any]) -> Call[Any]:
        """The question."""

    def serves(self, answer: Any) -> bool:
        """Whether an answer has a result."""

    def value(self, hit: Any) -> Any:
        """The result."""

    def store(self, asked: dict[str, Any], miss: Any, result: Any, took_s: float) -> Call[Any] | None:
        """What keeps a result; None: it can't be kept."""

    def give_up(self, asked: dict[str, Any], miss: Any) -> Call[Any]:
        """What passes the lease on: a store that is refused for what it is."""


def checked(fn: Any, decorator: str) -> None:
    """Whether it is a function that can be cached.

    Raises:
        TypeError: says why not.
    """
    if isinstance(fn, classmethod | staticmethod):
        raise TypeError(f"put @{decorator} below @{type(fn).__name__}")
    if not inspect.isroutine(fn):
        raise TypeError(f"@{decorator} takes functions and methods, not {type(fn).__name__}")
    if MARK in getattr(fn, "__dict__", {}):
        raise TypeError(f"{fn.__qualname__}: is decorated already")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{fn.__qualname__}: a generator can't be cached; return a list")


def wrapped(fn: F, recipe: Recipe, client: Any) -> F:
    """The function with the cache around it.

    Raises:
        TypeError: a sync function has an AsyncClient, or the other way round.
    """
    is_async = inspect.iscoroutinefunction(fn)
    if client is not None and inspect.iscoroutinefunction(client.send) != is_async:
        wanted = "an AsyncClient" if is_async else "a Client"
        raise TypeError(f"{recipe.name}: client: must be {wanted}")
    run: F = (_async if is_async else _sync)(fn, recipe, client)
    vars(run)[MARK] = True
    return run


def _sync(fn: Any, recipe: Recipe, given: Any) -> Any:
    awaited = False

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal awaited
        client = None if awaited or is_testing() else given or default_client()
        asked = None if client is None or client.breaker.rests else recipe.asked(args, kwargs)
        if asked is None or asked in _running.get():
            return fn(*args, **kwargs)
        answer = ask(client, recipe.name, built(recipe.name, lambda: recipe.lookup(asked)), recipe.timeout_s)
        if recipe.serves(answer):
            return recipe.value(answer)
        kept, begun = None, time.perf_counter()
        try:
            with _runs(asked):
                result = fn(*args, **kwargs)
            awaited = _is_awaited(recipe, result)
            if _keeps(answer) and not awaited:
                store = _store(recipe, asked, answer, result, time.perf_counter() - begun)
                kept = ask(client, recipe.name, store, recipe.timeout_s)
        finally:  # also where the process ends
            if kept is None and _leads(answer):
                ask(client, recipe.name, recipe.give_up(asked, answer), recipe.timeout_s)
        return result

    return run


def _async(fn: Any, recipe: Recipe, given: Any) -> Any:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        client = None if is_testing() else given or default_async_client()
        asked = None if client is None or client.breaker.rests else recipe.asked(args, kwargs)
        if asked is None or asked in _running.get():
            return await fn(*args, **kwargs)
        question = built(recipe.name, lambda: recipe.lookup(asked))
        answer = await ask_async(client, recipe.name, question, recipe.timeout_s)
        if recipe.serves(answer):
            return recipe.value(answer)
        kept, begun = None, time.perf_counter()
        try:
            with _runs(asked):
                result = await fn(*args, **kwargs)
            if _keeps(answer):
                store = _store(recipe, asked, answer, result, time.perf_counter() - begun)
                kept = await ask_async(client, recipe.name, store, recipe.timeout_s)
        finally:
            if kept is None and _leads(answer) and not isinstance(sys.exception(), GeneratorExit):
                await _told(ask_async(client, recipe.name, recipe.give_up(asked, answer), recipe.timeout_s))
        return result

    return run


@contextmanager
def _runs(asked: dict[str, Any]) -> Iterator[None]:
    around = _running.get()
    _running.set((*around, asked))
    try:
        yield
    finally:
        _running.set(around)


def _is_awaited(recipe: Recipe, result: Any) -> bool:
    """Whether a function that isn't `async def` must be awaited nevertheless."""
    if inspect.isawaitable(result):
        what = "its result must be awaited: put the decorator right above `async def`"
        say_once(recipe.name, "awaited", f"runs uncached from now on: {what}")
        return True
    return False


def _store(recipe: Recipe, asked: dict[str, Any], miss: Any, result: Any, took_s: float) -> Call[Any] | None:
    return built(recipe.name, lambda: recipe.store(asked, miss, result, took_s))


async def _told(given_up: Any) -> None:
    """By a task of its own: who is cancelled once more doesn't end it. It takes `timeout_s` at most."""
    task = asyncio.ensure_future(given_up)
    _background.add(task)
    task.add_done_callback(_background.discard)
    await asyncio.wait({task})


def _leads(answer: Any) -> bool:
    return isinstance(answer, Miss | ToolMiss) and answer.lease


def _keeps(answer: Any) -> bool:
    return isinstance(answer, Miss | ToolMiss) and answer.reason not in PASSED_BY
