"""What the outcomes of an agent_type say, worked out as they come; nothing here is kept elsewhere."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from service.cache.learning.observations import KEPT, Observation
from service.cache.learning.pooled import Prior, unlearned
from service.cache.learning.strata import EXACT
from service.cache.learning.verified import Account, Drawn, Fit, drawn, posterior
from service.cache.outcomes import Said

FIRST, EIGHTH, LAST = 8, 8, 256
"""New outcomes for another fit: that share of those before, at least so many, at most so many."""
FITS = 20_000
MOST = 30_000
"""Outcomes that a process keeps in mind."""

Answer = tuple[bytes, int]
"""An entry and which of its answers."""


class Seen(NamedTuple):
    """An observation, and how it was said."""

    order: tuple[int, bytes]
    weight: tuple[bool, int]
    observation: Observation


class Learned:
    """Of one agent_type, under one embedding model."""

    def __init__(self) -> None:
        self.said: dict[tuple[bytes, str], Said] = {}  # by lookup and source
        self.until = 0  # when the last of it was said
        self.changes = 0  # how often something new was said
        self.prior: Prior = unlearned()
        self.account = Account()  # of this process
        self._fitted = 0
        self._seen: dict[Answer, dict[bytes, Seen]] = defaultdict(dict)
        self._fits: dict[Answer, Fit] = {}

    def take(self, some: Iterable[Said]) -> bool:
        """What was said, in order. Whether the prior is to be fitted again."""
        for one in some:
            self.until = max(self.until, one.at)
            name = one.outcome.lookup_id, one.outcome.source
            known = self.said.get(name)
            if known is None or (known.outcome != one.outcome and known.at <= one.at):
                self.said[name] = one
                self.changes += 1
                self._observe(one)
        if len(self.said) > MOST:
            self._forget()
        return len(self.said) - self._fitted >= min(LAST, max(FIRST, self._fitted // EIGHTH))

    def _forget(self) -> None:
        """The older half."""
        kept = sorted(self.said.values(), key=lambda one: one.order)[len(self.said) // 2 :]
        self.said = {(one.outcome.lookup_id, one.outcome.source): one for one in kept}
        self._seen.clear()
        self._fits.clear()
        self._fitted = min(self._fitted, len(kept))
        for one in kept:
            self._observe(one)

    def _observe(self, one: Said) -> None:
        outcome = one.outcome
        if outcome.stratum == EXACT or (outcome.source == "feedback" and outcome.correct):
            return  # of the same words; a user's thanks, which are no sample
        name = outcome.entry_id, outcome.answer
        seen = Observation(outcome.cosine, outcome.verified, outcome.correct)
        known = self._seen[name].get(outcome.lookup_id)
        if known is None or known.weight <= one.weight:
            self._seen[name][outcome.lookup_id] = Seen(one.order, one.weight, seen)
            self._fits.pop(name, None)

    def rows(self) -> tuple[list[Answer], list[Observation]]:
        """Which answer each observation is of, and the observations, oldest first: what `fitted` takes."""
        rows = sorted(
            (
                (one.order, name, one.observation)
                for name, each in self._seen.items()
                for one in each.values()
            ),
            key=lambda row: row[0],
        )
        return [name for _, name, _ in rows], [seen for *_, seen in rows]

    def follow(self, prior: Prior, outcomes: int) -> None:
        """Go by a prior that was fitted to so many outcomes."""
        self.prior, self._fitted = prior, outcomes
        self._fits.clear()

    def fit(self, name: Answer) -> Fit:
        """Of an entry's answer; worked out once, some 100 µs."""
        found = self._fits.get(name)
        if found is None:
            each = self._seen.get(name)
            ordered = [] if each is None else sorted(each.values(), key=lambda one: one.order)
            seen = [one.observation for one in ordered[-KEPT:]]
            if len(self._fits) >= FITS:
                self._fits.clear()
            found = self._fits[name] = posterior(self.prior, seen)
        return found

    def drawn(self, name: Answer, similarity: float, score: float | None, max_error_rate: float) -> Drawn:
        """How likely it is to be asked afresh: wrong answers stay within that share of all requests."""
        return drawn(self.fit(name), similarity, score, self.account.allowed(max_error_rate))
