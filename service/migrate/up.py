"""The commands: what is to be done, doing it, and going back."""

from collections.abc import Callable
from typing import NamedTuple

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from service.migrate.changes import Change, highest, undoing, wanted
from service.migrate.lease import leased
from service.migrate.making import needed
from service.migrate.moving import Move
from service.migrate.record import Migration, read_migration
from service.migrate.steps import Step, pending, run
from service.migrate.target import BusyError, MigrationError, Options, Target
from service.migrate.tools import added
from service.model import Generation
from service.store.drift import read_index
from service.store.functions import load
from service.store.layout import Layout, check_secret, publish_generation, read_generation, read_layout

WAIT_FOR_OTHER_S = 15
QUIETLY = Options(say=lambda _: None)


class Plan(NamedTuple):
    """What `up` would do."""

    steps: list[Step]
    at_work: Migration | None  # begun, and not at its end
    change: Change | None  # not begun; not known while there are steps


async def plan(target: Target) -> Plan:
    """What `up` would do.

    Raises:
        LayoutError: a schema doesn't fit, or a later version was here.
        StoreUnavailableError: Redis does not answer.
    """
    steps = await pending(target.redis, target.keys, target.settings.migrations_dir)
    if steps:
        return Plan(steps, None, None)
    last, current = await read_migration(target.redis, target.keys), await _current(target)
    if last is not None and last.is_at_work:
        return Plan([], last, None)
    return Plan([], None, await wanted(target, current, last))


async def up(target: Target, options: Options = QUIETLY) -> None:
    """Run the pending steps, in order; then go on with what was begun, or begin what is asked for.

    Raises:
        BusyError: another migrator is at work; says for how long its lease goes on.
        MigrationError: it can't go on; says why.
        SecretMismatchError: this Redis is another secret's.
    """
    async with leased(target) as lease:
        await _layout(target)
        await _restore(target)
        await _steps(target, options.say)
        layout = await _layout(target)
        if layout is None:
            raise MigrationError("the layout vanished while it was migrated")
        await added(target, lease, layout.partitions, options.say)
        told = await plan(target)
        move, say = Move(target, lease, layout.partitions, options), options.say
        last = await read_migration(target.redis, target.keys)
        if last is not None or told.change is not None:
            await load(target.redis)
        if last is not None and not last.is_at_work and last.serving == await _current(target):
            await move.standing.tidy(last.serving, last.flat)
        if told.at_work is not None:
            say(f"going on with what was begun: {described(told.at_work)}")
            say(described(await move.go_on(told.at_work)))
        elif told.change is not None:
            begun = await move.begin(told.change)
            say(described(begun))
            say(described(await move.go_on(begun)))


async def rollback(target: Target, options: Options = QUIETLY) -> None:
    """Back to the generation before the last migration; or on with going back, where that is at work.

    Raises:
        MigrationError: there was none, or it can't go on.
        as `up`.
    """
    async with leased(target) as lease:
        layout, last = await _layout(target), await read_migration(target.redis, target.keys)
        if layout is None or last is None or last.phase == "undone":
            raise MigrationError("there is no migration to roll back")
        await load(target.redis)
        move, say = Move(target, lease, layout.partitions, options), options.say
        if last.back and last.phase in (
            "copying",
            "published",
            "ending",
        ):  # killed as it went back
            say(f"going on with what was begun: {described(last)}")
            say(described(await move.go_on(last)))
            return
        if last.kind == "reembed" and last.published_at is not None:
            needed(target.embedder, last.before)  # before anything is changed
        if last.phase in ("copying", "published", "undoing"):
            say(described(await move.undo(last)))
            return
        if last.is_at_work:
            last = await move.go_on(last)
        if last.phase == "done":
            begun = await move.begin(await _back(target, last))
            say(described(begun))
            say(described(await move.go_on(begun)))


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
            async with leased(target):
                await _layout(target)
                await _steps(target, report)


async def _restore(target: Target) -> None:
    """Where the generation's record alone is lost, evicted perhaps: the last migration knows it."""
    last = await read_migration(target.redis, target.keys)
    if last is not None and await read_generation(target.redis, target.keys) is None:
        await publish_generation(target.redis, target.keys, last.serving)


def described(one: Migration) -> str:
    """One line."""
    return f"{one.kind} of generation {one.before.number} to {one.after.number}: {one.phase}"


async def _steps(target: Target, report: Callable[[str], None]) -> None:
    for step in await pending(target.redis, target.keys, target.settings.migrations_dir):
        report(f"{step.name}: {step.summary}")
        await run(target, step)


async def _layout(target: Target) -> Layout | None:
    """The layout, if there is one, under our secret."""
    layout = await read_layout(target.redis, target.keys)
    return None if layout is None else await check_secret(target.redis, target.keys, layout, target.keyring)


async def _current(target: Target) -> Generation:
    generation = await read_generation(target.redis, target.keys)
    if generation is None:
        raise MigrationError("there is no generation: run `semcached migrate up`")
    return generation


async def _back(target: Target, last: Migration) -> Change:
    current = await _current(target)
    state = await read_index(target.redis, target.keys.index(0, current))
    return undoing(last, current, state, await highest(target, last))
