"""What a Redis says of itself: layout version, partitions, whose secret, which generation."""

from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from service.cache.digests import Keyring
from service.cache.ports import Budget
from service.errors import LayoutError, SecretMismatchError
from service.model import Generation
from service.store.client import RedisClient, refusal
from service.store.keys import Keys

LAYOUT_VERSION: Literal[1] = 1

T = TypeVar("T")


class Layout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Written once, by the first migration; the fingerprint follows the secret."""

    version: Literal[1]
    partitions: int
    secret_fingerprint: str


async def read_layout(redis: RedisClient, keys: Keys) -> Layout | None:
    """None on a Redis that was never set up.

    Raises:
        LayoutError: another version wrote it.
    """
    (raw,) = await redis.run([("GET", keys.meta("layout"))])
    return record_of(raw, Layout, "layout")


async def create_layout(redis: RedisClient, keys: Keys, partitions: int, keyring: Keyring) -> None:
    """Write the layout if there is none."""
    layout = Layout(version=LAYOUT_VERSION, partitions=partitions, secret_fingerprint=keyring.fingerprints[0])
    await redis.call("SET", keys.meta("layout"), msgspec.json.encode(layout), "NX")


async def check_secret(redis: RedisClient, keys: Keys, layout: Layout, keyring: Keyring) -> Layout:
    """The layout under the current secret; with the previous secret given, the fingerprint moves on.

    Raises:
        SecretMismatchError: neither secret wrote what lies there.
    """
    current = keyring.fingerprints[0]
    if layout.secret_fingerprint == current:
        return layout
    if layout.secret_fingerprint not in keyring.fingerprints:
        raise SecretMismatchError(
            f"this Redis was written under another secret (fingerprint {layout.secret_fingerprint}, ours "
            f"{current}): set SEMCACHED_SECRET to that one, or give it as SEMCACHED_PREVIOUS_SECRET"
        )
    moved = msgspec.structs.replace(layout, secret_fingerprint=current)
    await redis.call("SET", keys.meta("layout"), msgspec.json.encode(moved))
    return moved


async def read_generation(redis: RedisClient, keys: Keys, budget: Budget | None = None) -> Generation | None:
    """None before the first migration.

    Raises:
        LayoutError: another version wrote it.
    """
    (raw,) = await redis.run([("GET", keys.meta("responses:generation"))], budget)
    return record_of(raw, Generation, "generation")


async def publish_generation(redis: RedisClient, keys: Keys, generation: Generation) -> None:
    """Make a generation the one that readers follow."""
    await redis.call("SET", keys.meta("responses:generation"), msgspec.json.encode(generation))


def record_of(raw: bytes | Exception | None, kind: type[T], what: str) -> T | None:
    """A reply as one of our records; None where there is none.

    Raises:
        LayoutError: another version wrote it.
        StoreUnavailableError: the reply is an error.
    """
    if raw is None:
        return None
    if isinstance(raw, Exception):
        raise refusal(raw)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise LayoutError(f"Redis holds a {what} of another semcached version: {error}") from None
