"""Index schemas: RedisVL's YAML, read strictly, to FT.CREATE."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from redisvl.schema import IndexSchema

from service.errors import LayoutError
from service.store.client import Command


def load_schema(path: Path) -> IndexSchema:
    """Read one file.

    Raises:
        LayoutError: it is missing, doesn't parse, or holds a key that RedisVL would ignore.
    """
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
        schema = IndexSchema.from_dict(raw)
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise LayoutError(f"{path.name}: {error}") from error
    unknown = list(_ignored(raw, schema.to_dict(), ""))
    if unknown:
        raise LayoutError(f"{path.name}: unknown key {', '.join(unknown)}")
    return schema


def create_command(schema: IndexSchema, name: str, prefix: str) -> Command:
    """FT.CREATE over the hashes whose keys begin with `prefix`."""
    fields = [part for field in schema.redis_fields for part in field.redis_args()]
    return ("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA", *fields)


def vector_dim(schema: IndexSchema) -> int:
    """The dimension that the schema asks for."""
    return int(schema.fields["vector"].attrs.dims)


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
