"""Mode `verified`: whether this candidate is served now, or the LLM asked once more."""

import random
from typing import NamedTuple

from service.cache.decided import answer_of
from service.cache.learning.learned import Learned
from service.cache.learning.verified import Drawn
from service.model import Candidate, Record


class Trial(NamedTuple):
    """By what is known of an agent_type, within a policy's bound."""

    learned: Learned
    max_error_rate: float

    def drawn(self, candidate: Candidate, record: Record, score: float | None) -> Drawn:
        """Its chance, as the bound asks for; `score` is the verifier's, None where it read nothing."""
        name = bytes.fromhex(candidate.entry_id), answer_of(record)
        return self.learned.drawn(name, candidate.similarity, score, self.max_error_rate)


def explores(one: Drawn) -> bool:
    """By chance."""
    return random.random() < one.chance  # noqa: S311 - no secret
