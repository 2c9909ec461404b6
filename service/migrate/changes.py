"""What index_schemas/ and the settings ask for, beside what serves: the way from here to there."""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from service.errors import LayoutError
from service.migrate.record import Kind, Migration
from service.migrate.target import Target
from service.model import Generation
from service.store.drift import IndexState, differences, read_index
from service.store.index import arguments, as_kept, check_schema, datatype_of, index_names, load_schema


class Change(NamedTuple):
    """A migration that isn't begun."""

    kind: Kind
    before: Generation
    after: Generation
    schema: list[str]  # of the index after, as FT.CREATE takes it
    state: IndexState  # of the index before, in the first partition
    reasons: list[str]
    back: bool = False  # to what was before


async def wanted(target: Target, current: Generation, last: Migration | None) -> Change | None:
    """None: what serves is what is asked for.

    Raises:
        LayoutError: the schema doesn't fit.
        IndexMissingError: the index is gone; a service that starts makes it anew.
    """
    asked = _asked(target, current)
    schema = load_schema(target.settings.schema_dir / "responses.yaml", asked.dim)
    asked = replace(asked, datatype=datatype_of(schema), placed=True)
    check_schema(schema, asked)
    state = await read_index(target.redis, target.keys.index(0, current))
    drift = list(differences(as_kept(schema, asked), state.fields))
    reasons = [*_reasons(current, asked), *(drift if as_is(current, asked) else ())]
    if not reasons:
        return None
    kind = kind_of(current, asked)
    after = numbered(asked, kind, current, await highest(target, last))
    return Change(kind, current, after, arguments(as_kept(schema, asked)), state, reasons)


def undoing(last: Migration, current: Generation, state: IndexState, number: int) -> Change:
    """Back to what was before a migration that is done; `number` is the highest there was."""
    kind = kind_of(current, last.before)
    after = numbered(last.before, kind, current, number)
    reasons = [f"back to generation {last.before.number}"]
    return Change(kind, current, after, last.schema_before, state, reasons, back=True)


def _asked(target: Target, current: Generation) -> Generation:
    """The generation with the model that the settings name."""
    model = target.model
    if (model.name, model.revision) == (current.model, current.revision) and model.dim in (None, current.dim):
        return current
    if model.dim is None:
        raise LayoutError("the embedder's dimension is not known: set SEMCACHED_OPENAI_DIMENSIONS")
    return replace(current, model=model.name, revision=model.revision, dim=model.dim)


def as_is(before: Generation, after: Generation) -> bool:
    """Whether the vectors stay what they are."""
    return kind_of(before, after) == "reindex"


def kind_of(before: Generation, after: Generation) -> Kind:
    """What has to be done to the vectors."""
    if before.embedding != after.embedding:
        return "reembed"
    if (before.datatype, before.placed) != (after.datatype, after.placed):
        return "convert"
    return "reindex"


async def highest(target: Target, last: Migration | None) -> int:
    """The highest number that is known of a generation; indexes tell where the records were lost.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    known = [0] if last is None else [last.after.number, last.before.number]
    begins = target.keys.indexes(0)
    names = [one[len(begins) :] for one in await index_names(target.redis) if one.startswith(begins)]
    return max([*known, *(int(one) for one in names if one.isdecimal())])


def numbered(after: Generation, kind: Kind, before: Generation, highest: int) -> Generation:
    """With a number, and names, that none had before."""
    number = max(before.number, highest) + 1
    space = before.space if kind == "reindex" else str(number)
    return replace(after, number=number, index=str(number), space=space)


def _reasons(before: Generation, after: Generation) -> Iterator[str]:
    if before.embedding != after.embedding:
        yield f"vectors are of {_model(before)}, the settings ask for {_model(after)}"
    if before.datatype != after.datatype:
        yield f"vectors are {before.datatype}, the schema asks for {after.datatype}"
    if before.placed != after.placed:
        yield "vectors have no places: searches of small scopes among many entries are slow"


def _model(one: Generation) -> str:
    return f"{one.model} {one.revision} ({one.dim})"
