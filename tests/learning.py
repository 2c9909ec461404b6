"""Observations of a world that is as the models suppose it."""

import math
import random

from service.cache.learning.observations import Observation, row


def probability(similarity: float, score: float | None, u: float) -> float:
    """That an answer is right."""
    _, near, level, _ = row(similarity, score)
    return 1 / (1 + math.exp(-(-1 + 2 * near + 2.4 * level + u)))


def world(count: int, *, entries: int, spread: float, seed: int) -> tuple[list[int], list[Observation]]:
    """Entry and observation of each."""
    draws = random.Random(seed)  # noqa: S311 - no secret
    u = [draws.gauss(0, spread) for _ in range(entries)]
    found, seen = [], []
    for _ in range(count):
        entry, similarity, score = draws.randrange(entries), draws.uniform(0.65, 1), draws.random()
        found.append(entry)
        right = draws.random() < probability(similarity, score, u[entry])
        seen.append(Observation(similarity, score, right))
    return found, seen
