"""What `migrate plan` and `migrate status` say."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from service.migrate import policies
from service.migrate.changes import Change
from service.migrate.record import Kind, Migration, read_migration
from service.migrate.steps import status
from service.migrate.target import Target
from service.migrate.tools import Beside, beside
from service.migrate.up import described, plan
from service.store.drift import read_index
from service.store.layout import read_layout
from service.store.vectors import width

PER_S: dict[Kind, int] = {"reindex": 1000, "convert": 500, "reembed": 150}
"""Entries that two cores get through while Redis also serves (bench/migration.py)."""
WORDS: dict[Kind, str] = {
    "reindex": "another index over the same documents",
    "convert": "the vectors in other numbers, in documents and an index of their own",
    "reembed": "the stored questions embedded anew, in documents and an index of their own",
}
NOTICED: dict[Kind, str] = {
    "reindex": "lookups and stores go on; they are slower while RediSearch builds the index",
    "convert": "lookups and stores go on; stores write two documents meanwhile; similarities change by 1e-3",
    "reembed": "lookups and stores go on with the old model until it is published, then with the new one",
}
LINKS, LINKS_M = 1070, 20
"""Bytes of a graph's node beside its vector, with that M: its links."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


async def planned(target: Target, texts_per_s: float | None = None) -> list[str]:
    """What `up` would do; of another model's embedder at most so many texts.

    Raises:
        as `plan`.
    """
    told = await plan(target)
    lines = [f"{step.name}  {step.summary}" for step in told.steps]
    if told.at_work is not None:
        lines.append(f"going on with what was begun: {described(told.at_work)}")
    if told.change is not None:
        lines += _change(told.change, await _entries(target, told.change), texts_per_s)
        lines += policies.told(await policies.strangers(target, told.change))
    indexes = [] if told.steps else await _tools(target)
    lines += [line for one in indexes for line in one.told]
    return (lines or ["nothing to do"]) + [line for one in indexes for line in one.left]


async def told(target: Target) -> list[str]:
    """The ledger, the migration that is at work or was the last, and what differs from what is asked for.

    Raises:
        as `plan`.
    """
    lines = [
        f"{state.step.name}  {_when(state.applied_at)}  {state.step.summary}"
        for state in await status(target)
    ]
    found = await plan(target)
    last = await read_migration(target.redis, target.keys)
    if last is not None:
        lines += _migration(last)
    indexes = [] if found.steps else await _tools(target)
    differs = [f"`{field}` is missing in {one.name}" for one in indexes for field in one.missing]
    if found.change is not None:
        differs = [*found.change.reasons, *differs]
    if differs:
        lines += [f"differs: {one}" for one in differs]
        lines.append("`semcached migrate plan` says what would be done")
    return lines + [line for one in indexes for line in one.left]


async def _tools(target: Target) -> list[Beside]:
    layout = await read_layout(target.redis, target.keys)
    return [] if layout is None else await beside(target, layout.partitions)


async def _entries(target: Target, change: Change) -> int:
    """Of all partitions."""
    layout = await read_layout(target.redis, target.keys)
    partitions = range(1 if layout is None else layout.partitions)
    names = [target.keys.index(partition, change.before) for partition in partitions]
    return sum([(await read_index(target.redis, name)).documents for name in names])


def _node(schema: Sequence[str], vector: int) -> int:
    """Bytes that an index takes for a vector of so many; `schema` as FT.CREATE takes it."""
    if "HNSW" not in schema:
        return vector
    options = list(schema[schema.index("HNSW") :])
    m = int(options[options.index("M") + 1]) if "M" in options else LINKS_M
    return vector + LINKS * m // LINKS_M


def _change(one: Change, entries: int, texts_per_s: float | None) -> Iterator[str]:
    after = one.after
    yield f"{one.kind} of generation {one.before.number} to {after.number}: {WORDS[one.kind]}"
    yield from (f"  because {reason}" for reason in one.reasons)
    vector = width(after) * BYTES[after.datatype]
    document = 0 if one.kind == "reindex" else vector + 256
    size = entries * (document + _node(one.schema, vector))
    per_s: float = PER_S[one.kind]
    if one.kind == "reembed" and texts_per_s is not None:
        per_s = min(per_s, texts_per_s)
    yield f"  {entries:,} entries; {size / 1e6:,.0f} MB beside what is there, until the old index goes"
    yield f"  about {max(1, round(entries / per_s)):,} s"
    yield f"  {NOTICED[one.kind]}"


def _migration(one: Migration) -> Iterator[str]:
    yield described(one)
    yield f"  begun {_when(one.begun_at)}"
    if one.published_at is not None:
        yield f"  published {_when(one.published_at)}"
    yield from (f"  {name}: {value:g}" for name, value in one.found.items())


def _when(seconds: float | None) -> str:
    return (
        "pending" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    )
