"""Brings the layout in Redis to what `migrations/`, `index_schemas/` and the settings ask for.

`migrations/` holds numbered, idempotent steps; which were applied is kept in Redis. One migrator works at
a time, under a lease.
"""

import importlib.util
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from service.cache.digests import Keyring
from service.errors import LayoutError, StartupError
from service.settings import Settings
from service.store.client import RedisClient
from service.store.diagnosis import pairs
from service.store.keys import Keys
from service.store.layout import check_secret, read_generation, read_layout

LEASE_MS = 30_000
WAIT_FOR_OTHER_S = 15


class Model(NamedTuple):
    """The embedder that the index is to hold vectors of."""

    name: str
    revision: str
    dim: int | None  # None: no matter, for what only reads


class Target(NamedTuple):
    """The Redis to migrate and what it is to become."""

    redis: RedisClient
    keys: Keys
    keyring: Keyring
    settings: Settings
    model: Model


class Step(NamedTuple):
    """One file of `migrations/`."""

    name: str
    summary: str
    up: Callable[[Target], Awaitable[None]]


class StepState(NamedTuple):
    """A step and when it was applied: seconds since 1970, None while pending."""

    step: Step
    applied_at: float | None


class BusyError(StartupError):
    """Another migrator holds the lease."""


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


async def plan(target: Target) -> list[Step]:
    """The steps that `up` would run."""
    return await pending(target.redis, target.keys, target.settings.migrations_dir)


async def up(target: Target, report: Callable[[str], None]) -> None:
    """Run the pending steps, in order.

    Raises:
        BusyError: another migrator is at work; says for how long its lease goes on.
        SecretMismatchError: this Redis is another secret's.
    """
    async with _lease(target):
        layout = await read_layout(target.redis, target.keys)
        if layout is not None:
            await check_secret(target.redis, target.keys, layout, target.keyring)
        for step in await plan(target):
            report(f"{step.name}: {step.summary}")
            await step.up(target)
            await target.redis.call("HSET", target.keys.meta("migrations"), step.name, time.time())


async def up_if_empty(target: Target, report: Callable[[str], None]) -> None:
    """Set up a Redis that was never set up; of services that start together one does it."""
    if await target.redis.call("EXISTS", target.keys.meta("migrations")):
        return
    async for attempt in AsyncRetrying(
        wait=wait_fixed(0.1),
        stop=stop_after_delay(WAIT_FOR_OTHER_S),
        retry=retry_if_exception_type(BusyError),
        reraise=True,
    ):
        with attempt:
            await up(target, report)


@asynccontextmanager
async def _lease(target: Target) -> AsyncIterator[None]:
    key, token = target.keys.meta("migrations:lease"), secrets.token_hex(8)
    if not await target.redis.call("SET", key, token, "NX", "PX", LEASE_MS):
        left = await target.redis.call("PTTL", key)
        raise BusyError(f"another migrator is at work; its lease ends in {max(0, left) / 1000:.0f} s at most")
    try:
        yield
    finally:
        if await target.redis.call("GET", key) == token.encode():
            await target.redis.call("DEL", key)
