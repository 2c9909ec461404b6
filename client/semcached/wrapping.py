"""A function with the cache around it: ask, else run and store. Sync and async, by one recipe."""

import asyncio
import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from semcached.calls import Call
from semcached.guarded import ask, ask_async, built, default_async_client, default_client
from semcached.model import Miss, ToolMiss
from semcached.testing import is_testing

F = TypeVar("F", bound=Callable[..., Any])

PASSED_BY = frozenset({"policy", "degraded"})
"""Reasons of a miss after which a store would be refused, or fail."""

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
    return run


def _sync(fn: Any, recipe: Recipe, given: Any) -> Any:
    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        client = None if is_testing() else given or default_client()
        asked = None if client is None or client.breaker.rests else recipe.asked(args, kwargs)
        if asked is None:
            return fn(*args, **kwargs)
        answer = ask(client, recipe.name, built(recipe.name, lambda: recipe.lookup(asked)), recipe.timeout_s)
        if recipe.serves(answer):
            return recipe.value(answer)
        begun = time.perf_counter()
        try:
            result = fn(*args, **kwargs)
        except Exception:
            if _leads(answer):
                ask(client, recipe.name, recipe.give_up(asked, answer), recipe.timeout_s)
            raise
        if _keeps(answer):
            took_s = time.perf_counter() - begun
            ask(client, recipe.name, _store(recipe, asked, answer, result, took_s), recipe.timeout_s)
        return result

    return run


def _async(fn: Any, recipe: Recipe, given: Any) -> Any:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        client = None if is_testing() else given or default_async_client()
        asked = None if client is None or client.breaker.rests else recipe.asked(args, kwargs)
        if asked is None:
            return await fn(*args, **kwargs)
        question = built(recipe.name, lambda: recipe.lookup(asked))
        answer = await ask_async(client, recipe.name, question, recipe.timeout_s)
        if recipe.serves(answer):
            return recipe.value(answer)
        begun = time.perf_counter()
        try:
            result = await fn(*args, **kwargs)
        except (Exception, asyncio.CancelledError) as error:
            if _leads(answer):
                given_up = ask_async(client, recipe.name, recipe.give_up(asked, answer), recipe.timeout_s)
                await _told(given_up, now=isinstance(error, Exception))
            raise
        if _keeps(answer):
            took_s = time.perf_counter() - begun
            store = _store(recipe, asked, answer, result, took_s)
            await ask_async(client, recipe.name, store, recipe.timeout_s)
        return result

    return run


def _store(recipe: Recipe, asked: dict[str, Any], miss: Any, result: Any, took_s: float) -> Call[Any] | None:
    """Where a result can't be kept, those who wait for it must hear so."""
    call = built(recipe.name, lambda: recipe.store(asked, miss, result, took_s))
    return recipe.give_up(asked, miss) if call is None and _leads(miss) else call


async def _told(given_up: Any, *, now: bool) -> None:
    """Who is cancelled has no time left: a task of its own says it."""
    if now:
        await given_up
        return
    task = asyncio.ensure_future(given_up)
    _background.add(task)
    task.add_done_callback(_background.discard)


def _leads(answer: Any) -> bool:
    return isinstance(answer, Miss | ToolMiss) and answer.lease


def _keeps(answer: Any) -> bool:
    return isinstance(answer, Miss | ToolMiss) and answer.reason not in PASSED_BY
