"""Index schemas: RedisVL's YAML, read strictly, to FT.CREATE."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from redisvl.schema import IndexSchema
from redisvl.schema.fields import BaseField, VectorDataType

from service.errors import LayoutError
from service.model import Datatype, Generation
from service.store.client import Command, IndexMissingError, RedisClient, RedisRefusedError
from service.store.diagnosis import NotAllowedError, read_info, text, timeout_policy
from service.store.drift import Fields, read_index
from service.store.keys import Keys
from service.store.responses import TAGS
from service.store.vectors import DATATYPES, PLACES, width

CREATE_S = ALTER_S = 5.0
LIST_INDEXES = "FT._LIST"
TOOL_TAGS = ("tenant", "agent_type", "tool", "source")
"""The tags that tool results are found by."""
RUNTIME = {"HNSW": {"EF_RUNTIME": "50"}}
"""What FT.INFO keeps to itself."""
SHIPPED_DIMS = 384
"""What the shipped schema says; it follows the embedder, so that choosing one needs no edit."""


def load_schema(path: Path, dim: int | None = None) -> IndexSchema:
    """Read one file; `dim`, the embedder's, takes the place of the shipped 384.

    Raises:
        LayoutError: it is missing, doesn't parse, or holds a key that RedisVL would ignore.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
        schema = IndexSchema.from_dict(raw)
    except OSError as error:
        raise LayoutError(f"SEMCACHED_SCHEMA_DIR: {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise LayoutError(f"{path.name}: {error}") from error
    unknown = list(_ignored(raw, schema.to_dict(), ""))
    if unknown:
        raise LayoutError(f"{path.name}: unknown key {', '.join(unknown)}")
    for field in schema.fields.values():
        if dim is not None and field.type == "vector" and field.attrs.dims == SHIPPED_DIMS:
            field.attrs.dims = dim
    return schema


def datatype_of(schema: IndexSchema) -> Datatype:
    """What a new generation keeps its vectors in.

    Raises:
        LayoutError: it is none that this version writes.
    """
    _check_vector(schema)
    found = _option(schema, "datatype")
    if found not in DATATYPES:
        raise LayoutError(
            f"responses.yaml: `datatype` of `vector` is {found}: set one of {', '.join(DATATYPES)}"
        )
    return DATATYPES[found]


def as_kept(schema: IndexSchema, generation: Generation) -> IndexSchema:
    """The schema for a generation, whose vectors stay as they were first kept."""
    kept = schema.model_copy(deep=True)
    vector = kept.fields["vector"]
    vector.attrs.datatype = VectorDataType(generation.datatype.upper())
    vector.attrs.dims = width(generation)
    return kept


def check_schema(schema: IndexSchema, generation: Generation) -> None:
    """Whether the schema has what lookups of this version ask of it.

    Raises:
        LayoutError: names the field.
    """
    _check_tags(schema, TAGS)
    _check_vector(schema)
    wanted = {"dims": generation.dim, "distance_metric": "cosine"}
    for name, value in wanted.items():
        found = _option(schema, name)
        if found != str(value):
            raise LayoutError(
                f"responses.yaml: `{name}` of `vector` is {found}; {generation.model} asks for {value}"
                + (f": set it to that, or to {SHIPPED_DIMS}, which follows the embedder" * (name == "dims"))
            )


def _check_vector(schema: IndexSchema) -> None:
    vector = schema.fields.get("vector")
    if vector is None or vector.type != "vector":
        raise LayoutError("responses.yaml: `vector` must be a vector")


def _option(schema: IndexSchema, name: str) -> str:
    found = getattr(schema.fields["vector"].attrs, name)
    return str(getattr(found, "value", found)).lower()


async def ensure_indexes(
    redis: RedisClient, keys: Keys, generation: Generation, partitions: int, schema: IndexSchema
) -> None:
    """Create the generation's indexes where they are missing; RediSearch fills them from the documents.

    Raises:
        LayoutError: the schema doesn't fit, or this Redis has no search.
    """
    check_schema(schema, generation)
    kept = as_kept(schema, generation)
    for partition in range(partitions):
        name, prefix = keys.index(partition, generation), keys.documents(partition, generation)
        await _ensure(redis, kept, name, prefix)


async def as_found(
    redis: RedisClient, keys: Keys, generation: Generation, partitions: int
) -> tuple[Generation, bool]:
    """A generation with its vectors as the indexes have them, if there are any; and whether they are graphs.

    Raises:
        LayoutError: vectors of another dimension.
    """
    graph = True
    for partition in range(partitions):
        try:
            state = await read_index(redis, keys.index(partition, generation))
        except IndexMissingError:
            continue
        vector = state.fields.get("vector", {})
        numbers, datatype = int(vector.get("DIM", 0)), DATATYPES.get(vector.get("DATA_TYPE", "").lower())
        if datatype is None or numbers not in {generation.dim, generation.dim + PLACES}:
            raise LayoutError(
                f"the index `{keys.index(partition, generation)}` has vectors of {numbers} numbers, "
                f"{generation.model} makes {generation.dim}: FT.DROPINDEX it, and it is made anew"
            )
        generation = msgspec.structs.replace(generation, datatype=datatype, placed=numbers != generation.dim)
        graph = vector.get("ALGORITHM") == "HNSW"
    return generation, graph


async def ensure_tool_indexes(redis: RedisClient, keys: Keys, partitions: int, schema: IndexSchema) -> None:
    """Create the indexes over tool results where they are missing, as `ensure_indexes` does.

    Raises:
        LayoutError: the schema doesn't fit.
    """
    _check_tags(schema, TOOL_TAGS)
    for partition in range(partitions):
        await _ensure(redis, schema, keys.tool_index(partition), keys.tool_documents(partition))


def load_tools(folder: Path) -> IndexSchema:
    """The schema of the indexes over tool results.

    Raises:
        LayoutError: as `load_schema`, or it lacks what they are found by.
    """
    schema = load_schema(folder / "tools.yaml")
    _check_tags(schema, TOOL_TAGS)
    return schema


async def create_index(redis: RedisClient, name: str, prefix: str, schema: Sequence[str]) -> None:
    """Create one of FT.CREATE's arguments, if it is missing.

    Raises:
        LayoutError: this Redis doesn't take them.
        StoreUnavailableError: it does not answer.
    """
    try:
        await redis.call(*_over(name, prefix), *schema, timeout_s=CREATE_S)
    except RedisRefusedError as error:
        if "already exists" not in str(error):
            raise LayoutError(f"the index can't be made: {error}") from error


async def index_names(redis: RedisClient) -> set[str]:
    """Of all indexes of this Redis, others' too.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    return {text(one) for one in await redis.call(LIST_INDEXES)}


def arguments(schema: IndexSchema) -> list[str]:
    """What stands behind SCHEMA in FT.CREATE."""
    return [part for field in schema.fields.values() for part in options_of(field)]


def options_of(field: BaseField) -> list[str]:
    """The same of one field."""
    return [text(getattr(part, "value", part)) for part in field.as_redis_field().redis_args()]


def arguments_of(fields: Fields) -> list[str]:
    """The same of an index that is there, as FT.INFO tells of it."""
    found: list[str] = []
    for name, told in fields.items():
        options = dict(told)
        kind = options.pop("TYPE")
        if kind == "VECTOR":
            algorithm = options.pop("ALGORITHM")
            options = {"TYPE": options.pop("DATA_TYPE"), **options, **RUNTIME.get(algorithm, {})}
            parts = [part for pair in options.items() for part in pair]
            found += [name, kind, algorithm, str(len(parts)), *parts]
        else:
            found += [name, kind]
            found += [part for pair in options.items() for part in (pair if pair[1] != "set" else pair[:1])]
    return found


async def _ensure(redis: RedisClient, schema: IndexSchema, name: str, prefix: str) -> None:
    try:
        await redis.call(*_create_command(schema, name, prefix), timeout_s=CREATE_S)
    except RedisRefusedError as error:
        if "already exists" not in str(error):
            raise


def _check_tags(schema: IndexSchema, names: Sequence[str]) -> None:
    for name in names:
        field = schema.fields.get(name)
        if field is None or field.type != "tag" or not field.attrs.case_sensitive:
            raise LayoutError(f"{schema.index.name}.yaml: `{name}` must be a tag with `case_sensitive: true`")


async def check_search(redis: RedisClient) -> None:
    """Whether this Redis can search.

    Raises:
        LayoutError: it can't.
    """
    try:
        await redis.call(LIST_INDEXES)
    except RedisRefusedError as error:
        if "unknown command" not in str(error).lower():
            raise
        raise LayoutError("this Redis has no search: use Redis Stack 7.4 or Redis 8") from None


async def cuts_off_silently(redis: RedisClient) -> bool:
    """Whether a query that runs out of time answers with what it has, as if that were all."""
    try:
        return await timeout_policy(redis, await read_info(redis)) != "fail"
    except (NotAllowedError, RedisRefusedError):
        return False


def _create_command(schema: IndexSchema, name: str, prefix: str) -> Command:
    """FT.CREATE over the hashes whose keys begin with `prefix`."""
    return (*_over(name, prefix), *arguments(schema))


def _over(name: str, prefix: str) -> Command:
    return ("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA")


def _ignored(raw: Any, read: Any, path: str) -> Iterator[str]:
    """Keys of the file that did not make it into the schema."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            here = f"{path}.{key}" if path else str(key)
            if not isinstance(read, dict) or key not in read:
                yield here
            else:
                yield from _ignored(value, read[key], here)
    elif isinstance(raw, list) and isinstance(read, list):
        for at, (one, other) in enumerate(zip(raw, read, strict=False)):
            yield from _ignored(one, other, f"{path}[{at}]")
