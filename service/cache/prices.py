"""What tokens cost: a file of list prices."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from service.errors import SettingsError
from service.model import Usage

SHIPPED = Path(__file__).parent.parent / "prices.json"
NANO = 1_000_000_000
"""Money is counted in nano-dollars: a token of a small embedding model costs 20 of them."""
MOST_USD = 1_000_000.0
"""One answer costs no more: a larger `cost_usd` is a mistake, and would swallow all that is counted."""

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)$")
PerMillion = Annotated[float, Meta(ge=0, le=1_000_000)]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens; embedding models have no output."""

    input: PerMillion
    output: PerMillion = 0.0


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """The price file."""

    as_of: str
    source: str
    models: dict[str, Price]


class Prices:
    """Finds a model's price."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.of = lru_cache(maxsize=1024)(self._of)

    def _of(self, model: str) -> Price | None:
        """By the exact name, else by that without a date: a variant that isn't listed has no price."""
        models = self.file.models
        return models.get(model) or models.get(_DATED.sub("", model))

    def saved(self, usage: Usage, model: str | None) -> int | None:
        """What making an answer cost, nano-dollars; None: nobody knows."""
        if usage.cost_usd is not None:
            return round(min(usage.cost_usd, MOST_USD) * NANO)
        price = None if model is None else self.of(model)
        if price is None or (usage.input_tokens is None and usage.output_tokens is None):
            return None
        return _nano(usage.input_tokens, price.input) + _nano(usage.output_tokens, price.output)

    def spent(self, model: str, tokens: int) -> int | None:
        """What embedding so many tokens costs, nano-dollars; None: the model has no price."""
        price = self.of(model)
        return None if price is None else _nano(tokens, price.input)


def _nano(tokens: int | None, usd_per_million: float) -> int:
    return round(min((tokens or 0) * usd_per_million / 1e6, MOST_USD) * NANO)


def load(path: Path = SHIPPED) -> Prices:
    """Read a price file.

    Raises:
        SettingsError: it can't be read, or is no price file.
    """
    try:
        return Prices(msgspec.json.decode(path.read_bytes(), type=File))
    except OSError as error:
        raise SettingsError(f"SEMCACHED_PRICES: {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"SEMCACHED_PRICES: {path}: {error}") from None
