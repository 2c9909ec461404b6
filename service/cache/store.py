"""A store: who the entry is, how long it lives, what it is found by."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from service.cache import canonical
from service.cache.admission import refusal_of
from service.cache.bypass import passed_by
from service.cache.canonical import Query, Vector
from service.cache.digests import TenantKeys
from service.cache.embeddings import Embeddings, Wanted
from service.cache.invalidation import Newer, subject_of
from service.cache.lifetime import Jitter, is_over, lived, ttl_of
from service.cache.memory import Memory
from service.cache.ports import (
    Budget,
    Clock,
    Coming,
    Embedder,
    NewEntry,
    Policies,
    Responses,
    Tags,
    Uses,
    Work,
)
from service.cache.rewriting import Rewriting, is_wanted, own_words
from service.cache.tickets import Ticket, is_explored, ticket
from service.errors import EmbedderError, InvalidInputError, SemcachedError, StoreUnavailableError
from service.model import INVALIDATED, Generation, Policy, Record, Refused, Stored, StoreRequest, Tier

ITEM_S = 0.008
"""What each further item of a batch adds to the time for Redis: inserting into a graph is slow."""

QUARANTINED = "quarantined"
"""It was served for a question that it doesn't answer: it answers its own words, unless somebody objects."""

EXPLORED = "explored"
"""It was made although there was an answer, and isn't compared with that yet; or was found to be the same."""

EARLY = Refused(stored=False, reason="admit_after")

_json = msgspec.json.Encoder().encode


class Accepted(NamedTuple):
    """A request that may be stored."""

    request: StoreRequest
    query: Query
    exact_only: str | None
    policy: Policy

    @property
    def explored(self) -> bool:
        """Whether it isn't known yet if it is an answer of its own: till then its vector is kept back."""
        lookup_id = self.request.lookup_id
        verified = self.policy.mode == "verified" and Tier.EXACT in self.policy.tiers
        return verified and lookup_id is not None and is_explored(lookup_id)

    @property
    def text(self) -> str:
        """What is asked, where that is plain text."""
        return self.query.text or ""

    @property
    def is_embedded(self) -> bool:
        """Whether its text needs a vector."""
        return self.query.vector is None and self.exact_only is None and self.query.text is not None


class Kept(NamedTuple):
    """What became an entry."""

    accepted: Accepted
    entry: NewEntry
    before: Record | None  # the live one that it took the place of


class Errand(NamedTuple):
    """What a batch of stores has in common."""

    keys: TenantKeys
    generation: Generation
    budget: Budget
    work: Work


class Prior(NamedTuple):
    """What there was when a store came."""

    record: Record | None  # the live entry that it takes the place of
    attempts: int  # to store it, this one included, where its policy counts
    newer: Newer | None  # what was invalidated since its lookup; None: it names none
    kept: Wanted  # its text, with what is kept of its vector
    quarantined: bool = False  # its own words alone may be answered by it

    def admits(self, one: Accepted) -> bool:
        """Whether it was asked often enough."""
        return self.record is not None or self.attempts >= one.policy.admit_after


class Store:
    """Stores entries."""

    def __init__(
        self,
        responses: Responses,
        embedder: Embedder,
        *,
        embeddings: Embeddings,
        policies: Policies,
        rewriting: Rewriting,
        uses: Uses,
        clock: Clock,
        redis_s: float,
        jitter: Jitter = random.random,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory or Memory(0)
        self._responses = responses
        self._embedder = embedder
        self._embeddings = embeddings
        self._policies = policies
        self._rewriting = rewriting
        self._uses = uses
        self._clock = clock
        self._redis_s = redis_s
        self._jitter = jitter
        self.told: Callable[[TenantKeys, Kept], None] | None = None
        """Is told of each that was stored."""

    def accept(self, request: StoreRequest, keys: TenantKeys) -> Accepted | Refused:
        """Check a request and ask the policy.

        Raises:
            InvalidInputError: names the field.
        """
        answer = _checked_json(request.response)
        for field, values in (("sources", request.sources), ("tags", request.tags)):
            for value in values:
                canonical.check_identifier(field, value)
        generation = self._responses.generation
        query = canonical.query(request, keys, None if generation is None else generation.dim)
        policy = self._policies.of(keys, request.agent_type)
        if policy is None:  # nobody knows what may be stored
            return Refused(stored=False, reason="unreadable")
        rule = passed_by(query, request, policy) or refusal_of(answer, request, policy.admission)
        if rule is not None:
            return Refused(stored=False, reason=rule)
        if query.text is None:  # also with a vector: it can't speak for an image
            exact_only: str | None = "not_plain_text"
        elif len(query.text) > canonical.LONGEST_TEXT:
            exact_only = "too_long"
        elif Tier.SEMANTIC not in policy.tiers:
            exact_only = "policy"
        else:
            exact_only = None if query.vector is not None else self._embedder.unfit(query.text)
        if exact_only and Tier.EXACT not in policy.tiers:  # no tier would serve it
            return Refused(stored=False, reason="tiers")
        return Accepted(request, query, exact_only, policy)

    async def answer(
        self, accepted: Sequence[Accepted], keys: TenantKeys, work: Work | None = None
    ) -> list[Stored | Refused | SemcachedError]:
        """One answer per accepted request, in order; the error of each that could not be stored.

        What embedding took is put into `work`.

        Raises:
            StoreUnavailableError: Redis did not answer in time; some may have been stored.
        """
        if not accepted:
            return []
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        budget = Budget(self._redis_s + ITEM_S * len(accepted[1:]))
        errand = Errand(keys, generation, budget, work or Work())
        prior = await self._prior(accepted, errand)
        accepted = [
            one._replace(exact_only=one.exact_only or (QUARANTINED if past.quarantined else None))
            for one, past in zip(accepted, prior, strict=True)
        ]
        outcomes: list[Stored | Refused | SemcachedError] = [EARLY] * len(accepted)
        due = [at for at, (one, past) in enumerate(zip(accepted, prior, strict=True)) if past.admits(one)]
        stored = await self._stored([accepted[at] for at in due], [prior[at] for at in due], errand)
        for at, outcome in zip(due, stored, strict=True):
            outcomes[at] = outcome
        return outcomes

    async def _stored(
        self, accepted: Sequence[Accepted], prior: Sequence[Prior], errand: Errand
    ) -> list[Stored | Refused | SemcachedError]:
        """What became of each."""
        standalone = await self._standalone(accepted, errand)
        outcomes: list[Stored | Refused | SemcachedError | None] = [None] * len(accepted)
        entries: dict[int, NewEntry] = {}
        for at, vector in enumerate(await self._vectors(accepted, standalone, prior, errand)):
            if isinstance(vector, EmbedderError):
                outcomes[at] = vector
            elif vector is not None and vector.size != errand.generation.dim:  # before the index was known
                outcomes[at] = InvalidInputError("embedding", f"the index has {errand.generation.dim} values")
            else:
                entry = self._living(accepted[at], standalone[at], vector, prior[at], errand)
                if _is_late(entry, prior[at].newer):
                    outcomes[at] = INVALIDATED
                else:
                    entries[at] = entry
        try:
            errors = await self._responses.put(errand.keys, list(entries.values()), errand.budget)
        finally:  # also where nobody knows what was stored
            for entry in entries.values():
                self._memory.forget((entry.record.entry_id, *entry.superseded))
            for at, entry in entries.items():
                if (bound := accepted[at].policy.max_entries) is not None:
                    self._uses.stored(errand.keys.tenant, entry.record, bound)
        for (at, entry), error in zip(entries.items(), errors, strict=True):
            outcomes[at] = error or _receipt(accepted[at], entry)
            if error is None and self.told is not None:
                self.told(errand.keys, Kept(accepted[at], entry, prior[at].record))
        return [outcome for outcome in outcomes if outcome is not None]

    def _living(
        self, one: Accepted, standalone: str | None, vector: Vector | None, past: Prior, errand: Errand
    ) -> NewEntry:
        """With the life that the request, the policy and the entry before it give."""
        ttl_s = ttl_of(one.request.ttl_s, one.query, one.policy, self._jitter)
        before = past.record if past.record and past.record.response == bytes(one.request.response) else None
        entry = _entry(one, before, standalone, vector, errand, ttl_s=ttl_s, now=self._clock())
        return entry._replace(record=lived(entry.record, past.record, one.policy))

    async def _prior(self, accepted: Sequence[Accepted], errand: Errand) -> list[Prior]:
        """What there is of each, also under a previous secret, in one round trip."""
        coming = [
            Coming(
                entry_ids=tuple(identity.entry_id for identity in one.query.identities),
                embedding=self._embeddings.name(one.text, errand.keys) if one.is_embedded else None,
                counted=one.policy.admit_after > 1,
                lookup=_lookup_of(one),
            )
            for one in accepted
        ]
        found = await self._responses.before(errand.keys, coming, errand.budget)
        now = self._clock()
        return [
            Prior(
                record=next((it for it in past.records if it and not is_over(it, one.policy, now)), None),
                attempts=past.attempts,
                newer=past.newer,
                kept=Wanted(one.text, wish.embedding, past.embedding),
                quarantined=past.quarantined,
            )
            for one, wish, past in zip(accepted, coming, found, strict=True)
        ]

    async def _standalone(self, accepted: Sequence[Accepted], errand: Errand) -> list[str | None]:
        """Each question with a history in words that need none; None: there are none, or nobody knows."""
        found = [own_words(one.query, one.policy) for one in accepted]
        wanted = [
            at
            for at, one in enumerate(accepted)
            if is_wanted(one.query, one.policy, found[at]) and not one.exact_only
        ]
        queries = [accepted[at].query for at in wanted]
        texts = await self._rewriting.texts(queries, errand.keys, errand.budget)
        for at, text in zip(wanted, texts, strict=True):
            if text is not None and self._embedder.unfit(text) is None:
                found[at] = text
        return found

    async def _vectors(
        self,
        accepted: Sequence[Accepted],
        standalone: Sequence[str | None],
        prior: Sequence[Prior],
        errand: Errand,
    ) -> list[Vector | EmbedderError | None]:
        """Given, kept, computed, or None for what the exact tier alone will serve."""
        vectors: list[Vector | EmbedderError | None] = [
            None if one.exact_only else one.query.vector for one in accepted
        ]
        words = {at: standalone[at] or one.text for at, one in enumerate(accepted) if one.is_embedded}
        wanted = {
            at: prior[at].kept if text == accepted[at].text else Wanted(text, None, None)
            for at, text in words.items()
        }
        found = await self._embeddings.vectors(list(wanted.values()), errand.keys, errand.work)
        for at, vector in zip(wanted, found, strict=True):
            vectors[at] = vector
        return vectors


def _entry(
    one: Accepted,
    before: Record | None,
    standalone: str | None,
    vector: Vector | None,
    errand: Errand,
    *,
    ttl_s: float | None,
    now: int,
) -> NewEntry:
    """`before` is the live one with the same answer: who stores it again may not know all it rests on."""
    request, identity, key = one.request, one.query.identities[0], errand.keys.current
    metadata = _json(request.metadata) if request.metadata is not None or before is None else before.metadata
    record = Record(
        entry_id=identity.entry_id,
        tenant=identity.tenant,
        scope=identity.scope,
        history=identity.history,
        agent_type=request.agent_type,
        model=request.model,
        prompt_version=request.prompt_version,
        temperature=request.temperature,
        attributes=request.attributes,
        text=one.query.text,
        messages=None if one.query.messages is None else _json(one.query.messages),
        response=bytes(request.response),
        metadata=metadata,
        sources=list(dict.fromkeys([*(before.sources if before else []), *request.sources])),
        tags=list(dict.fromkeys([*(before.tags if before else []), *request.tags])),
        usage=request.usage or (None if before is None else before.usage),
        embedding=None if vector is None else errand.generation.embedding,
        stored_at=now,
        expires_at=None if ttl_s is None else now + round(ttl_s * 1000),
        standalone=standalone,
        exact_only=one.exact_only,
    )
    tags = Tags(
        identity=identity,
        model=request.model and key.digest("model", request.model.encode()),
        prompt_version=request.prompt_version
        and key.digest("prompt_version", request.prompt_version.encode()),
        attributes=[
            *(key.digest("attribute", _json(pair)) for pair in request.attributes.items()),
            *one.query.marks,
        ],
        sources=[key.digest("source", source.encode()) for source in record.sources],
        tags=[key.digest("tag", tag.encode()) for tag in record.tags],
    )
    superseded = tuple(other.entry_id for other in one.query.identities[1:])
    hidden = vector is not None and one.explored
    return NewEntry(record, tags, vector, superseded, _lookup_of(one), hidden)


def _lookup_of(one: Accepted) -> Ticket | None:
    return None if one.request.lookup_id is None else ticket(one.request.lookup_id)


def _is_late(entry: NewEntry, newer: Newer | None) -> bool:
    """Whether what it rests on was invalidated since its lookup."""
    if newer is None or entry.lookup is None:
        return False
    return newer.refuses(subject_of(entry.record, entry.vector), entry.lookup)


def _receipt(one: Accepted, entry: NewEntry) -> Stored:
    record, why = entry.record, EXPLORED if entry.hidden else one.exact_only
    left = None if record.expires_at is None else (record.expires_at - record.stored_at) / 1000
    return Stored(
        stored=True,
        entry_id=record.entry_id,
        tiers=[Tier.EXACT] if why else list(one.policy.tiers),
        expires_in_s=left,
        exact_only=why or UNSET,
    )


def _checked_json(raw: msgspec.Raw) -> object:
    """The answer, decoded once to see that it is whole; msgspec skips over a Raw without looking inside."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("response", f"is no JSON: {error}") from None
