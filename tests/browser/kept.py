"""What reviewing leaves in Redis, read behind the service's back."""

from typing import Any

from redis import Redis

from service.api.auth import DEFAULT_TENANT
from service.settings import Settings
from service.store.outcomes import unsealed
from service.wiring import keyring_of


def outcomes(redis: Redis, settings: Settings) -> dict[str, bool]:
    """What reviewers said of each lookup: the last holds."""
    (key,) = keyring_of(settings).of(DEFAULT_TENANT).keys
    found = []
    for name in redis.scan_iter(f"{settings.key_prefix}:*:outcomes:*", count=1000):
        some: Any = redis.zrange(name, 0, -1, withscores=True)
        for member, at in some:
            one = unsealed(member, key)
            assert one is not None
            assert one.source == "review"
            found.append((at, one.lookup_id.hex(), one.correct))
    return {lookup_id: correct for _, lookup_id, correct in sorted(found)}


def waiting(redis: Redis, settings: Settings) -> set[str]:
    """The lookup ids in the queue."""
    names = redis.scan_iter(f"{settings.key_prefix}:*:reviews:pending:*", count=1000)
    found: list[Any] = [one for name in names for one in redis.zrange(name, 0, -1)]
    return {one.decode().rpartition(":")[2] for one in found}
