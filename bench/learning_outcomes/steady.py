"""Made-up traffic of one accuracy: does the threshold move though nothing changes, or to and fro?"""

from itertools import pairwise
from typing import Any

import numpy as np

from service.cache.learning.adaptive import Aim, State, Why, next_state
from service.cache.learning.places import Source, Verdict
from service.cache.learning.strata import STRATA

ACCURACIES = (0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
AIM = Aim(0.65, 0.97)
START = 0.8
CLIFF, BELOW = 0.75, 0.5
"""Or: from that similarity on it has that accuracy, below it this one."""

TOLD = 10
"""Hits for each verdict."""


def measured(accuracy: float, cliff: float | None, streams: int, verdicts: int, seed: int) -> dict[str, Any]:
    """Of so many streams: the share that moved up, down, and turned round; the mean end."""
    random = np.random.default_rng([seed, round(accuracy * 1000)])
    ends = [_stream(accuracy, cliff, verdicts, random) for _ in range(streams)]
    whys = [[move.why for move in one.moves] for one in ends]
    turns = [sum(a is not b for a, b in pairwise(why)) for why in whys]
    return {
        "accuracy": accuracy,
        "cliff": cliff,
        "verdicts": verdicts,
        "streams": streams,
        "up": sum(Why.WRONG in why for why in whys) / streams,
        "down": sum(Why.RIGHT in why for why in whys) / streams,
        "turned": sum(count > 0 for count in turns) / streams,
        "most_turns": max(turns),
        "mean_end": sum(one.threshold for one in ends) / streams,
    }


def _stream(accuracy: float, cliff: float | None, verdicts: int, random: np.random.Generator) -> State:
    state, hits, said = State(START), [0] * STRATA, list[Verdict]()
    chances, places = random.random(verdicts), random.random(verdicts)
    for number, (chance, place) in enumerate(zip(chances, places, strict=True), 1):
        hits[2] += TOLD
        similarity = state.threshold + (1 - state.threshold) * float(place)
        right = bool(chance < (accuracy if cliff is None or similarity >= cliff else BELOW))
        said.append(Verdict(number, similarity, right, Source.FEEDBACK, state.threshold, 2))
        state = next_state(state, said, AIM, hits, number)
    return state
