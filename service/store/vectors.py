"""Vectors as an index keeps them: little-endian float32, float16 or bfloat16, as its generation says.

Half the bytes cost a similarity some 1e-4 (docs/architecture.md), which is less than two models differ in.
"""

from collections.abc import Mapping

import numpy as np

from service.cache.canonical import Vector
from service.model import Datatype

DATATYPES: Mapping[str, Datatype] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


def packed(vector: Vector, datatype: Datatype) -> bytes:
    """For the index, and for a query of it."""
    if datatype == "float16":
        return vector.astype("<f2").tobytes()
    if datatype == "float32":
        return vector.astype("<f4").tobytes()
    bits = vector.astype("<f4").view("<u4")
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # ties to even
    return bytes(nearest.astype("<u2"))


def unpacked(raw: bytes, datatype: Datatype) -> Vector:
    """What the index holds, of norm 1 again: fewer bits round it by up to 4e-3."""
    if datatype == "bfloat16":
        values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(raw, "<f2" if datatype == "float16" else "<f4").astype("<f4")
    return (values / (np.linalg.norm(values) or 1)).astype(np.float32)
