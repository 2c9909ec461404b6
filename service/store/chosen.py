"""For which model's similarities policies were chosen that don't say so: those that earlier releases set.

Written once, when Redis first goes to another model: until then it was the one that served.
"""

from typing import Any

import msgspec

from service.errors import StoreUnavailableError
from service.model import Embedding
from service.store.client import RedisClient
from service.store.keys import Keys


def name(keys: Keys) -> str:
    """Where it lies."""
    return keys.meta("policies:chosen")


async def note_chosen(redis: RedisClient, keys: Keys, embedding: Embedding) -> None:
    """Before another model's generation is published; the first one stays.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    await redis.call("SET", name(keys), msgspec.json.encode(embedding), "NX")


def decoded(raw: Any) -> Embedding | None:
    """None: they were chosen for the model that serves.

    Raises:
        StoreUnavailableError: another version wrote it.
    """
    if raw is None:
        return None
    try:
        found: Embedding = msgspec.json.decode(raw, type=Embedding)
    except msgspec.DecodeError as error:
        raise StoreUnavailableError(f"Redis holds another version's note of a model: {error}") from None
    return found
