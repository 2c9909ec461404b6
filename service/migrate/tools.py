"""The index over tool results beside tools.yaml: what is missing is added while it serves, nothing goes.

RediSearch then reads the documents anew, in the background. It can neither drop a field nor change one.
"""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from service.migrate.lease import Lease
from service.migrate.progress import Say
from service.migrate.target import MigrationError, Target
from service.store.client import IndexMissingError, RedisRefusedError
from service.store.drift import missing, others, read_index
from service.store.functions import load
from service.store.index import ALTER_S, load_tools, options_of

LOOK_S = 0.2


class Beside(NamedTuple):
    """One partition's index."""

    name: str
    missing: list[str]  # fields
    stays: list[str]  # as `differences` tells of them

    @property
    def told(self) -> Iterator[str]:
        """What `up` would do."""
        if self.missing:
            names = ", ".join(f"`{name}`" for name in self.missing)
            yield f"tools: {names} will be added to {self.name}; its documents are read anew while it serves"

    @property
    def left(self) -> Iterator[str]:
        """What stays as it is, and why it may."""
        for one in self.stays:
            yield (
                f"tools: {one}, and stays: fields can't be dropped or changed; lookups don't use this index, "
                f"invalidations go by the fields as they are. FT.DROPINDEX {self.name} (without DD) "
                "and a running service makes it anew"
            )


async def beside(target: Target, partitions: int) -> list[Beside]:
    """Those that differ; an index that is gone is made by a service that starts.

    Raises:
        LayoutError: the schema lacks what the service asks for.
        StoreUnavailableError: Redis does not answer.
    """
    found = [await _beside(target, one) for one in range(partitions)]
    return [one for one in found if one is not None and (one.missing or one.stays)]


async def added(target: Target, lease: Lease, partitions: int, say: Say) -> None:
    """Add the missing fields, and wait until the documents are read.

    Raises:
        MigrationError: Redis refuses.
        as `beside`.
    """
    schema = load_tools(target.settings.schema_dir)
    for one in [one for one in await beside(target, partitions) if one.missing]:
        await load(target.redis)  # what renews the lease
        say(f"tools: adding {', '.join(one.missing)} to {one.name}")
        await lease.sure()
        fields = [part for name in one.missing for part in options_of(schema.fields[name])]
        try:
            await target.redis.call("FT.ALTER", one.name, "SCHEMA", "ADD", *fields, timeout_s=ALTER_S)
        except RedisRefusedError as error:
            raise MigrationError(f"{one.name} can't be changed: {error}") from error
        while not (await read_index(target.redis, one.name)).is_built:
            await lease.renew()
            await asyncio.sleep(LOOK_S)


async def _beside(target: Target, partition: int) -> Beside | None:
    schema, index = load_tools(target.settings.schema_dir), target.keys.tool_index(partition)
    try:
        found = (await read_index(target.redis, index)).fields
    except IndexMissingError:
        return None
    return Beside(index, missing(schema, found), list(others(schema, found)))
