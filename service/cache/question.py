"""A question on its way to an answer: what was found, what spoke against it, what is served."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from service.cache.canonical import Query, Vector
from service.cache.guards import GUARDS, NOT_THERE, rejection
from service.model import (
    Candidate,
    Decision,
    Generation,
    Hit,
    JudgedCandidate,
    Miss,
    Nearest,
    Reason,
    Record,
    Tier,
)


@dataclass(slots=True)
class Question:
    """A question on its way to an answer."""

    query: Query
    tiers: Sequence[Tier]
    threshold: float
    explain: bool
    vector: Vector | None
    judged: dict[str, JudgedCandidate] = field(default_factory=dict)  # nearest first
    served: tuple[Tier, Candidate, Record] | None = None
    reason: Reason = Reason.EMPTY
    rule: str | None = None

    def judge(self, candidate: Candidate, record: Record | None, now: int, tier: Tier) -> None:
        """Serve the candidate if nothing speaks against it and nothing nearer was served."""
        why = rejection(candidate, record, self.query.identities, self.threshold, now)
        verdict = JudgedCandidate(candidate.entry_id, candidate.similarity, why)
        if tier is Tier.SEMANTIC:
            self.judged[candidate.entry_id] = verdict
        if why is None and record is not None and self.served is None:
            self.served = (tier, candidate, record)

    @property
    def hidden(self) -> bool:
        """Only rejected candidates were seen, none below the threshold: nearer ones may hide behind."""
        return self.served is None and all(j.rejected_by != "threshold" for j in self.judged.values())

    def nearest(self) -> JudgedCandidate | None:
        """The nearest candidate that is really there."""
        return next((j for j in self.judged.values() if j.rejected_by not in NOT_THERE), None)

    def explain_miss(self) -> None:
        """Set the reason that the nearest candidate stands for."""
        nearest = self.nearest()
        if nearest is None:
            self.reason, self.rule = Reason.EMPTY, None
        elif nearest.rejected_by in GUARDS:
            self.reason, self.rule = Reason.GUARD, nearest.rejected_by
        else:
            self.reason, self.rule = Reason.BELOW_THRESHOLD, None

    def answer(
        self, generation: Generation | None, now: int, stages_ms: dict[str, float], latency_ms: float
    ) -> Hit | Miss:
        """What goes over the wire; `now` in ms since 1970."""
        shown = self._decision(generation, stages_ms) if self.explain else UNSET
        lookup_id = secrets.token_hex(16)
        if self.served is None:
            nearest = self.nearest()
            return Miss(
                lookup_id=lookup_id,
                reason=self.reason,
                rule=self.rule or UNSET,
                nearest=None if nearest is None else Nearest(nearest.entry_id, nearest.similarity),
                latency_ms=latency_ms,
                decision=shown,
            )
        tier, candidate, record = self.served
        return Hit(
            lookup_id=lookup_id,
            tier=tier,
            entry_id=record.entry_id,
            response=msgspec.Raw(record.response),
            similarity=candidate.similarity,
            threshold=self.threshold,
            age_s=max(0, now - record.stored_at) / 1000,
            expires_in_s=None if record.expires_at is None else max(0, record.expires_at - now) / 1000,
            sources=record.sources,
            attributes=record.attributes,
            metadata=msgspec.Raw(record.metadata),
            latency_ms=latency_ms,
            decision=shown,
        )

    def _decision(self, generation: Generation | None, stages_ms: dict[str, float]) -> Decision:
        return Decision(
            tiers=list(self.tiers),
            threshold=self.threshold,
            generation=None if generation is None else generation.number,
            candidates=list(self.judged.values()),
            stages_ms=stages_ms,
        )
