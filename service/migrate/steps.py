"""The numbered steps of the layout; which were applied is kept in Redis."""

import importlib.util
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from service.errors import LayoutError
from service.migrate.target import Target
from service.store.client import RedisClient
from service.store.diagnosis import pairs
from service.store.keys import Keys
from service.store.layout import read_generation, read_layout


class Step(NamedTuple):
    """One file of `migrations/`."""

    name: str
    summary: str
    up: Callable[[Target], Awaitable[None]]


class StepState(NamedTuple):
    """A step and when it was applied: seconds since 1970, None while pending."""

    step: Step
    applied_at: float | None


def steps(folder: Path) -> list[Step]:
    """The numbered files, in order.

    Raises:
        LayoutError: a file lacks its `up`.
    """
    return [_load(path) for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.py"))]


def _load(path: Path) -> Step:
    spec = importlib.util.spec_from_file_location(f"migrations.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise LayoutError(f"{path.name} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    summary = (module.__doc__ or "").strip().splitlines()
    if not hasattr(module, "up") or not summary:
        raise LayoutError(f"{path.name} needs a docstring and `async def up(target)`")
    return Step(path.stem, summary[0], module.up)


async def status(target: Target) -> list[StepState]:
    """Every step with when it was applied; none counts where what they wrote is gone (evicted, say)."""
    return await _states(target.redis, target.keys, target.settings.migrations_dir)


async def pending(redis: RedisClient, keys: Keys, folder: Path) -> list[Step]:
    """The steps that `up` would run."""
    return [state.step for state in await _states(redis, keys, folder) if state.applied_at is None]


async def _states(redis: RedisClient, keys: Keys, folder: Path) -> list[StepState]:
    reply = await redis.call("HGETALL", keys.meta("migrations"))
    applied = {name: float(at) for name, at in pairs(reply).items()}
    found = steps(folder)
    unknown = sorted(set(applied) - {step.name for step in found})
    if unknown:
        raise LayoutError(f"Redis was migrated by a later semcached: {', '.join(unknown)}")
    written = [await read(redis, keys) for read in (read_layout, read_generation)]
    if None in written:
        applied = {}
    return [StepState(step, applied.get(step.name)) for step in found]


async def run(target: Target, step: Step) -> None:
    """One, and note it."""
    await step.up(target)
    await target.redis.call("HSET", target.keys.meta("migrations"), step.name, time.time())
