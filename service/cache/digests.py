"""Keyed digests: what stands in Redis instead of names, and the MAC over records.

HMAC-SHA256 (RFC 2104) under a key derived per tenant, so equal names of two tenants have nothing in
common. RediSearch folds case, trims, splits at commas, cuts at NUL and at 4,096 bytes; 32 hex characters
pass through all of that unchanged.
"""

import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple

from service.model import Tenant

DIGEST_BYTES = 16
MAC_BYTES = 32
DIGEST_HEX = 2 * DIGEST_BYTES


class DigestKey:
    """Makes the digests and MACs of one tenant under one secret."""

    __slots__ = ("_key", "agent_type", "history", "tenant")

    def __init__(self, secret: bytes, tenant: str) -> None:
        self._key = hmac.digest(secret, b"tenant\0" + tenant.encode(), "sha256")
        self.tenant = self.digest("tenant", tenant.encode())
        self.agent_type = lru_cache(maxsize=1024)(self._agent_type)
        self.history = self.digest("history", b"")
        """Of a question that nothing was said before."""

    def _agent_type(self, name: str) -> str:
        return self.digest("agent_type", name.encode())

    def digest(self, kind: str, data: bytes) -> str:
        """32 hex characters. `kind` (one of our words) keeps equal bytes in two places apart."""
        return hmac.digest(self._key, kind.encode() + b"\0" + data, "sha256")[:DIGEST_BYTES].hex()

    def mac(self, data: bytes) -> bytes:
        """32 bytes over a record's body."""
        return hmac.digest(self._key, b"mac\0" + data, "sha256")


class TenantKeys(NamedTuple):
    """A tenant's keys: the current secret's first, then the previous one's, which only reads."""

    tenant: Tenant
    keys: tuple[DigestKey, ...]
    shared: DigestKey | None = None  # all tenants', for the embeddings that the service computes

    @property
    def current(self) -> DigestKey:
        """What writes."""
        return self.keys[0]

    @property
    def embeddings(self) -> DigestKey:
        """What names and seals the embeddings that the service computes."""
        return self.shared or self.current


class Keyring:
    """The service's secret, and perhaps the one before it."""

    def __init__(
        self, secret: bytes, previous: bytes | None = None, *, share_embeddings: bool = False
    ) -> None:
        self._secrets = (secret,) if previous is None else (secret, previous)
        self._shared = DigestKey(secret, "") if share_embeddings else None  # no tenant has an empty name
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, tenant: Tenant) -> TenantKeys:
        own = tuple(DigestKey(secret, tenant) for secret in self._secrets)
        return TenantKeys(tenant, own, self._shared)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """One per secret: enough to tell secrets apart, useless to find one."""
        return tuple(hmac.digest(secret, b"fingerprint", "sha256")[:8].hex() for secret in self._secrets)


@lru_cache(maxsize=4096)
def partition_of(tenant: Tenant, partitions: int) -> int:
    """The tenant's cluster slot group; no secret in it, so that it outlives a rotation."""
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:4], "big") % partitions
