"""From one generation to the next, step by step; what was killed anywhere is gone on with, or undone.

copying    both are live: stores write both, readers follow `before`
published  both are live, readers follow `after`; of another model's vectors it waits here
ending     `after` is live; `before` goes
done
undoing    both are live; readers are to follow `before` again
leaving    `before` is live; `after` goes
undone
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from service.migrate.changes import Change
from service.migrate.comparing import SAME, Compared, Comparison, Sampler
from service.migrate.lease import Lease
from service.migrate.making import Maker, maker_of
from service.migrate.progress import Bar, Pace, Say
from service.migrate.record import Migration, Phase, name
from service.migrate.target import MigrationError, Target
from service.migrate.threshold import Neighbours, Pair, Recalibrated, recalibrated
from service.model import Generation, Live
from service.store.client import IndexMissingError
from service.store.documents import AT_ONCE, Documents
from service.store.drift import read_index
from service.store.index import arguments_of, create_index
from service.store.live import decoded, read_live
from service.store.processes import Beat, followed

PASSES = 20
"""Of copying what is missing, until nothing is: an earlier release writes to one space only."""
FOLLOW_S = 60.0
SAMPLED_AT_ONCE = 100
LOOK_S, LOOK_REST = 0.2, 20
"""How often a build is looked at, s; and times what looking took: of a million entries it takes 0.2 s."""


class Options(NamedTuple):
    """How to go about it."""

    share: float = 0.5  # of Redis's time, while copying
    grace_s: float = 86_400.0  # how long another model's generation is kept
    finish: bool = False  # don't keep it any longer
    say: Say = print


class Move:
    """One migration, under a lease."""

    def __init__(self, target: Target, lease: Lease, partitions: int, options: Options) -> None:
        self._target = target
        self._redis, self._keys = target.redis, target.keys
        self._lease = lease
        self._partitions = range(partitions)
        self._options = options
        self._live: dict[int, bytes] = {}

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
            migration = await self._published(await self._filled(migration))
            if migration.kind == "reembed":
                return migration  # services with the old model are replaced meanwhile
        if migration.phase == "published":
            self._check_grace(migration)
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

    async def _published(self, migration: Migration) -> Migration:
        await self._publish(migration.after)
        return await self._note(replace(migration, published_at=time.time()), "published")

    async def _left(self, migration: Migration) -> Migration:
        """Nobody needs the generation before any more."""
        await self._both(migration)
        await self._follow(migration.after)
        if migration.kind == "reembed":
            await self._copy(migration.before, migration.after, self._maker(migration), whole=False)
        return await self._note(migration, "ending")

    async def _returned(self, migration: Migration) -> Migration:
        """Nobody needs the generation after any more."""
        await self._both(migration)
        if migration.published_at is not None and migration.kind == "reembed":
            back = replace(migration, before=migration.after, after=migration.before)
            await self._copy(back.before, back.after, self._maker(back), whole=False)
        await self._publish(migration.before)
        await self._follow(migration.before)
        return await self._note(migration, "leaving")

    def _check_grace(self, migration: Migration) -> None:
        """Whether another model's generation has been kept for long enough.

        Raises:
            MigrationError: it hasn't.
        """
        ends = (migration.published_at or 0) + self._options.grace_s
        if migration.kind == "reembed" and time.time() < ends and not self._options.finish:
            raise MigrationError(
                f"generation {migration.before.number} is kept for {(ends - time.time()) / 3600:.1f} h more, "
                "to roll back to; `semcached migrate up --finish` removes it now"
            )

    def _maker(self, migration: Migration) -> Maker:
        return maker_of(migration, self._target.embedder)

    async def _both(self, migration: Migration) -> None:
        """Stores write both from now on; and nobody else's copies count."""
        await self._raise([migration.before, migration.after], migration.flat)
        for partition in self._partitions:
            for side, schema in self._sides(migration):
                await self._lease.sure()
                index, prefix = self._keys.index(partition, side), self._keys.documents(partition, side)
                await create_index(self._redis, index, prefix, schema)
        await self._written()

    def _sides(self, migration: Migration) -> list[tuple[Generation, list[str]]]:
        return [(migration.before, migration.schema_before), (migration.after, migration.schema_after)]

    async def _filled(self, migration: Migration) -> Migration:
        """With everything in the next generation, and compared."""
        await self._both(migration)
        before, after = migration.before, migration.after
        sampler = Sampler()
        copied = 0
        if migration.kind == "reindex":
            await self._built(after)
            await self._sample(after, sampler)
        else:
            copied = await self._copy(before, after, self._maker(migration), whole=True)
            await self._sweep(before, after, sampler)
        seconds = round(time.time() - migration.begun_at, 1)
        found: dict[str, float | bool] = {"copied": copied, "took_s": seconds}
        if migration.kind == "reembed":
            told = await self._recalibrated(migration, sampler)
            after = replace(after, threshold=told.threshold)
            found |= told._asdict()
        else:
            found |= (await self._compared(migration, sampler))._asdict()
        return await self._note(replace(migration, after=after, found=migration.found | found))

    async def _recalibrated(self, migration: Migration, sampler: Sampler) -> Recalibrated:
        """The threshold for the new model."""
        neighbours, pairs = Neighbours(self._target, migration), list[Pair]()
        for partition in self._partitions:
            ids = [one for at, one in sampler.kept if at == partition]
            for at in range(0, len(ids), SAMPLED_AT_ONCE):
                some = ids[at : at + SAMPLED_AT_ONCE]
                pairs += await neighbours.pairs(partition, self._documents(partition), some)
                await self._lease.renew()
        told = recalibrated(pairs, migration.before.threshold)
        self._options.say(
            f"of {told.pairs} pairs of near entries the old model serves {told.accepted}; at a threshold of "
            f"{told.threshold:.3f} (was {migration.before.threshold:.3f}) the new one {told.kept}, "
            f"and {told.gained} others" + ("" if told.is_known else ": too few to tell, so it is strict")
        )
        return told

    async def _built(self, generation: Generation) -> None:
        """Wait until RediSearch has read all documents into the indexes."""
        for partition in self._partitions:
            index, begun = self._keys.index(partition, generation), time.monotonic()
            state = await read_index(self._redis, index)
            with Bar("indexed", state.documents) as bar:
                while not state.is_built:
                    await self._lease.renew()
                    await asyncio.sleep(max(LOOK_S, LOOK_REST * (time.monotonic() - begun)))
                    begun = time.monotonic()
                    state = await read_index(self._redis, index)
                    bar.reach(state.documents)

    async def _copy(self, source: Generation, goal: Generation, maker: Maker, *, whole: bool) -> int:
        """Pass by pass, until a pass finds nothing that is missing; how many were copied.

        Once readers follow `goal` only vectors are added: an entry that is found nowhere else may have been
        invalidated meanwhile.
        """
        if source.space == goal.space:
            return 0
        done = 0
        for _ in range(PASSES):
            copied = 0
            for partition in self._partitions:
                copied += await self._copy_one(self._documents(partition), source, goal, maker, whole=whole)
            done += copied
            if not copied:
                return done
        raise MigrationError(
            "documents keep coming faster than they are copied: run it again, with a greater --pace"
        )

    async def _copy_one(
        self, documents: Documents, source: Generation, goal: Generation, maker: Maker, *, whole: bool
    ) -> int:
        pace, copied = Pace(self._options.share), 0
        with Bar("copied", 0) as bar:
            async for ids in documents.ids(source):
                await self._lease.renew()
                missing = await documents.missing(ids, source, goal, whole=whole)
                made = await maker.made(documents, await documents.read(missing, source))
                for at in range(0, len(made), AT_ONCE):
                    with pace:
                        copied += await documents.copy(made[at : at + AT_ONCE], source, goal)
                    await pace.rest()
                    await self._lease.renew()
                bar.add(len(ids))
        return copied

    async def _sweep(self, source: Generation, goal: Generation, sampler: Sampler) -> None:
        """Away with what was deleted by who knew of one space only."""
        for partition in self._partitions:
            documents = self._documents(partition)
            async for ids in documents.ids(goal):
                await documents.sweep(ids, source, goal)
                sampler.look(partition, ids)
                await self._lease.renew()

    async def _sample(self, generation: Generation, sampler: Sampler) -> None:
        for partition in self._partitions:
            async for ids in self._documents(partition).ids(generation):
                sampler.look(partition, ids)
                await self._lease.renew()

    async def _compared(self, migration: Migration, sampler: Sampler) -> Compared:
        """Hold both indexes beside each other.

        Raises:
            MigrationError: too little is the same.
        """
        compared, found = Comparison(self._target, migration), Compared(0, 0, 0.0)
        for partition in self._partitions:
            ids = [one for at, one in sampler.kept if at == partition]
            some = await self._documents(partition).read(ids, migration.before)
            more = await compared.of(partition, some)
            found = Compared(found.asked + more.asked, found.same + more.same, max(found.error, more.error))
            await self._lease.renew()
        self._options.say(
            f"{found.same} of {found.asked} sampled questions have the same nearest entry in both; "
            f"similarities differ by {found.error:.1g} at most"
        )
        if found.share < SAME:
            raise MigrationError(
                f"only {found.share:.1%} of sampled questions have the same nearest entry: "
                "`semcached migrate rollback`, or run it again if entries were changing quickly"
            )
        return found

    async def _publish(self, generation: Generation) -> None:
        """Readers follow it from now on."""
        await self._lease.settle(self._keys.meta("responses:generation"), msgspec.json.encode(generation))

    async def _end(self, migration: Migration) -> None:
        """One is live; the other goes."""
        stays, goes = migration.after, migration.before
        if migration.phase == "leaving":
            stays, goes = goes, stays
        await self._raise([stays], migration.flat)
        await self._written()
        await self._lease.sure()
        for partition in self._partitions:
            with suppress(IndexMissingError):
                await self._redis.call("FT.DROPINDEX", self._keys.index(partition, goes), timeout_s=FOLLOW_S)
        if goes.space == stays.space:
            return
        for partition in self._partitions:
            await self._forget(self._documents(partition), goes)
            await self._redis.call("UNLINK", self._keys.pending(partition, goes))

    async def _forget(self, documents: Documents, generation: Generation) -> None:
        pace = Pace(self._options.share)
        async for ids in documents.ids(generation):
            with pace:
                await documents.forget(ids, generation)
            await pace.rest()
            await self._lease.renew()

    # --- what is known of it ---

    async def _raise(self, generations: Sequence[Generation], flat: tuple[str, ...]) -> None:
        """These are live. It can't be fenced off, and harms nobody: all write what they follow as well."""
        await self._lease.sure()
        told = await read_live(self._redis, self._keys, self._partitions)
        known = [one for one in map(decoded, told) if one is not None]
        number = max((one.number for one in known), default=0) + 1
        live = Live(number=number, generations=tuple(generations), token=self._lease.token, flat=flat)
        raw = msgspec.json.encode(live)
        for partition in self._partitions:
            await self._redis.call("SET", self._keys.live(partition), raw)
        self._number = number
        self._live = dict.fromkeys(self._partitions, raw)

    async def _written(self) -> None:
        """Wait until every process writes what is live."""
        await self._waited(lambda beat: beat.live >= self._number)

    async def _follow(self, generation: Generation) -> None:
        """Wait until every process searches it."""
        await self._waited(lambda beat: beat.generation == generation.number)

    async def _waited(self, has: Callable[[Beat], bool]) -> None:
        behind = await followed(self._redis, self._keys, has, patience_s=FOLLOW_S, renew=self._lease.renew)
        if behind:
            raise MigrationError(
                f"{len(behind)} processes have not followed within {FOLLOW_S:.0f} s: see their logs, "
                "and run it again"
            )

    async def _note(self, migration: Migration, phase: Phase | None = None) -> Migration:
        noted = migration if phase is None else replace(migration, phase=phase)
        await self._lease.settle(name(self._keys), msgspec.json.encode(noted))
        return noted

    def _documents(self, partition: int) -> Documents:
        return Documents(self._redis, self._keys, partition, self._live[partition])
