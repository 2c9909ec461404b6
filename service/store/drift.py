"""An index as the server has it, beside the schema that it should follow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from redisvl.schema import IndexSchema
from redisvl.schema.fields import BaseField

from service.store.client import RedisClient
from service.store.diagnosis import ask, pairs, text

_FLAGS = (
    "CASESENSITIVE",
    "SORTABLE",
    "UNF",
    "NOINDEX",
    "NOSTEM",
    "WITHSUFFIXTRIE",
    "INDEXEMPTY",
    "INDEXMISSING",
)
_VALUES = ("TYPE", "SEPARATOR", "ALGORITHM", "DATA_TYPE", "DIM", "DISTANCE_METRIC", "M", "EF_CONSTRUCTION")
_COMPARED = {*_FLAGS, *_VALUES} - {"UNF"}  # which SORTABLE brings along
INFO_S = 5.0
"""Of a million entries it takes 0.2 s, while Redis does little else."""
Fields = dict[str, dict[str, str]]


class IndexState(NamedTuple):
    """What FT.INFO says; `fields` by name, each option in capitals; `built` 0 to 1."""

    fields: Fields
    documents: int
    failures: int
    last_error: str
    built: float
    is_building: bool

    @property
    def is_built(self) -> bool:
        """Whether it has all documents that were there."""
        return not self.is_building and self.built >= 1


async def read_index(redis: RedisClient, name: str) -> IndexState:
    """One index.

    Raises:
        IndexMissingError: there is none.
    """
    info = pairs(await ask(redis, "FT.INFO", name, timeout_s=INFO_S))
    errors = pairs(info.get("Index Errors", []))
    return IndexState(
        fields=dict(_field(attribute) for attribute in info["attributes"]),
        documents=int(info["num_docs"]),
        failures=int(info.get("hash_indexing_failures", 0)),
        last_error=text(errors.get("last indexing error", "N/A")),
        built=float(info.get("percent_indexed", 1)),
        is_building=bool(int(info.get("indexing", 0))),
    )


def differences(schema: IndexSchema, found: Fields) -> Iterator[str]:
    """Field by field, what is missing, too much or other than the schema asks for."""
    yield from (f"`{name}` is missing" for name in missing(schema, found))
    yield from others(schema, found)


def missing(schema: IndexSchema, found: Fields) -> list[str]:
    """The fields that the schema asks for and that aren't there."""
    return [name for name in schema.fields if name not in found]


def others(schema: IndexSchema, found: Fields) -> Iterator[str]:
    """What is too much, or other than the schema asks for."""
    wanted = {name: _wanted(field) for name, field in schema.fields.items()}
    yield from (f"`{name}` is not in the schema" for name in found if name not in wanted)
    for name in wanted.keys() & found.keys():
        yield from _differences(name, wanted[name], found[name])


def _differences(name: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for option in sorted(_COMPARED & (wanted.keys() | found.keys())):
        here, there = found.get(option, "not set"), wanted.get(option, "not set")
        if here != there:
            yield f"{option.lower()} of `{name}` is {here.lower()}, the schema asks for {there.lower()}"


def _field(attribute: Any) -> tuple[str, dict[str, str]]:
    """[identifier, n, attribute, n, type, TAG, SEPARATOR, ",", CASESENSITIVE] → name and options."""
    words = [text(word) for word in attribute]
    return words[3], _options(words[4:])


def _wanted(field: BaseField) -> dict[str, str]:
    """What FT.INFO would say of a field that was made from the schema."""
    words = [text(getattr(word, "value", word)) for word in field.as_redis_field().redis_args()]
    if words[1] == "VECTOR":  # name, VECTOR, algorithm, how many words follow, TYPE, number type, …
        return {"TYPE": "VECTOR", "ALGORITHM": words[2], "DATA_TYPE": words[5], **_options(words[6:])}
    return {"TYPE": words[1], **_options(words[2:])}


def _options(words: Sequence[str]) -> dict[str, str]:
    """Flags stand alone, values behind their names."""
    parts = iter(words)
    return {part.upper(): "set" if part.upper() in _FLAGS else next(parts, "").upper() for part in parts}
