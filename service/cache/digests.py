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
BLOCK = 64
"""Bytes of a block of SHA-256's."""


class DigestKey:
    """Makes the digests and MACs of one tenant under one secret."""

    __slots__ = ("_inner", "_kinds", "_outer", "agent_type", "history", "scope", "tenant")

    def __init__(self, secret: bytes, tenant: str) -> None:
        key = hmac.digest(secret, b"tenant\0" + tenant.encode(), "sha256").ljust(BLOCK, b"\0")
        # Hashed once: `hmac.digest` begins with the key each time, which is half of a short digest's time.
        self._inner = hashlib.sha256(bytes(one ^ 0x36 for one in key))
        self._outer = hashlib.sha256(bytes(one ^ 0x5C for one in key))
        self._kinds: dict[str, hashlib._Hash] = {}
        self.scope = lru_cache(maxsize=16)(self._scope)  # of thousands of tenants, so few
        self.tenant = self.digest("tenant", tenant.encode())
        self.agent_type = lru_cache(maxsize=1024)(self._agent_type)
        self.history = self.digest("history", b"")
        """Of a question that nothing was said before."""

    def _agent_type(self, name: str) -> str:
        return self.digest("agent_type", name.encode())

    def _scope(self, scope: bytes) -> str:
        return self.digest("scope", scope)

    def digest(self, kind: str, data: bytes) -> str:
        """32 hex characters. `kind` (one of our words) keeps equal bytes in two places apart."""
        return self._hmac(kind, data)[:DIGEST_BYTES].hex()

    def mac(self, *parts: bytes) -> bytes:
        """32 bytes over a record's body, given in one piece or several."""
        return self._hmac("mac", *parts)

    def _hmac(self, kind: str, *parts: bytes) -> bytes:
        """As `hmac.digest` of the kind, a NUL and the parts."""
        begun = self._kinds.get(kind)
        if begun is None:
            begun = self._kinds[kind] = self._inner.copy()
            begun.update(kind.encode() + b"\0")
        inner, outer = begun.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()


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
