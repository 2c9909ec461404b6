"""Mode `verified`: whether this candidate is served now, or the LLM asked once more."""

import random
from typing import NamedTuple

from service.cache.decided import answer_of
from service.cache.learning.learned import Learned
from service.model import Candidate, Record


class Trial(NamedTuple):
    """By what is known of an agent_type, within a policy's bound."""

    learned: Learned
    max_error_rate: float

    def explores(self, candidate: Candidate, record: Record, score: float | None) -> bool:
        """Drawn by chance, as the bound asks for; `score` is the verifier's own, or None."""
        name = bytes.fromhex(candidate.entry_id), answer_of(record)
        chance = self.learned.explore_probability(name, candidate.similarity, score, self.max_error_rate)
        self.learned.decided += chance < 1
        return random.random() < chance  # noqa: S311 - no secret
