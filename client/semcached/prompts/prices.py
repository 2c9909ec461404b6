"""What models cost and from how many tokens they cache: `prices.json`, with where it is from."""

import re
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
_GPT = re.compile(r"gpt-(\d)(?:\.(\d+))?(?![\do])")  # no gpt-35, as Azure calls 3.5


class UnknownModelError(LookupError):
    """The price file doesn't name the model."""


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """A model's: USD per million tokens, and what cached ones cost as multiples of `input`."""

    input: float
    output: float
    read: float
    minimum: int  # tokens of the shortest prefix that is cached
    write_5m: float | None = None
    write_1h: float | None = None
    write_30m: float | None = None  # its 12 h writes are taken for the same: no source says otherwise
    breakpoints: bool = False  # OpenAI: caches at breakpoints only


class PriceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is."""

    as_of: str
    source: str
    models: dict[str, Price]
    minimums: dict[Literal["messages", "openai"], int]  # of models that aren't named


@cache
def price_file() -> PriceFile:
    """The one that is shipped."""
    return msgspec.json.decode(Path(__file__).with_name("prices.json").read_bytes(), type=PriceFile)


def find_price(model: str) -> Price | None:
    """By its name, also behind a gateway's `provider/` or before a date; None: not known."""
    models, name = price_file().models, model.rsplit("/", 1)[-1]
    return models.get(name) or models.get(_DATE.sub("", name))


def price(model: str) -> Price:
    """A model's.

    Raises:
        UnknownModelError: the file doesn't name it.
    """
    found = find_price(model)
    if found is None:
        raise UnknownModelError(f"model {model!r} has no price in prices.json ({price_file().as_of})")
    return found


def minimum_of(model: str, api: str) -> int:
    """Tokens of the shortest prefix that it caches; of an unknown model the largest of its provider."""
    found = find_price(model)
    if found is not None:
        return found.minimum
    return price_file().minimums["messages" if api == "messages" else "openai"]


def breakpoints_of(model: str) -> bool:
    """Whether an OpenAI model caches at breakpoints only: gpt-5.6 and later, also those that aren't named."""
    found = find_price(model)
    if found is not None:
        return found.breakpoints
    version = _GPT.match(model.rsplit("/", 1)[-1])
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6)
