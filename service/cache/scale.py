"""LangCache's similarity: s = (1 + cosine) / 2, 0 to 1. Everywhere else similarity is the cosine."""

import math


def cosine_of(similarity: float) -> float:
    """The cosine, -1 to 1, of a similarity on LangCache's scale."""
    return 2 * similarity - 1


def similarity_of(cosine: float) -> float:
    """On LangCache's scale; rounded down, so that what has it is found again where it is the threshold."""
    similarity = (1 + cosine) / 2
    return math.nextafter(similarity, 0.0) if cosine_of(similarity) > cosine else similarity
