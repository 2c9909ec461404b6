"""Vectors as an index keeps them, as its generation says.

Numbers are little-endian float32, float16 or bfloat16; half the bytes cost a similarity 1e-4.

Where a generation is `placed`, 8 numbers stand behind each vector, the place of its scope: their signs are
bits of a checksum of its digest. So the graph leads to a scope as it leads to a meaning, entries of one
scope lie together, and the same question in a thousand scopes is not a thousand equal points, of which some
can't be reached. Inside a scope the cosine of two is OWN * similarity + PLACE: the order is as it was.
"""

from collections.abc import Mapping
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from service.cache.canonical import Vector
from service.model import Datatype, Generation

DATATYPES: Mapping[str, Datatype] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


STEP = 11 / 64
"""What a place's numbers are, less their sign: each datatype has it exactly. Greater ones cut scopes off."""
PLACES = 8
"""With twice as many a document would not fit into the allocator's 1,024 bytes, and takes 1,280."""
PLACE = PLACES * STEP**2
OWN = 1 - PLACE
"""How much of a vector's squared length is its own."""
SHARE = np.float32(OWN**0.5)
"""How long its own part is."""


def width(generation: Generation) -> int:
    """How many numbers a vector of the index has."""
    return generation.dim + PLACES * generation.placed


def packed(vector: Vector, scope: str, generation: Generation) -> bytes:
    """A unit vector for the index, or for a query of it; `scope` is the digest."""
    values = vector.astype("<f4")
    if generation.placed:
        values = np.concatenate([values * SHARE, _place(scope)])
    if generation.datatype == "float16":
        return values.astype("<f2").tobytes()
    if generation.datatype == "float32":
        return values.tobytes()
    bits = values.view("<u4")
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # ties to even
    return bytes(nearest.astype("<u2"))


def unpacked(raw: bytes, generation: Generation) -> Vector:
    """What the index holds, without its place and of norm 1 again."""
    if generation.datatype == "bfloat16":
        values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(raw, "<f2" if generation.datatype == "float16" else "<f4").astype("<f4")
    own = values[: generation.dim]
    return (own / (np.linalg.norm(own) or 1)).astype(np.float32)


def similarity(distance: float, generation: Generation) -> float:
    """Cosine similarity inside a scope, of RediSearch's COSINE distance.

    Rounding may put it just outside -1 to 1. What is no number is as far as can be.
    """
    found = 1.0 - distance / (OWN if generation.placed else 1.0)
    return min(found, 1.0) if found >= -1.0 else -1.0


@lru_cache(maxsize=4096)
def _place(scope: str) -> NDArray[np.float32]:
    checksum = np.array([crc32(scope.encode())], "<u4").view(np.uint8)
    bits = np.unpackbits(checksum)[:PLACES]
    place = np.where(bits, np.float32(STEP), np.float32(-STEP))
    place.flags.writeable = False  # it is remembered
    return place
