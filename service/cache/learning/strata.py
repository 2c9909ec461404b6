"""How uncertain a hit is, in a handful of strata."""

SEMANTIC = 4
"""Strata of the semantic tier, the least certain is 0."""

EXACT = SEMANTIC
"""The stratum of exact hits, also from memory."""

STRATA = SEMANTIC + 1


def stratum(similarity: float, threshold: float, score: float | None, cut: float | None) -> int:
    """A semantic hit's stratum, 0 to 3: where between what is served at least and what is sure it lies.

    Args:
        similarity: -1 to 1.
        threshold: the least that is served.
        score: the verifier's, 0 to 1; None: it wasn't asked.
        cut: the least score that is served.
    """
    if score is None or cut is None:
        return _part(similarity - threshold, 1 - threshold)
    return _part(score - cut, 1 - cut)


def _part(above: float, width: float) -> int:
    if not width > 0:
        return SEMANTIC - 1
    return min(SEMANTIC - 1, max(0, int(SEMANTIC * above / width)))
