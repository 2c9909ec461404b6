"""What is kept of a migration from one generation to the next."""

from typing import Literal

from msgspec import Struct

from service.model import Generation
from service.store.client import RedisClient
from service.store.keys import Keys
from service.store.layout import record_of

Kind = Literal["reindex", "convert", "reembed"]
"""Another index over the same documents; the vectors in other numbers; vectors of another model."""

Phase = Literal["copying", "published", "ending", "done", "undoing", "leaving", "undone"]
"""See `moving`."""


class Migration(Struct, frozen=True, kw_only=True):
    """The one at work, or the last one."""

    kind: Kind
    phase: Phase
    before: Generation
    after: Generation
    schema_before: list[str]  # arguments of FT.CREATE: the way back
    schema_after: list[str]
    begun_at: float  # s since 1970
    published_at: float | None = None
    back: bool = False  # to what was before: its threshold holds again
    found: dict[str, float | bool] = {}  # what was counted and compared

    @property
    def flat(self) -> tuple[str, ...]:
        """The indexes that are no graphs."""
        sides = ((self.before, self.schema_before), (self.after, self.schema_after))
        return tuple(one.index for one, schema in sides if "HNSW" not in schema)

    @property
    def serving(self) -> Generation:
        """What readers follow."""
        return self.after if self.phase in ("published", "ending", "done") else self.before

    @property
    def is_at_work(self) -> bool:
        """Whether there is something left to do."""
        return self.phase not in ("done", "undone")


async def read_migration(redis: RedisClient, keys: Keys) -> Migration | None:
    """None: there was none yet.

    Raises:
        LayoutError: another version wrote it.
        StoreUnavailableError: Redis does not answer.
    """
    return record_of(await redis.call("GET", name(keys)), Migration, "migration")


def name(keys: Keys) -> str:
    """Where it lies."""
    return keys.meta("responses:migration")
