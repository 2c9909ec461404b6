"""Which generations are live, as each partition says; read behind every write of documents."""

from collections.abc import Iterator, Sequence
from typing import Any

from service.cache.ports import Budget
from service.errors import StoreUnavailableError
from service.model import Generation, Live
from service.store.client import Command, RedisClient, value_of
from service.store.functions import SWAP
from service.store.keys import Keys
from service.store.layout import read_generation, record_of


class MovedError(StoreUnavailableError):
    """The live generations are others."""

    def __init__(self) -> None:
        super().__init__(
            "the live generations are others: another migrator is at work, or Redis lost its last second"
        )


async def read_live(
    redis: RedisClient, keys: Keys, partitions: Sequence[int], budget: Budget | None = None
) -> list[bytes | None]:
    """What each of the partitions says, undecoded: it is compared byte for byte.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    replies = await redis.run([said(keys, one) for one in partitions], budget)
    return [value_of(reply) for reply in replies]


async def set_live(redis: RedisClient, keys: Keys, partition: int, was: bytes | None, live: bytes) -> None:
    """Say what is live, if `was` is what the partition says.

    Raises:
        MovedError: it says something else.
        StoreUnavailableError: Redis does not answer, or has no function for it.
    """
    known = () if was is None else (was,)
    if not await redis.call("FCALL", SWAP, 1, keys.live(partition), live, *known):
        raise MovedError


def said(keys: Keys, partition: int) -> Command:
    """Asks one partition."""
    return ("GET", keys.live(partition))


def decoded(raw: Any) -> Live | None:
    """None before the first migration to another generation.

    Raises:
        LayoutError: another version wrote it.
    """
    return record_of(raw, Live, "live generations")


def fitting(
    current: Generation | None, live: Sequence[Live], embedding: tuple[str, str, int]
) -> Generation | None:
    """Whose vectors an embedder makes: the current one, else one before it that is still live."""
    return next((one for one in _served(current, live) if one.embedding == embedding), None)


def _served(current: Generation | None, live: Sequence[Live]) -> Iterator[Generation]:
    """What may be searched: one with a greater number than the current one's isn't whole yet."""
    if current is not None:
        yield current
        others = (one for each in live for one in each.generations)
        yield from (one for one in others if one.number < current.number)


async def generations_of(redis: RedisClient, keys: Keys) -> list[Generation]:
    """What may be searched, the current one first; none before the first migration.

    Raises:
        LayoutError: another version wrote one.
        StoreUnavailableError: Redis does not answer.
    """
    (raw,) = await read_live(redis, keys, [0])
    live = decoded(raw)
    return list(_served(await read_generation(redis, keys), [] if live is None else [live]))
