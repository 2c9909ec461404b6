"""Records are believed only as they were written."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cache.digests import Keyring
from service.model import Pointer, Record, Tenant
from service.store.records import seal, unseal
from tests.helpers import record

RING = Keyring(b"the secret of this test")
OURS = RING.of(Tenant("ours"))


def sealed(tenant: str = "ours") -> bytes:
    keys = RING.of(Tenant(tenant))
    return seal(msgspec.structs.replace(record(), tenant=keys.current.tenant), keys.current)


def test_round_trip() -> None:
    read = unseal(sealed(), "id", OURS)
    assert read is not None
    assert msgspec.structs.replace(read, tenant="tenant") == record()


@given(st.integers(0, len(sealed()) * 8 - 1))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_makes_a_miss(bit: int) -> None:
    blob = bytearray(sealed())
    blob[bit // 8] ^= 1 << bit % 8
    assert unseal(bytes(blob), "id", OURS) is None


@given(st.integers(0, len(sealed()) - 1))
@settings(deadline=None)
def test_a_truncated_record_makes_a_miss(length: int) -> None:
    assert unseal(sealed()[:length], "id", OURS) is None


def test_another_id_another_tenant_or_nothing_makes_a_miss() -> None:
    assert unseal(sealed(), "other id", OURS) is None
    assert unseal(sealed("theirs"), "id", OURS) is None
    assert unseal(None, "id", OURS) is None
    assert unseal(b"", "id", OURS) is None


def test_a_previous_secret_still_reads() -> None:
    rotated = Keyring(b"a newer secret", b"the secret of this test").of(Tenant("ours"))
    assert unseal(sealed(), "id", rotated) is not None
    alone = Keyring(b"a newer secret").of(Tenant("ours"))
    assert unseal(sealed(), "id", alone) is None


def test_fields_are_kept_by_position() -> None:
    assert Record.__struct_fields__ == (
        *("entry_id", "tenant", "scope", "history", "agent_type", "model", "prompt_version", "temperature"),
        *("attributes", "text", "messages", "response", "metadata", "sources", "tags", "usage"),
        *("embedding", "stored_at", "expires_at", "standalone", "first_stored_at"),
        "exact_only",
    )
    assert Pointer.__struct_fields__ == (
        *("name", "text", "embedding", "entry_id", "stored_at", "similarity", "verifier", "score"),
        "created_at",
    )
