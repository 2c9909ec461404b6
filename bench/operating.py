"""An operator who migrates as docs/migrations.md tells, and whose migrators may be killed."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from redis import Redis

from bench.keyspace import Keyspace
from bench.migration import schemas
from bench.migrators import Migrator, Migrators
from bench.processes import Served
from bench.stock import Doors
from service.migrate.record import Migration

SECRET = "a secret of the kills"  # noqa: S105 - of a Redis that lives for minutes
CHANGES: Mapping[str, tuple[str, str]] = {
    "reindex": ("m: 20", "m: 8"),
    "convert": ("datatype: float16", "datatype: float32"),
}
MODELS = (
    {"openai_model": "first", "openai_dimensions": "64"},
    {"openai_model": "second", "openai_dimensions": "48"},
)
PARTITIONS = 2
PACE = "0.5"
NOTHING = "there is no migration to roll back"

LOOK_S = 0.005

Bomb = Callable[[Migrator], None]
"""What happens to a migrator at its time."""


class KilledError(Exception):
    """A migrator, or Redis beneath it, was killed."""


class RefusedError(Exception):
    """A migrator ended with an error."""


class Fuse:
    """Burns for so many seconds of migrators' work, once something `is_so`."""

    def __init__(self, seconds: float, is_so: Callable[[], bool], bomb: Bomb) -> None:
        self._left, self._is_so, self._bomb = seconds, is_so, bomb

    def burn(self, migrator: Migrator) -> None:
        """Until the migrator's end.

        Raises:
            KilledError: it burnt down before.
        """
        while not self._is_so():
            if migrator.ends_within(LOOK_S):
                return
        begun = time.monotonic()
        if not migrator.ends_within(self._left):
            self._bomb(migrator)
            raise KilledError
        self._left = max(0.0, self._left - (time.monotonic() - begun))


class Operator:
    """Of two sides, 0 and 1: settings of migrators and, where the models differ, of services."""

    def __init__(self, kind: str, url: str, folder: Path, api: str) -> None:
        self.kind = kind
        self.keyspace = Keyspace(Redis.from_url(url, protocol=2))
        self.doors, self.migrators = Doors(), Migrators(folder)
        self.took_s: list[float] = []
        """Migrators, for each migration from its begin to its end that wasn't killed."""
        self.fuse: Fuse | None = None
        self._folder = folder
        self._running: dict[int, Served] = {}
        common = {"redis_url": url, "secret": SECRET, "embedder": "openai", "openai_base_url": api}
        common |= {
            "partitions": str(PARTITIONS),
            "verifier": "off",
            "memory_bytes": "0",
            "redis_timeout_s": "5",
        }
        changed = [CHANGES[kind]] if kind in CHANGES else []
        folders = [schemas(folder / "plain"), schemas(folder / "changed", *changed)]
        models = (MODELS[0], MODELS[0] if changed else MODELS[1])
        self.sides = [
            common | {"schema_dir": str(one), "data_dir": str(folder / "migrate")} | model
            for one, model in zip(folders, models, strict=True)
        ]

    @property
    def side(self) -> int:
        """What serves."""
        last = self.keyspace.migration()
        return 0 if last is None else sides_of(last)[last.serving == last.after]

    # --- services ---

    @property
    def service(self) -> Served:
        """The one that runs."""
        return next(iter(self._running.values()))

    def serve(self, side: int) -> None:
        """By a service of that side's model alone; it starts before the one there was is stopped."""
        wanted = 0 if self.kind in CHANGES else side
        if wanted not in self._running:
            settings = {name: value for name, value in self.sides[wanted].items() if name != "data_dir"}
            self._running[wanted] = Served(Path(tempfile.mkdtemp(dir=self._folder)), **settings).wait()
        self.doors.set([self._running[wanted].http])
        for other in [one for one in self._running if one != wanted]:
            self._running.pop(other).end()

    def end(self) -> None:
        """No service runs any more."""
        self.doors.set([])
        while self._running:
            self._running.popitem()[1].end()

    # --- migrators ---

    def up(self) -> None:
        """Go on with what is at work; else begin; to the end.

        Raises:
            KilledError: something was.
            RefusedError: a migrator found it couldn't.
        """
        begins, took = self._at_work() is None, 0.0
        if begins:
            took += self._migrate(1 - self.side, "up")
        while (at := self._at_work()) is not None:
            side = sides_of(at)[at.phase not in ("undoing", "leaving")]
            if at.phase != "copying":
                self.serve(side)
            took += self._migrate(side, "up", *(("--finish",) if at.phase == "published" else ()))
        if begins:
            self.took_s.append(took)

    def rollback(self) -> None:
        """To where the last migration began; from its end, by another one.

        Raises:
            as `up`.
        """
        last = self.keyspace.migration()
        if last is None or last.phase == "undone":
            self._migrate(self.side, "rollback", refused=NOTHING)
            return
        before, after = sides_of(last)
        is_over = last.phase in ("ending", "done")
        if last.phase != "copying":
            self.serve(after if is_over else before)
        self._migrate(before, "rollback")
        if self._at_work() is not None:
            self.up()

    def _at_work(self) -> Migration | None:
        last = self.keyspace.migration()
        return last if last is not None and last.is_at_work else None

    def _migrate(self, side: int, *action: str, refused: str | None = None) -> float:
        """How long it took, s; `refused`: what it is to say."""
        migrator, begun = self.migrators.start(self.sides[side], *action, "--pace", PACE), time.monotonic()
        if self.fuse is not None:
            self.fuse.burn(migrator)
        ended, took = migrator.end(), time.monotonic() - begun
        if (ended.code != 0) is not (refused is not None) or (refused or "") not in ended.said:
            raise RefusedError(f"{action} ended with {ended.code}: {ended.said}")
        return took


def sides_of(migration: Migration) -> tuple[int, int]:
    """That before and that after: the shipped schema and the first model are side 0."""
    return _side_of(migration.schema_before), _side_of(migration.schema_after)


def _side_of(schema: list[str]) -> int:
    """Of arguments of FT.CREATE."""
    options = dict(pairwise(schema))
    is_first = options["M"] == "20" and "FLOAT16" in schema and options["DIM"] == "72"
    return 0 if is_first else 1


@contextmanager
def operating(kind: str, url: str, folder: Path, api: str) -> Iterator[Operator]:
    """One, whose services are stopped at the end."""
    operator = Operator(kind, url, folder, api)
    try:
        yield operator
    finally:
        operator.end()
