"""Key → tenant: the only place a tenant comes from.

Keys lie hashed in a file, so authentication works while Redis is down. The file is read again when it
changes. Without one, every request is tenant `default`, admin, and the service binds loopback only.
"""

import fcntl
import hashlib
import ipaddress
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from service.cache.canonical import check_identifier
from service.errors import ForbiddenError, NotFoundError, SettingsError, UnauthenticatedError
from service.model import Tenant
from service.settings import KEY_PREFIX

log = logging.getLogger(__name__)

DEFAULT_TENANT = Tenant("default")


class Role(IntEnum):
    """What a key may do; each role includes the ones before it."""

    reader = 1
    writer = 2
    admin = 3


class Principal(Struct, frozen=True):
    """Who asks."""

    tenant: Tenant
    role: Role
    key: str  # the id of the API key
    rate_limit: float | None = None  # requests per second, 0: none; None: the settings'

    def require(self, role: Role) -> None:
        """Raise ForbiddenError unless the key reaches `role`."""
        if self.role < role:
            raise ForbiddenError(f"this needs the role {role.name}; the key is {self.role.name}")


class StoredKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key as the file keeps it: SHA-256 of the whole key, never the key."""

    id: str
    tenant: str
    role: str
    sha256: str
    created_at: int
    rate_limit: Annotated[float, Meta(ge=0)] | None = None  # requests per second

    def principal(self) -> Principal:
        """Whom the key stands for."""
        return Principal(Tenant(self.tenant), Role[self.role], self.id, self.rate_limit)


OPEN = Principal(DEFAULT_TENANT, Role.admin, "open")
ADMIN = Principal(DEFAULT_TENANT, Role.admin, "admin")


def operator(tenant: str) -> Tenant:
    """The tenant that a command on this machine works for."""
    check_identifier("tenant", tenant)
    return Tenant(tenant)


class Keys:
    """The keys file, and the first admin key of the settings."""

    def __init__(self, path: Path, admin_key: str | None = None, *, expected: bool = False) -> None:
        self._path, self._name = path, os.fspath(path)
        self._admin = None if admin_key is None else _hash(admin_key)
        self._seen: tuple[int, int, int] | None = None
        self._principals: dict[str, Principal] = {}
        self._enforced = admin_key is not None
        self._load()
        if expected and not path.exists():
            log.warning("SEMCACHED_KEYS_FILE: there is no %s: until there is, nobody needs a key", path)

    @property
    def enforced(self) -> bool:
        """False: everybody is admin of the default tenant. Once true it stays so."""
        try:
            self._load()
        except SettingsError as error:
            log.error("nobody is let in until the keys file is mended: %s", error)  # noqa: TRY400 - it says all
        return self._enforced

    def check_bind(self, host: str) -> None:
        """Whether the service may listen there.

        Raises:
            SettingsError: without keys only loopback is served.
        """
        if not self.enforced and not _is_loopback(host):
            raise SettingsError(
                f"SEMCACHED_HOST: without keys only loopback is served, not {host}: "
                "`semcached keys create`, or set SEMCACHED_ADMIN_KEY"
            )

    def authenticate(self, authorization: str | None, origin: str | None = None) -> Principal:
        """Whom a request's `Authorization` header stands for; `origin` is the web page behind it, if any.

        Raises:
            UnauthenticatedError: keys are in force, and this is none of them.
            ForbiddenError: a page from elsewhere calls a service that has no keys.
        """
        if not self.enforced:
            if origin is not None and not _from_here(origin):
                raise ForbiddenError("without keys, web pages from elsewhere are not served")
            return OPEN
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise UnauthenticatedError("send `Authorization: Bearer <key>`")
        digest = _hash(key.strip())  # looking up a hash leaks no timing about the key
        principal = ADMIN if digest == self._admin else self._principals.get(digest)
        if principal is None:
            raise UnauthenticatedError("unknown key; beside a provider's key, send yours as X-Semcached-Key")
        return principal

    def _load(self) -> None:
        try:
            stat = os.stat(self._name)  # noqa: PTH116 - a quarter of what Path.stat takes, in each request
        except (FileNotFoundError, NotADirectoryError):
            self._principals, self._seen = {}, None
            return
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._enforced, self._principals, self._seen = True, {}, seen
            # A broken file lets nobody in: safer than an old list with a revoked key in it.
            self._principals = {key.sha256: key.principal() for key in read_keys(self._path)}


def read_keys(path: Path) -> list[StoredKey]:
    """Every key of the file; none if there is no file.

    Raises:
        SettingsError: the file can't be read.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    try:
        keys = msgspec.json.decode(raw, type=list[StoredKey])
        for key in keys:
            key.principal()
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise SettingsError(f"{path.name}: {error}") from None
    return keys


def create_key(path: Path, tenant: str, role: Role, rate_limit: float | None = None) -> str:
    """Add a key to the file and return it; it is shown this once. `rate_limit`: requests per second.

    Raises:
        InvalidInputError: the tenant's name has no fitting length.
    """
    check_identifier("tenant", tenant)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    with _edited(path) as keys:
        created = StoredKey(
            id=secrets.token_hex(4),
            tenant=tenant,
            role=role.name,
            sha256=_hash(key),
            created_at=int(time.time()),
            rate_limit=rate_limit,
        )
        keys.append(created)
    return key


def revoke_key(path: Path, key_id: str) -> None:
    """Take a key out of the file.

    Raises:
        NotFoundError: no key has that id.
    """
    with _edited(path) as keys:
        left = [key for key in keys if key.id != key_id]
        if len(left) == len(keys):
            raise NotFoundError(f"no key has the id {key_id}")
        keys[:] = left


@contextmanager
def _edited(path: Path) -> Iterator[list[StoredKey]]:
    """The keys; what the block leaves is written whole. Concurrent edits wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(path.name + ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        temporary = path.with_name(path.name + ".new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys), indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _from_here(origin: str) -> bool:
    try:
        return _is_loopback(urlsplit(origin).hostname or "")
    except ValueError:  # no URL
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
