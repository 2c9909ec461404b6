"""What an index keeps of a vector, and what is read back."""

import numpy as np
import pytest

from service.model import Datatype
from service.store.vectors import packed, unpacked

ROWS = np.random.default_rng(1).standard_normal((200, 384))
UNITS = (ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("datatype", "size", "lost"), [("float32", 4, 1e-6), ("float16", 2, 1e-4), ("bfloat16", 2, 1e-3)]
)
def test_similarities_survive(datatype: Datatype, size: int, lost: float) -> None:
    kept = [packed(row, datatype) for row in UNITS]
    assert {len(raw) for raw in kept} == {384 * size}
    back = np.array([unpacked(raw, datatype) for raw in kept])
    assert np.abs(back @ back.T - UNITS @ UNITS.T).max() < lost
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)


def test_bfloat16_rounds_to_the_nearest() -> None:
    for value, bits in [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-1.0, 0xBF80)]:
        assert packed(np.array([value], np.float32), "bfloat16") == bits.to_bytes(2, "little")


def test_rubbish_is_no_reason_to_stop() -> None:
    assert not unpacked(bytes(768), "float16").any()
