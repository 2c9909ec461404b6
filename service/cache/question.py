"""A question on its way to an answer: what was found, what spoke against it, what is served."""

import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from service.cache import guards
from service.cache.actions import acts
from service.cache.canonical import LONGEST_TEXT, Query, Vector
from service.cache.embeddings import Wanted
from service.cache.guards import GUARDS, NOT_THERE, Asked, rejection, verdicts
from service.cache.learning.trial import Trial, explores
from service.cache.learning.verified import Drawn
from service.cache.lifetime import end_of
from service.cache.ports import Search
from service.cache.rewriting import is_wanted
from service.cache.tickets import issued
from service.model import (
    Candidate,
    Decision,
    Generation,
    Hit,
    JudgedCandidate,
    Miss,
    Nearest,
    Origin,
    Policy,
    Reason,
    Record,
    Tier,
)

VERIFIED = 2
"""How many candidates of a question the verifier reads."""

EQUAL = 0.9998
"""The similarity of equal vectors, less what float16 and RediSearch lose."""


def same_words(one: str, other: str) -> bool:
    """Whether they differ in case, accents and spaces at most: a verifier sees no more in them."""
    return one == other or _plain(one) == _plain(other)


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(one for one in letters if not unicodedata.combining(one)).split())


@dataclass(slots=True)
class Held:
    """A candidate that nothing speaks against so far."""

    candidate: Candidate
    record: Record
    text: str  # what the asked text is compared with
    score: float | None = None  # the verifier's own, where it read them


@dataclass(slots=True)
class Question:
    """A question on its way to an answer."""

    query: Query
    tiers: Sequence[Tier]
    asked: Asked
    explain: bool
    vector: Vector | None
    judged: dict[str, JudgedCandidate] = field(default_factory=dict)  # nearest first
    held: list[Held] = field(default_factory=list)  # nearest first
    served: tuple[Tier, Candidate, Record] | None = None
    reason: Reason = Reason.EMPTY
    rule: str | None = None
    kept: Wanted | None = None  # what was read with the record
    found: Sequence[Candidate] | None = None  # nearest first; None: nobody has searched
    pointers: list[bytes | None] | None = None  # sealed, by identity; None: not asked for
    recalled: bool = False  # whether what is served comes from this process' memory
    under: Generation | None = None  # what it was answered under
    trial: Trial | None = None  # of policies with the mode `verified`
    drawn: Drawn | None = None  # the chance that the candidate was given
    explored: Held | None = None  # might have been served
    shadowed: tuple[Tier, Candidate, Record] | None = None  # would have been served
    number: int = 0  # of the last invalidation before it was looked up
    lookup_id: str | None = None
    cut: float | None = None  # the verifier's, where it was asked
    in_force: Policy | None = None  # its policy with the defaults filled in, to be explained

    def close(self) -> None:
        """Keep the semantic tier out: what its policy lets through is not known."""
        self.in_force = None
        if Tier.SEMANTIC in self.tiers:
            self.tiers = [tier for tier in self.tiers if tier is not Tier.SEMANTIC]
            self.reason, self.rule = Reason.POLICY, "unreadable"

    def pass_by(self, rule: str) -> None:
        """Ask no tier: the policy keeps the question away from the cache."""
        self.tiers, self.reason, self.rule = (), Reason.POLICY, rule

    @property
    def own_id(self) -> str:
        """The id that its entry has, or would have, under the current secret."""
        return self.query.identities[0].entry_id

    @property
    def ends_with_its_own(self) -> bool:
        """Whether nothing more is wanted where its own entry may be served."""
        return True

    @property
    def text(self) -> str | None:
        """What is embedded and compared."""
        return self.asked.standalone or self.query.text

    @property
    def may_be_embedded(self) -> bool:
        """Whether its text's vector will be wanted if the exact tier misses."""
        text = self.text if self.vector is None and Tier.SEMANTIC in self.tiers else None
        if text is None or len(text) > LONGEST_TEXT:
            return False
        return not is_wanted(self.query, self.asked.policy, self.asked.standalone)  # then by other words

    @property
    def may_be_pointed(self) -> bool:
        """Of one that may be embedded: whether pointers are for it, which stand behind the exact tier."""
        return not self.explain and Tier.EXACT in self.tiers and self.trial is None

    @property
    def wanted(self) -> Wanted:
        """The text whose vector is wanted, and what was read for it: nothing where it was rewritten since."""
        text = self.text or ""
        return self.kept if self.kept is not None and self.kept.text == text else Wanted(text, None, None)

    def judge_exact(self, entry_id: str, record: Record | None, now: int) -> bool:
        """Serve the record of the question's own id if it is really there; whether it may be served."""
        candidate = Candidate(entry_id, 1.0)
        why = rejection(candidate, record, self.asked, now)
        if why is None and record is not None and self.served is None:
            self.served = (Tier.EXACT, candidate, record)
        return why is None

    @property
    def looks_on(self) -> bool:
        """Whether further candidates are of use."""
        enough = VERIFIED if self.asked.policy.guarded("verifier") else 1
        return self.explain or len(self.held) < enough

    def judge(self, candidate: Candidate, record: Record | None, now: int) -> None:
        """Hold the candidate unless something speaks against it."""
        why, said = rejection(candidate, record, self.asked, now), {}
        if why is None and record is not None and acts(record.response):
            why = "tool_calls"
        if why is None and record is not None:
            text = guards.compared(record, self.asked)
            if self.text != text:
                said = verdicts(self.text or "", text, self.asked.policy, every=self.explain)
            why = next((name for name, passed in said.items() if not passed), None)
            if why is None:
                self.held.append(Held(candidate, record, text))
        self.judged[candidate.entry_id] = JudgedCandidate(
            candidate.entry_id, candidate.similarity, why, dict(said)
        )

    def search(self, vector: Vector, live_at: int | None) -> Search:
        """For its candidates; `live_at` as there."""
        any_history = self.asked.standalone is not None
        return Search(self.query.identities, vector, live_at, any_history=any_history)

    def needs_no_reading(self, rank: int = 0) -> bool:
        """The policy wants no verifier, or the words are the same, or the vector, which the caller gave."""
        nearest = self.held[rank]
        equal = self.query.vector is not None and nearest.candidate.similarity >= EQUAL
        return not self.asked.policy.guarded("verifier") or equal or same_words(nearest.text, self.text or "")

    def settle(self, rank: int, score: float | None, cut: float) -> None:
        """Serve a held candidate if its score reaches the cut; without a score, as it is."""
        held, self.cut = self.held[rank], cut
        passed = score is None or score >= cut
        if score is not None:
            judged = self.judged[held.candidate.entry_id]
            self.judged[held.candidate.entry_id] = msgspec.structs.replace(
                judged,
                rejected_by=None if passed else "verifier",
                verdicts=judged.verdicts | {"verifier": passed},
                verifier_score=score,
            )
        if self.trial is not None:
            passed = self._tried(held, self.trial, None if held.score is None else score)
        if passed:
            self.served = (Tier.SEMANTIC, held.candidate, held.record)

    def _tried(self, held: Held, trial: Trial, score: float | None) -> bool:
        """Whether it is served, whatever the verifier's cut says; `score` is None where it read nothing."""
        self.drawn = trial.drawn(held.candidate, held.record, score)
        passed = not explores(self.drawn)
        judged = self.judged[held.candidate.entry_id]
        why = None if passed else "explore"
        self.judged[held.candidate.entry_id] = msgspec.structs.replace(
            judged, rejected_by=why, verifier_score=score
        )
        if not passed:
            self.explored = held
        return passed

    def shadow(self) -> None:
        """Answer nothing, whatever was found, and remember what it was."""
        if self.served is not None:
            self.shadowed, self.served = self.served, None
            self.reason, self.rule = Reason.POLICY, "shadow"
            _, candidate, _ = self.shadowed
            shown = JudgedCandidate(candidate.entry_id, candidate.similarity, None)
            self.judged.setdefault(candidate.entry_id, shown)

    def forget(self) -> None:
        """As if no candidate had been seen."""
        self.judged.clear()
        self.held.clear()

    def fail(self, rule: str) -> None:
        """Nobody could say whether what is held may be served: it may not."""
        self.held.clear()
        self.reason, self.rule = Reason.DEGRADED, rule

    @property
    def hidden(self) -> bool:
        """Only candidates were seen that can't be served whatever they say: others may hide behind."""
        hiding = NOT_THERE | {"history"}
        return self.served is None and all(j.rejected_by in hiding for j in self.judged.values())

    def nearest(self) -> JudgedCandidate | None:
        """The nearest candidate that is really there."""
        return next((j for j in self.judged.values() if j.rejected_by not in NOT_THERE), None)

    def explain_miss(self) -> None:
        """Set the reason that the nearest candidate stands for."""
        if self.reason is Reason.DEGRADED:
            return
        nearest = self.nearest()
        if self.explored is not None:
            self.reason, self.rule = Reason.EXPLORE, None
        elif nearest is None:
            self.reason, self.rule = Reason.EMPTY, None
        elif nearest.rejected_by in GUARDS:
            self.reason, self.rule = Reason.GUARD, nearest.rejected_by
        else:
            self.reason, self.rule = Reason.BELOW_THRESHOLD, None

    @property
    def is_open(self) -> bool:
        """Whether a further candidate may be served."""
        return self.served is None and self.explored is None

    @property
    def missing(self) -> bool:
        """Whether there is no answer, and one that is made now would be found by the next who asks."""
        open_ = self.served is None and self.shadowed is None
        return open_ and self.reason is not Reason.DEGRADED and Tier.EXACT in self.tiers

    @property
    def was_asked(self) -> bool:
        """Whether its answer, or that there is none, is the cache's."""
        return bool(self.tiers) and self.reason is not Reason.DEGRADED

    @property
    def likeness(self) -> Hashable:
        """Equal for questions whose lookups bring the same."""
        vector = None if self.query.vector is None else self.query.vector.tobytes()
        ids = tuple(one.entry_id for one in self.query.identities)
        return ids, tuple(self.tiers), self.asked.threshold, vector, self.reason, id(self.asked.policy)

    def token(self, now: int) -> str:
        """The lookup's id."""
        fresh, explored = self.shadowed is not None, self.explored is not None
        self.lookup_id = self.lookup_id or issued(self.number, now, fresh=fresh, explored=explored)
        return self.lookup_id

    def answer(
        self,
        generation: Generation | None,
        now: int,
        stages_ms: dict[str, float],
        latency_ms: float,
        *,
        lease: bool = False,
    ) -> Hit | Miss:
        """What goes over the wire; `now` in ms since 1970."""
        shown = self._decision(generation, stages_ms) if self.explain else UNSET
        self.under = generation
        lookup_id = self.token(now)
        if self.served is None:
            nearest = self.nearest()
            return Miss(
                lookup_id=lookup_id,
                reason=self.reason,
                rule=self.rule or UNSET,
                nearest=None if nearest is None else Nearest(nearest.entry_id, nearest.similarity),
                lease=lease,
                latency_ms=latency_ms,
                decision=shown,
            )
        tier, candidate, record = self.served
        end = end_of(record, self.asked.policy)
        return Hit(
            lookup_id=lookup_id,
            tier=Origin.MEMORY if self.recalled else Origin(tier),
            entry_id=record.entry_id,
            response=msgspec.Raw(record.response),
            similarity=candidate.similarity,
            threshold=self.asked.threshold,
            age_s=max(0, now - record.stored_at) / 1000,
            expires_in_s=None if end is None else max(0, end - now) / 1000,
            sources=record.sources,
            attributes=record.attributes,
            metadata=msgspec.Raw(record.metadata),
            latency_ms=latency_ms,
            decision=shown,
        )

    def _decision(self, generation: Generation | None, stages_ms: dict[str, float]) -> Decision:
        return Decision(
            tiers=list(self.tiers),
            threshold=self.asked.threshold,
            policy=self.in_force,
            generation=None if generation is None else generation.number,
            candidates=list(self.judged.values()),
            stages_ms=stages_ms,
            asked=self.text,
        )
