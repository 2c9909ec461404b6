"""Fills the next generation from the one before, and holds both beside each other."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from service.migrate.comparing import SAME, Compared, Comparison, Sampler
from service.migrate.lease import Lease
from service.migrate.making import Maker, maker_of
from service.migrate.progress import Bar, Pace, Rate
from service.migrate.record import Kind, Migration
from service.migrate.standing import Standing
from service.migrate.target import MigrationError, Options, Target
from service.migrate.threshold import Neighbours, Pair, Recalibrated, recalibrated
from service.model import Generation
from service.store.documents import AT_ONCE, Document, Documents
from service.store.drift import read_index

PASSES = 20
"""Of copying what is missing, until nothing is: an earlier release writes to one space only."""
FEW = 500
"""Vectors that a pass added: what stores bring meanwhile. Services make the next ones."""
SAMPLED_AT_ONCE = 100
LOOK_S, LOOK_REST = 0.2, 20
"""How often a build is looked at, s; and times what looking took: of a million entries it takes 0.2 s."""


class Copied(NamedTuple):
    """How many, of a pass."""

    documents: int  # that were missing, or older
    vectors: int  # that documents lacked


def _is_rest(vectors: int, last: int | None) -> bool:
    """Whether those are what stores brought during a pass: few, or hardly fewer than in the pass before."""
    return vectors < FEW or (last is not None and vectors > last / 2)


class Filling:
    """Between two generations that are live."""

    def __init__(self, target: Target, lease: Lease, standing: Standing, options: Options) -> None:
        self._target = target
        self._redis, self._keys = target.redis, target.keys
        self._lease = lease
        self._standing = standing
        self._options = options

    async def recalibrated(self, migration: Migration, sampler: Sampler) -> Recalibrated:
        """The threshold for the new model."""
        neighbours, pairs = Neighbours(self._target, migration), list[Pair]()
        for partition in self._standing.partitions:
            ids = [one for at, one in sampler.kept if at == partition]
            for at in range(0, len(ids), SAMPLED_AT_ONCE):
                some = ids[at : at + SAMPLED_AT_ONCE]
                pairs += await neighbours.pairs(partition, self._standing.documents(partition), some)
                await self._lease.renew()
        told = recalibrated(pairs, migration.before.threshold)
        self._options.say(
            f"of {told.pairs} pairs of near entries the old model serves {told.accepted}; at a threshold of "
            f"{told.threshold:.3f} (was {migration.before.threshold:.3f}) the new one {told.kept}, "
            f"and {told.gained} others" + ("" if told.is_known else ": they don't tell, so it is strict")
        )
        return told

    async def built(self, generation: Generation) -> None:
        """Wait until RediSearch has read all documents into the indexes."""
        for partition in self._standing.partitions:
            index, begun = self._keys.index(partition, generation), time.monotonic()
            state = await read_index(self._redis, index)
            with Bar("indexed", state.documents) as bar:
                while not state.is_built:
                    await self._lease.renew()
                    await asyncio.sleep(max(LOOK_S, LOOK_REST * (time.monotonic() - begun)))
                    begun = time.monotonic()
                    state = await read_index(self._redis, index)
                    bar.reach(state.documents)

    async def copy(self, kind: Kind, source: Generation, goal: Generation, *, whole: bool) -> int:
        """Pass by pass, until a pass finds nothing that is missing; how many were copied.

        Once readers follow `goal` only vectors are added: an entry that is found nowhere else may have been
        invalidated meanwhile. Before that stores go on with the other model, and never is the last vector
        made: what they bring waits in `pending`.
        """
        if source.space == goal.space:
            return 0
        rate, done, last = Rate(self._options.texts_per_s), 0, None
        leaves_some = whole and kind == "reembed"
        maker = maker_of(kind, source, goal, self._target.embedder, rate=rate, rest=self._rest)
        told = 0
        for _ in range(PASSES):
            copied = Copied(0, 0)
            for partition in self._standing.partitions:
                documents = self._standing.documents(partition)
                more = await self._copy_one(documents, source, goal, maker, whole=whole)
                copied = Copied(copied.documents + more.documents, copied.vectors + more.vectors)
            done += sum(copied)
            if len(maker.refused) > told:
                told = len(maker.refused)
                self._options.say(f"{told:,} texts are refused by the embedder: they stay in the exact tier")
            if not any(copied) or (leaves_some and not copied.documents and _is_rest(copied.vectors, last)):
                return done
            last = copied.vectors
        raise MigrationError(
            "documents keep coming faster than they are copied: run it again, with a greater --pace"
        )

    async def _copy_one(
        self, documents: Documents, source: Generation, goal: Generation, maker: Maker, *, whole: bool
    ) -> Copied:
        pace, copied = Pace(self._options.share), Copied(0, 0)
        with Bar("copied", 0) as bar:
            async for ids in documents.ids(source):
                await self._lease.renew()
                with pace:
                    lacks = await documents.lacking(ids, source, goal)
                    some = await documents.read([*(lacks.documents if whole else ()), *lacks.vectors], source)
                await pace.rest()
                made = {one.entry_id: one for one in await maker.made(documents, some)}
                pages = [[made[one] for one in kind if one in made] for kind in lacks]
                more = [await self._write(documents, page, source, goal) for page in pages]
                copied = Copied(copied.documents + more[0], copied.vectors + more[1])
                bar.add(len(ids))
        return copied

    async def _write(
        self, documents: Documents, some: Sequence[Document], source: Generation, goal: Generation
    ) -> int:
        pace, written = Pace(self._options.share), 0
        for at in range(0, len(some), AT_ONCE):
            with pace:
                written += await documents.copy(some[at : at + AT_ONCE], source, goal)
            await pace.rest()
            await self._lease.renew()
        return written

    async def _rest(self, seconds: float) -> None:
        """For so long, with the lease renewed."""
        await self._lease.renew()
        while seconds > 0:
            await asyncio.sleep(min(seconds, LOOK_S))
            seconds -= LOOK_S
            await self._lease.renew()

    async def sweep(self, source: Generation, goal: Generation, sampler: Sampler) -> None:
        """Away with what was deleted by who knew of one space only."""
        for partition in self._standing.partitions:
            documents = self._standing.documents(partition)
            async for ids in documents.ids(goal):
                await documents.sweep(ids, source, goal)
                sampler.look(partition, ids)
                await self._lease.renew()

    async def sample(self, generation: Generation, sampler: Sampler) -> None:
        for partition in self._standing.partitions:
            async for ids in self._standing.documents(partition).ids(generation):
                sampler.look(partition, ids)
                await self._lease.renew()

    async def compared(self, migration: Migration, sampler: Sampler) -> Compared:
        """Hold both indexes beside each other.

        Raises:
            MigrationError: too little is the same.
        """
        compared, found = Comparison(self._target, migration), Compared(0, 0, 0.0)
        for partition in self._standing.partitions:
            ids = [one for at, one in sampler.kept if at == partition]
            some = await self._standing.documents(partition).read(ids, migration.before)
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
