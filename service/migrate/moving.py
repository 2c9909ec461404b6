"""From one generation to the next, step by step; what was killed anywhere is gone on with, or undone.

copying    both are live: stores write both, readers follow `before`
published  both are live, readers are to follow `after`; of another model's vectors it waits here
ending     `after` is live; `before` goes
done
undoing    both are live; readers are to follow `before` again
leaving    `before` is live; `after` goes
undone
"""

import time

import msgspec
from msgspec.structs import replace

from service.migrate.changes import Change
from service.migrate.comparing import Sampler
from service.migrate.filling import Filling
from service.migrate.lease import Lease
from service.migrate.record import Migration, Phase, name
from service.migrate.standing import OTHER_MODEL, Standing
from service.migrate.target import Options, Target
from service.model import Generation
from service.store.chosen import note_chosen
from service.store.index import arguments_of


class Move:
    """One migration, under a lease."""

    def __init__(self, target: Target, lease: Lease, partitions: int, options: Options) -> None:
        self._target, self._name = target, name(target.keys)
        self._lease = lease
        self._options = options
        self.standing = Standing(target, lease, partitions, options.share)
        self._filling = Filling(target, lease, self.standing, options)

    async def begin(self, change: Change) -> Migration:
        """Note it, before anything else is done."""
        begun = Migration(
            kind=change.kind,
            phase="copying",
            before=change.before,
            after=change.after,
            schema_before=arguments_of(change.state.fields),
            schema_after=change.schema,
            begun_at=time.time(),
            back=change.back,
        )
        return await self._note(begun)

    async def go_on(self, migration: Migration) -> Migration:
        """To its end.

        Raises:
            MigrationError: what came out differs too much, or processes don't follow.
            BusyError: the lease went to another.
            StoreUnavailableError: Redis does not answer.
        """
        if migration.phase == "copying":
            migration = await self.published(await self._filled(migration))
            if migration.kind == "reembed":
                return migration  # services with the old model are replaced meanwhile
        if migration.phase == "published":
            await self.standing.publish(migration.after)
            if self._is_kept(migration):
                return migration
            migration = await self._left(migration)
        if migration.phase == "undoing":
            migration = await self._returned(migration)
        await self._end(migration)
        return await self._note(migration, "done" if migration.phase == "ending" else "undone")

    async def undo(self, migration: Migration) -> Migration:
        """Back to where it began, while both are live.

        Raises:
            as `go_on`.
        """
        return await self.go_on(await self._note(migration, "undoing"))

    # --- steps; each may be repeated ---

    async def published(self, migration: Migration) -> Migration:
        """Noted first: from then on nothing is copied that readers of `after` may have invalidated."""
        if migration.kind == "reembed":
            await note_chosen(self._target.redis, self._target.keys, migration.before.embedding)
        noted = await self._note(replace(migration, published_at=time.time()), "published")
        await self.standing.publish(migration.after)
        return noted

    async def _left(self, migration: Migration) -> Migration:
        """Nobody needs the generation before any more."""
        await self.both(migration)
        if migration.kind == "reembed":
            await self._alone(migration, migration.after)
        else:
            await self.standing.follow(migration.after)
        return await self._note(migration, "ending")

    async def _returned(self, migration: Migration) -> Migration:
        """Nobody needs the generation after any more."""
        await self.both(migration)
        embeds = migration.published_at is not None and migration.kind == "reembed"
        if embeds:  # first: services with the other model serve until they are replaced
            await self._alone(migration, migration.before)
        await self._filling.built(migration.before)
        await self.standing.publish(migration.before)
        await self.standing.follow(migration.before)
        if embeds:  # what one stored that came meanwhile
            await self._alone(migration, migration.before)
        return await self._note(migration, "leaving")

    async def _alone(self, migration: Migration, stays: Generation) -> None:
        """Every service has the model of the generation that stays, which has all vectors."""
        goes = migration.before if stays == migration.after else migration.after
        await self.standing.follow(stays, OTHER_MODEL)
        await self._filling.copy(migration.kind, goes, stays, whole=False)

    def _is_kept(self, migration: Migration) -> bool:
        """Whether another model's generation isn't to go yet; says so."""
        ends = (migration.published_at or 0) + self._options.grace_s
        if migration.kind != "reembed" or time.time() >= ends or self._options.finish:
            return False
        self._options.say(
            f"generation {migration.before.number} is kept for {(ends - time.time()) / 3600:.1f} h more, "
            "to roll back to; `semcached migrate up --finish` removes it now"
        )
        return True

    async def both(self, migration: Migration) -> None:
        """Stores write both from now on."""
        sides = [(migration.before, migration.schema_before), (migration.after, migration.schema_after)]
        await self.standing.both(sides, migration.flat)

    async def _filled(self, migration: Migration) -> Migration:
        """With everything in the next generation, and compared."""
        await self.both(migration)
        before, after = migration.before, migration.after
        sampler = Sampler()
        copied = 0
        if migration.kind != "reindex":
            copied = await self._filling.copy(migration.kind, before, after, whole=True)
        await self._filling.built(after)  # of copies, too: an index may be made anew behind them
        if migration.kind == "reindex":
            await self._filling.sample(after, sampler)
        else:
            await self._filling.sweep(before, after, sampler)
        seconds = round(time.time() - migration.begun_at, 1)
        found: dict[str, float | bool] = {"copied": copied, "took_s": seconds}
        if migration.kind == "reembed" and not migration.back:
            told = await self._filling.recalibrated(migration, sampler)
            after = replace(after, threshold=told.threshold)
            found |= told._asdict()
        elif migration.kind == "reembed":
            self._options.say(f"the threshold is {after.threshold:.3f} again")
        else:
            found |= (await self._filling.compared(migration, sampler))._asdict()
        # an earlier release, which writes one space only, went on meanwhile
        await self._filling.copy(migration.kind, before, after, whole=True)
        return await self._note(replace(migration, after=after, found=migration.found | found))

    async def _end(self, migration: Migration) -> None:
        """One is live; the other goes."""
        stays, goes = migration.after, migration.before
        if migration.phase == "leaving":
            stays, goes = goes, stays
        await self.standing.publish(stays)  # again: a failover may have lost it
        await self.standing.only(stays, [goes], migration.flat)

    async def _note(self, migration: Migration, phase: Phase | None = None) -> Migration:
        noted = migration if phase is None else replace(migration, phase=phase)
        await self._lease.settle(self._name, msgspec.json.encode(noted))
        return noted
