"""What a migration works on."""

from typing import NamedTuple

from service.cache.digests import Keyring
from service.cache.ports import Embedder
from service.errors import StartupError
from service.migrate.progress import Say
from service.settings import Settings
from service.store.client import RedisClient
from service.store.keys import Keys


class Model(NamedTuple):
    """The embedder that the index is to hold vectors of."""

    name: str
    revision: str
    dim: int | None  # None: no matter, for what only reads


class Target(NamedTuple):
    """The Redis to migrate and what it is to become."""

    redis: RedisClient
    keys: Keys
    keyring: Keyring
    settings: Settings
    model: Model
    embedder: Embedder | None = None  # None: no vector can be made


class Options(NamedTuple):
    """How to go about it."""

    share: float = 0.5  # of Redis's time, while copying
    texts_per_s: float | None = None  # at most, to embed anew
    grace_s: float = 86_400.0  # how long another model's generation is kept
    finish: bool = False  # don't keep it any longer
    say: Say = print


class BusyError(StartupError):
    """Another migrator holds the lease."""


class MigrationError(StartupError):
    """A migration can't go on; says why, and what to do."""
