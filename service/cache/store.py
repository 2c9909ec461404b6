"""A store: who the entry is, how long it lives, what it is found by."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from service.cache import canonical
from service.cache.admission import refusal_of
from service.cache.bypass import passed_by
from service.cache.canonical import Query, Vector
from service.cache.digests import TenantKeys
from service.cache.lifetime import Jitter, is_over, lived, ttl_of
from service.cache.ports import Budget, Clock, Embedder, NewEntry, Policies, Responses, Tags, Work
from service.cache.rewriting import Rewriting, is_wanted, own_words
from service.errors import EmbedderError, InvalidInputError, SemcachedError, StoreUnavailableError
from service.model import Generation, Policy, Record, Refused, Stored, StoreRequest, Tier

ITEM_S = 0.008
"""What each further item of a batch adds to the time for Redis: inserting into a graph is slow."""

EARLY = Refused(stored=False, reason="admit_after")

_json = msgspec.json.Encoder().encode


class Accepted(NamedTuple):
    """A request that may be stored."""

    request: StoreRequest
    query: Query
    exact_only: str | None
    policy: Policy


class Store:
    """Stores entries."""

    def __init__(
        self,
        responses: Responses,
        embedder: Embedder,
        *,
        policies: Policies,
        rewriting: Rewriting,
        clock: Clock,
        redis_s: float,
        jitter: Jitter = random.random,
    ) -> None:
        self._responses = responses
        self._embedder = embedder
        self._policies = policies
        self._rewriting = rewriting
        self._clock = clock
        self._redis_s = redis_s
        self._jitter = jitter

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
        before, counts = await self._before(accepted, keys, budget)
        due = [
            at
            for at, (one, record, count) in enumerate(zip(accepted, before, counts, strict=True))
            if record is not None or count >= one.policy.admit_after
        ]
        stored = await self._stored(
            [accepted[at] for at in due],
            [before[at] for at in due],
            keys,
            generation=generation,
            budget=budget,
            work=work or Work(),
        )
        outcomes: list[Stored | Refused | SemcachedError] = [EARLY] * len(accepted)
        for at, outcome in zip(due, stored, strict=True):
            outcomes[at] = outcome
        return outcomes

    async def _stored(
        self,
        accepted: Sequence[Accepted],
        before: Sequence[Record | None],
        keys: TenantKeys,
        *,
        generation: Generation,
        budget: Budget,
        work: Work,
    ) -> list[Stored | SemcachedError]:
        """What became of each; `before` are the live entries that they take the place of."""
        standalone = await self._standalone(accepted, keys, budget)
        outcomes: list[Stored | SemcachedError | None] = [None] * len(accepted)
        entries: dict[int, NewEntry] = {}
        for at, vector in enumerate(await self._vectors(accepted, standalone, work)):
            if isinstance(vector, EmbedderError):
                outcomes[at] = vector
            elif vector is not None and vector.size != generation.dim:  # given before the index was known
                outcomes[at] = InvalidInputError("embedding", f"the index has {generation.dim} values")
            else:
                one = accepted[at]
                ttl_s = ttl_of(one.request.ttl_s, one.query, one.policy, self._jitter)
                entry = _entry(one, standalone[at], vector, keys, generation, ttl_s=ttl_s, now=self._clock())
                entries[at] = entry._replace(record=lived(entry.record, before[at], one.policy))
        errors = await self._responses.put(keys, list(entries.values()), budget)
        for (at, entry), error in zip(entries.items(), errors, strict=True):
            outcomes[at] = error or _receipt(accepted[at], entry.record)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _before(
        self, accepted: Sequence[Accepted], keys: TenantKeys, budget: Budget
    ) -> tuple[list[Record | None], list[int]]:
        """The live entries that the new ones take the place of, also those under a previous secret.

        And the how manieth attempt each is, where its policy counts, else 1.
        """
        ids = [[identity.entry_id for identity in one.query.identities] for one in accepted]
        counted = [each[0] for each, one in zip(ids, accepted, strict=True) if one.policy.admit_after > 1]
        read, attempts = await self._responses.attempted(
            keys, [one for each in ids for one in each], counted, budget
        )
        records, counts, now = iter(read), iter(attempts), self._clock()
        found = [[next(records) for _ in each] for each in ids]
        live = [
            next((record for record in each if record and not is_over(record, one.policy, now)), None)
            for each, one in zip(found, accepted, strict=True)
        ]
        return live, [next(counts) if one.policy.admit_after > 1 else 1 for one in accepted]

    async def _standalone(
        self, accepted: Sequence[Accepted], keys: TenantKeys, budget: Budget
    ) -> list[str | None]:
        """Each question with a history in words that need none; None: there are none, or nobody knows."""
        found = [own_words(one.query, one.policy) for one in accepted]
        wanted = [
            at
            for at, one in enumerate(accepted)
            if is_wanted(one.query, one.policy, found[at]) and not one.exact_only
        ]
        queries = [accepted[at].query for at in wanted]
        for at, text in zip(wanted, await self._rewriting.texts(queries, keys, budget), strict=True):
            if text is not None and self._embedder.unfit(text) is None:
                found[at] = text
        return found

    async def _vectors(
        self, accepted: Sequence[Accepted], standalone: Sequence[str | None], work: Work
    ) -> list[Vector | EmbedderError | None]:
        """Given, computed, or None for what the exact tier alone will serve."""
        vectors: list[Vector | EmbedderError | None] = [
            None if one.exact_only else one.query.vector for one in accepted
        ]
        texts = {
            at: standalone[at] or one.query.text
            for at, one in enumerate(accepted)
            if one.query.vector is None and one.exact_only is None and one.query.text is not None
        }
        if texts:
            try:
                computed: Sequence[Vector | EmbedderError] = list(
                    await self._embedder.embed(list(texts.values()), work)
                )
            except EmbedderError as error:
                computed = [error] * len(texts)
            for at, vector in zip(texts, computed, strict=True):
                vectors[at] = vector
        return vectors


def _entry(
    one: Accepted,
    standalone: str | None,
    vector: Vector | None,
    keys: TenantKeys,
    generation: Generation,
    *,
    ttl_s: float | None,
    now: int,
) -> NewEntry:
    request, identity, key = one.request, one.query.identities[0], keys.current
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
        metadata=_json(request.metadata),
        sources=list(dict.fromkeys(request.sources)),
        tags=list(dict.fromkeys(request.tags)),
        usage=request.usage,
        embedding=None if vector is None else generation.embedding,
        stored_at=now,
        expires_at=None if ttl_s is None else now + round(ttl_s * 1000),
        standalone=standalone,
    )
    tags = Tags(
        identity=identity,
        model=request.model and key.digest("model", request.model.encode()),
        prompt_version=request.prompt_version
        and key.digest("prompt_version", request.prompt_version.encode()),
        attributes=[key.digest("attribute", _json(pair)) for pair in request.attributes.items()],
        sources=[key.digest("source", source.encode()) for source in record.sources],
        tags=[key.digest("tag", tag.encode()) for tag in record.tags],
    )
    return NewEntry(record, tags, vector, tuple(other.entry_id for other in one.query.identities[1:]))


def _receipt(one: Accepted, record: Record) -> Stored:
    left = None if record.expires_at is None else (record.expires_at - record.stored_at) / 1000
    return Stored(
        stored=True,
        entry_id=record.entry_id,
        tiers=[Tier.EXACT] if one.exact_only else list(one.policy.tiers),
        expires_in_s=left,
        exact_only=one.exact_only or UNSET,
    )


def _checked_json(raw: msgspec.Raw) -> object:
    """The answer, decoded once to see that it is whole; msgspec skips over a Raw without looking inside."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("response", f"is no JSON: {error}") from None
