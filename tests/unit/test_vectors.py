"""What an index keeps of a vector, and what is read back."""

import numpy as np
import pytest
from msgspec.structs import replace

from service.model import Datatype, Generation
from service.store.vectors import OWN, packed, similarity, unpacked, width

ROWS = np.random.default_rng(1).standard_normal((200, 384))
UNITS = (ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)).astype(np.float32)
PLAIN = Generation(
    number=1, index="1", space="1", model="m", revision="r", dim=384, datatype="float32", threshold=0.9
)
HERE, THERE = "00ff" * 8, "0f1e2d3c4b5a6978" * 2


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize(
    ("datatype", "size", "lost"), [("float32", 4, 1e-6), ("float16", 2, 1e-4), ("bfloat16", 2, 1e-3)]
)
def test_similarities_survive(datatype: Datatype, size: int, lost: float, *, placed: bool) -> None:
    generation = replace(PLAIN, datatype=datatype, placed=placed)
    kept = [packed(row, HERE, generation) for row in UNITS]
    assert {len(raw) for raw in kept} == {width(generation) * size}
    back = np.array([unpacked(raw, generation) for raw in kept])
    assert np.abs(back @ back.T - UNITS @ UNITS.T).max() < lost
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)


def test_a_place_keeps_similarities_inside_a_scope_and_parts_twins_of_two() -> None:
    generation = replace(PLAIN, placed=True)
    rows = [np.frombuffer(packed(row, HERE, generation), "<f4") for row in UNITS]
    there = np.frombuffer(packed(UNITS[0], THERE, generation), "<f4")
    for row, own in zip(rows, UNITS, strict=True):
        assert float(row @ row) == pytest.approx(1, abs=1e-6)
        assert similarity(1 - float(row @ rows[0]), generation) == pytest.approx(own @ UNITS[0], abs=1e-6)
    assert float(there @ rows[0]) < 0.9


def test_similarity_of_a_distance() -> None:
    plain = [similarity(distance, PLAIN) for distance in (0.0, 0.25, 2.0, -1e-7, 2.0000002)]
    assert plain == [1.0, 0.75, -1.0, 1.0, -1.0]
    placed = [similarity(OWN * one, replace(PLAIN, placed=True)) for one in (0.0, 0.25, 2.0, 2.1)]
    assert placed == pytest.approx([1.0, 0.75, -1.0, -1.0])


def test_bfloat16_rounds_to_the_nearest() -> None:
    generation = replace(PLAIN, datatype="bfloat16")
    for value, bits in [(1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (-1.0, 0xBF80)]:
        assert packed(np.array([value], np.float32), HERE, generation) == bits.to_bytes(2, "little")


def test_rubbish_is_no_reason_to_stop() -> None:
    assert not unpacked(bytes(768), replace(PLAIN, datatype="float16")).any()
