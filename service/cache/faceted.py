"""Entries that are found by some of their attributes, several at a time: what LangCache's API needs.

Elsewhere attributes are part of the scope: all must be equal. Here an entry may have more than a search
names. So they are left out of the scope, stand in the entry's id, and are filters of the searches
(docs/langcache.md). Ids and scopes are digests of kinds of their own: these entries and a native
agent_type's never meet, whatever that is called.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from time import perf_counter
from typing import Any

import msgspec

from service.cache.canonical import Query, Vector
from service.cache.digests import DigestKey, TenantKeys
from service.cache.lookup import Lookup, Run
from service.cache.ports import Budget, Search, Work
from service.cache.question import VERIFIED, Question
from service.cache.rewriting import as_it_is, is_wanted
from service.cache.standalone import instructs, stands_alone
from service.cache.store import Accepted, Store
from service.errors import StoreUnavailableError
from service.model import Candidate, LookupRequest, Message, Record, Refused, StoreRequest, Tier

Attributes = Mapping[str, str]
Served = tuple[Tier, Candidate, Record]

_json = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode


def _entry_id(key: DigestKey, question: str, attributes: Attributes) -> str:
    """`question` is the id that the entry would have without attributes, at a native call."""
    return key.digest("faceted entry", _sorted([question, attributes]))


def _mark(key: DigestKey, question: str) -> str:
    """Stands among an entry's attributes: whatever those are, this finds it."""
    return key.digest("faceted question", question.encode())


def faceted(query: Query, keys: TenantKeys, attributes: Attributes) -> Query:
    """A query that was made without attributes, with them; `marks` finds its question's entries."""
    identities = tuple(
        one._replace(
            entry_id=_entry_id(key, one.entry_id, attributes),
            scope=key.digest("faceted scope", one.scope.encode()),
        )
        for key, one in zip(keys.keys, query.identities, strict=True)
    )
    mark = _mark(keys.current, query.identities[0].entry_id)
    return query._replace(identities=identities, marks=(mark,))


def accepted(
    store: Store, request: StoreRequest, keys: TenantKeys, attributes: dict[str, str]
) -> Accepted | Refused:
    """`Store.accept` for a request that names no attributes, and these.

    Raises:
        InvalidInputError: names the field.
    """
    one = store.accept(request, keys)
    if isinstance(one, Refused):
        return one
    named = msgspec.structs.replace(request, attributes=attributes)
    return one._replace(request=named, query=faceted(one.query, keys, attributes))


@dataclass(kw_only=True)
class FacetedQuestion(Question):
    """A question to which there may be several answers."""

    keys: TenantKeys
    attributes: Attributes
    most: int
    bare: tuple[str, ...]  # the ids its entry would have without attributes, under each secret
    same: list[Served] = field(default_factory=list)
    near: list[Served] = field(default_factory=list)

    @property
    def marks(self) -> list[list[str]]:
        """What its candidates have among their attributes' digests."""
        pairs = [_json(pair) for pair in self.attributes.items()]
        return [[key.digest("attribute", pair) for key in self.keys.keys] for pair in pairs]

    @property
    def twin_marks(self) -> list[list[str]]:
        """The same for entries of the same question."""
        of_each = zip(self.keys.keys, self.bare, strict=True)
        return [[_mark(key, bare) for key, bare in of_each], *self.marks]

    def search(self, vector: Vector, live_at: int | None) -> Search:
        """See Question."""
        return super().search(vector, live_at)._replace(marks=self.marks, most=self.most)

    def judge_exact(self, entry_id: str, record: Record | None, now: int) -> bool:
        """Take it if it is an entry of the very same question; the id says so, whatever the index says."""
        if record is None or not self._fits(record) or entry_id not in self._ids(record.attributes):
            return False
        may_be_served = super().judge_exact(entry_id, record, now)
        self._take(self.same)
        return may_be_served

    def _ids(self, attributes: Attributes) -> list[str]:
        of_each = zip(self.keys.keys, self.bare, strict=True)
        return [_entry_id(key, bare, attributes) for key, bare in of_each]

    def _fits(self, record: Record) -> bool:
        return self.attributes.items() <= record.attributes.items()

    @property
    def ends_with_its_own(self) -> bool:
        """See Question. Several may be served."""
        return False

    @property
    def looks_on(self) -> bool:
        """See Question. Several may be served."""
        return True

    def judge(self, candidate: Candidate, record: Record | None, now: int) -> None:
        """See Question."""
        super().judge(candidate, record if record is not None and self._fits(record) else None, now)

    def settle(self, rank: int, score: float | None, cut: float) -> None:
        """See Question."""
        super().settle(rank, score, cut)
        self._take(self.near)

    def _take(self, into: list[Served]) -> None:
        """What was just served goes with the others; nothing is served before the end."""
        if self.served is not None:
            into.append(self.served)
            self.served = None

    @property
    def is_answered(self) -> bool:
        """Whether the tier that comes first has brought enough."""
        return self.tiers[:1] == [Tier.EXACT] and len(self.same) >= self.most

    @property
    def results(self) -> list[Served]:
        """Those of the tier that was named first before the other's, no entry twice, greatest first.

        None where the policy's `shadow` is on.
        """
        if self.shadowed is not None:
            return []
        tiers = {Tier.EXACT: self.same, Tier.SEMANTIC: self.near}
        found: dict[str, Served] = {}
        for one in (one for tier in self.tiers for one in tiers[tier]):
            found.setdefault(one[2].entry_id, one)
        return sorted([*found.values()][: self.most], key=lambda one: -one[1].similarity)


class FacetedLookup(Lookup):
    """Lookups whose answers may have more attributes than were asked for."""

    def faceted(
        self, request: LookupRequest, keys: TenantKeys, attributes: Attributes, most: int
    ) -> FacetedQuestion:
        """A request that names no attributes, and these; `most` answers are wanted.

        Raises:
            InvalidInputError: names the field.
        """
        plain = self.question(request, keys)
        given: dict[str, Any] = {one.name: getattr(plain, one.name) for one in fields(plain)}
        query = faceted(plain.query, keys, attributes)
        given |= {"query": query, "asked": plain.asked._replace(identities=query.identities)}
        bare = tuple(one.entry_id for one in plain.query.identities)
        given["tiers"] = list(plain.tiers)
        return FacetedQuestion(**given, keys=keys, attributes=attributes, most=most, bare=bare)

    async def alone(
        self, prompt: str, before: Sequence[str], request: LookupRequest, keys: TenantKeys
    ) -> str | None:
        """What is asked after those questions, in words that need none of them; None: nobody knows.

        By the rewriter where the policy says so, else by rules. `request` has the agent_type.
        """
        said = [Message(role="user", content=one) for one in [*before, prompt]]
        asked = msgspec.structs.replace(request, prompt=None, messages=said)
        question = self.question(asked, keys)
        policy, query = question.asked.policy, question.query
        own = as_it_is(query, policy)
        if own is None and is_wanted(query, policy, own):
            with contextlib.suppress(StoreUnavailableError):
                (own,) = await self._rewriting.texts([query], keys, Budget(self._redis_s))
        if own is None and stands_alone(prompt) and not any(map(instructs, before)):
            own = prompt
        return own

    def recalled(self, question: Question, keys: TenantKeys) -> bool:
        """See Lookup. Where the entry of the question's own id, with these attributes alone, is enough."""
        if isinstance(question, FacetedQuestion) and (
            question.most > 1 or question.tiers[:1] != [Tier.EXACT]
        ):
            return False
        return super().recalled(question, keys)

    async def _look(self, questions: Sequence[Question], keys: TenantKeys, work: Work) -> dict[str, float]:
        stages_ms = await super()._look(questions, keys, work)
        for question in _faceted(questions):
            found = question.results
            question.served = found[0] if found else None
            if question.asked.policy.shadow:
                question.shadow()
            elif question.asked.policy.max_entries is not None:
                for _, _, record in found:
                    self._uses.hit(keys.tenant, record)
        return stages_ms

    async def _exact(self, questions: Sequence[Question], run: Run) -> None:
        """By the id, and where that isn't enough by what the index knows of the same question."""
        await super()._exact(questions, run)
        begun = perf_counter()
        for question in _faceted(questions):
            if Tier.EXACT in question.tiers and len(question.same) < question.most:
                await self._twins(question, run)
                run.stages_ms["twins"] = round((perf_counter() - begun) * 1000, 3)

    async def _twins(self, question: FacetedQuestion, run: Run) -> None:
        """Those of the same question that have more attributes than were asked for, newest first."""
        there = {record.entry_id for _, _, record in question.same}
        found = await self._responses.marked(
            run.keys, question.twin_marks, question.most, self._clock(), run.budget
        )
        found = [one for one in found if one[0] not in there]
        records = await self._responses.records(run.keys, [entry_id for entry_id, _ in found], run.budget)
        for (entry_id, stored_at), record in zip(found, records, strict=True):
            if record is not None and record.stored_at == stored_at:  # else it is another's document
                question.judge_exact(entry_id, record, self._clock())

    async def _semantic(self, questions: Sequence[Question], run: Run) -> None:
        await super()._semantic([one for one in _faceted(questions) if not one.is_answered], run)

    async def _verify(self, questions: Sequence[Question], run: Run) -> None:
        """As the native lookup does, until there are as many as are wanted."""
        begun = perf_counter()
        for question in _faceted(questions):
            for rank in range(VERIFIED - 1 + question.most):
                if rank >= len(question.held) or len(question.near) >= question.most:
                    break
                if self._verifier is None or question.needs_no_reading(rank):
                    question.settle(rank, None, 0.0)
                else:
                    await self._read(self._verifier, [question], rank)
        run.stages_ms["verify"] = round((perf_counter() - begun) * 1000, 3)


def _faceted(questions: Sequence[Question]) -> list[FacetedQuestion]:
    return [one for one in questions if isinstance(one, FacetedQuestion)]
