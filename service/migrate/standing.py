"""What stands: which generations are live, which one is searched, and who has followed."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from service.migrate.lease import Lease
from service.migrate.progress import Pace
from service.migrate.target import MigrationError, Target
from service.model import Generation, Live
from service.store.client import IndexMissingError
from service.store.documents import Documents
from service.store.index import create_index, index_names
from service.store.live import decoded, read_live, set_live
from service.store.processes import Beat, followed

FOLLOW_S = 60.0
BEHIND = f"processes have not followed within {FOLLOW_S:.0f} s: see their logs"
OTHER_MODEL = "services still have the other model: replace them first"


class Standing:
    """As far as this migrator has brought it; `share` of Redis's time for what it removes."""

    def __init__(self, target: Target, lease: Lease, partitions: int, share: float) -> None:
        self._redis, self._keys = target.redis, target.keys
        self._lease = lease
        self._share = share
        self._number = 0
        self._live: dict[int, bytes] = {}
        self.partitions = range(partitions)

    def documents(self, partition: int) -> Documents:
        """Of a partition, as long as what is live there is what we said."""
        return Documents(self._redis, self._keys, partition, self._live[partition])

    async def both(self, sides: Sequence[tuple[Generation, list[str]]], flat: tuple[str, ...]) -> None:
        """Stores write both from now on; and nobody else's copies count.

        An index that is there isn't made again: a full Redis refuses that, before it looks.

        Args:
            sides: generations, and what their indexes are made of.
            flat: names of indexes that are no graphs.
        """
        await self._announce([side for side, _ in sides], flat)
        there = await index_names(self._redis)
        for partition in self.partitions:
            for side, schema in sides:
                index, prefix = self._keys.index(partition, side), self._keys.documents(partition, side)
                if index not in there:
                    await self._lease.sure()
                    await create_index(self._redis, index, prefix, schema)
        await self._written()

    async def publish(self, generation: Generation) -> None:
        """Readers follow it from now on."""
        await self._lease.settle(self._keys.meta("responses:generation"), msgspec.json.encode(generation))

    async def tidy(self, stays: Generation, flat: tuple[str, ...]) -> None:
        """Nothing but what serves is live: not what a migrator that slept, or a starting service, left."""
        live = [decoded(one) for one in await read_live(self._redis, self._keys, self.partitions)]
        told = {one.number: one for each in live if each is not None for one in each.generations}
        others = [one for number, one in sorted(told.items()) if number != stays.number]
        names = {self._keys.index(partition, stays) for partition in self.partitions}
        begins = tuple(self._keys.indexes(partition) for partition in self.partitions)
        there = await index_names(self._redis)
        strays = [one for one in there if one.startswith(begins) and one not in names]
        if others:
            await self.only(stays, others, flat)
        for name in strays:
            await self._drop(name)

    async def only(self, stays: Generation, goes: Sequence[Generation], flat: tuple[str, ...]) -> None:
        """One is live; the others go, with what is theirs alone."""
        await self._announce([stays], flat)
        await self._written()
        await self._lease.sure()
        spaces = {one.space: one for one in goes if one.space != stays.space}
        for partition in self.partitions:
            for one in goes:
                await self._drop(self._keys.index(partition, one))
            for one in spaces.values():
                await self._forget(self.documents(partition), one)
            for one in (stays, *spaces.values()):
                await self._redis.call("UNLINK", self._keys.pending(partition, one))

    async def _drop(self, index: str) -> None:
        with suppress(IndexMissingError):
            await self._redis.call("FT.DROPINDEX", index, timeout_s=FOLLOW_S)

    async def _forget(self, documents: Documents, generation: Generation) -> None:
        pace = Pace(self._share)
        async for ids in documents.ids(generation):
            with pace:
                await documents.forget(ids, generation)
            await pace.rest()
            await self._lease.renew()

    async def _announce(self, generations: Sequence[Generation], flat: tuple[str, ...]) -> None:
        """These are live. Whoever slept through its lease swaps nothing: who has it now has swapped.

        Numbers follow clocks: none is given twice where Redis lost its last second.
        """
        told = await read_live(self._redis, self._keys, self.partitions)
        await self._lease.sure()
        known = [one.number for one in map(decoded, told) if one is not None]
        number = max([round(time.time() * 1000), *known]) + 1
        live = Live(number=number, generations=tuple(generations), token=self._lease.token, flat=flat)
        raw = msgspec.json.encode(live)
        for partition, was in zip(self.partitions, told, strict=True):
            await set_live(self._redis, self._keys, partition, was, raw)
        self._number = number
        self._live = dict.fromkeys(self.partitions, raw)

    async def _written(self) -> None:
        """Wait until every process writes what is live."""
        await self._waited(lambda beat: beat.live >= self._number)

    async def follow(self, generation: Generation, why: str = BEHIND) -> None:
        """Wait until every process searches it; `why` says what holds up those that don't."""
        await self._waited(lambda beat: beat.generation == generation.number, why)

    async def _waited(self, has: Callable[[Beat], bool], why: str = BEHIND) -> None:
        behind = await followed(self._redis, self._keys, has, patience_s=FOLLOW_S, renew=self._lease.renew)
        if behind:
            raise MigrationError(f"{len(behind)} {why}, and run it again")
