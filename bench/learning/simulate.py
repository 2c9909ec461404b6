"""A cache in this process that is asked a stream: exact tier, exact search, guards, an arm that decides."""

from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.learning.scoring import Readings
from bench.learning.streams import Stream
from service.store.searches import PAGE

Outcomes = NDArray[np.int8]


class Outcome(IntEnum):
    """Of a request."""

    MISS = 0  # no candidate
    EXPLORED = 1  # there was one; the LLM is asked all the same
    EXACT = 2
    RIGHT = 3
    WRONG = 4


class Candidate(NamedTuple):
    """A stored text that is near."""

    text: int
    similarity: float


class Cache:
    """What is stored of a stream's texts."""

    def __init__(self, stream: Stream, readings: Readings) -> None:
        self._stream, self._readings = stream, readings
        self.exact = np.zeros(len(stream.texts), np.bool_)
        self.semantic = np.zeros(len(stream.texts), np.bool_)

    def near(self, text: int) -> list[Candidate]:
        """A page of the nearest stored ones, whatever guards say."""
        near = self._stream.near[text]
        places = np.flatnonzero(self.semantic[near])[:PAGE]
        found = zip(near[places].tolist(), self._stream.similarities[text][places].tolist(), strict=True)
        return [Candidate(*one) for one in found]

    def held(self, text: int, most: int) -> list[Candidate]:
        """The first of the page that no guard speaks against."""
        found: list[Candidate] = []
        for one in self.near(text):
            if self._readings.free(self._stream.texts[text], self._stream.texts[one.text]):
                found.append(one)
                if len(found) == most:
                    break
        return found

    def score(self, text: int, candidate: Candidate) -> float | None:
        """The verifier's."""
        return self._readings.score(self._stream.texts[text], self._stream.texts[candidate.text])

    def right(self, text: int, candidate: Candidate) -> bool:
        """Whether they have the same answer."""
        return self._stream.answers[text] == self._stream.answers[candidate.text]

    def served(self, text: int, candidate: Candidate) -> Outcome:
        return Outcome.RIGHT if self.right(text, candidate) else Outcome.WRONG


class Arm(Protocol):
    """Decides on a text that the exact tier doesn't know, and stores its answer if it is asked afresh."""

    def ask(self, cache: Cache, text: int, before: int) -> Outcome:
        """`before`: how many requests came before."""
        ...


def run(stream: Stream, readings: Readings, arm: Arm) -> Outcomes:
    """One outcome per request."""
    cache = Cache(stream, readings)
    found = np.empty(len(stream.asked), np.int8)
    for at, text in enumerate(stream.asked):
        found[at] = Outcome.EXACT if cache.exact[text] else arm.ask(cache, text, at)
    return found
