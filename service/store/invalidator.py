"""Invalidates: notes in the log, finds, deletes, page by page, and says how far it came."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from time import perf_counter

from service.cache.canonical import Vector
from service.cache.digests import TenantKeys
from service.cache.invalidation import Keyspace, Predicate, Where, everywhere, predicate, reaches
from service.cache.memory import Memory
from service.cache.ports import Budget, Clock, Embedder
from service.errors import InvalidInputError, StoreFullError, StoreUnavailableError
from service.store.client import Command, IndexMissingError, RedisClient, refusal
from service.store.finding import Finder, Found
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.store.reviews import RedisReviews
from service.telemetry import INVALIDATED

log = logging.getLogger(__name__)

PATIENCE_S = 25.0
DELETED_AT_ONCE = 50
"""Taking one vector out of the graph takes 0.3 ms, and Redis serves nobody meanwhile."""
ENTRY_S = 0.005
PASSES = 5
SAMPLE = 10


@dataclass
class Outcome:
    """What an invalidation did so far, by keyspace."""

    matched: Counter[Keyspace] = field(default_factory=Counter)
    deleted: Counter[Keyspace] = field(default_factory=Counter)
    sample: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    """Entries whose texts to be judged go with them."""

    def note(self, found: Sequence[Found]) -> None:
        """Count what was found; ids of embeddings would be of no use to anybody."""
        self.matched.update(one.keyspace for one in found if one.live)
        ids = [one.entry_id for one in found if one.keyspace is not Keyspace.EMBEDDINGS]
        self.sample += ids[: SAMPLE - len(self.sample)]


class Invalidator:
    """Deletes what predicates match."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        responses: RedisResponses,
        embedder: Embedder,
        *,
        reviews: RedisReviews,
        clock: Clock,
        redis_s: float,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory or Memory(0)
        self._redis = redis
        self._responses = responses
        self._finder = Finder(redis, keys, responses)
        self._embedder = embedder
        self._reviews = reviews
        self._clock = clock
        self._redis_s = redis_s

    async def predicates(
        self, wheres: Sequence[Where], keyspaces: Sequence[Keyspace] | None = None
    ) -> list[Predicate]:
        """Checked `Where`s as of now, their prompts embedded at once.

        Raises:
            InvalidInputError: a prompt can't be told apart by its vector.
            EmbedderError: the embedder is away.
        """
        prompts = [where.similar_to.prompt for where in wheres if where.similar_to is not None]
        for prompt in prompts:
            why = self._embedder.unfit(prompt)
            if why is not None or not prompt.strip():
                raise InvalidInputError(
                    "where.similar_to.prompt", f"has no meaning to compare: {why or 'blank'}"
                )
        vectors: Iterator[Vector] = iter(await self._embedder.embed(prompts) if prompts else ())
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return [
            predicate(where, keyspaces or everywhere(where), self._clock())
            if where.similar_to is None
            else predicate(
                where, keyspaces or everywhere(where), self._clock(), next(vectors), generation.embedding
            )
            for where in wheres
        ]

    def everything(self) -> Predicate:
        """Whatever the tenant has."""
        return Predicate(at=self._clock())

    async def run(
        self,
        keys: TenantKeys,
        predicates: Sequence[Predicate],
        *,
        dry_run: bool = False,
        noted: Sequence[Predicate] = (),
        keeps_texts: bool = False,
    ) -> Outcome:
        """Delete everything that matched when it began; `dry_run`: only find it.

        It is noted in the log before, for stores on their way, and once more behind: an answer that was made
        meanwhile may rest on a tool's result that was just going. `noted` is what the log gets instead of the
        predicates: as much, or more. What waits to be judged goes with its entry, unless `keeps_texts`.

        Raises:
            StoreUnavailableError: Redis failed, or time ran out; says how many were deleted.
        """
        begun, outcome = perf_counter(), Outcome()
        try:
            if not dry_run:
                with suppress(StoreFullError):  # deleting makes room, and it is noted again
                    await self._note(keys, noted or predicates)
                if not keeps_texts:
                    outcome.texts = await self._reviews.entries(keys)
            for one in predicates:
                for keyspace in Keyspace:
                    if reaches(one, keyspace):
                        await self._sweep(keys, one, keyspace, outcome, begun + PATIENCE_S, dry_run=dry_run)
            if not dry_run:
                await self._note(keys, noted or predicates)
        except StoreUnavailableError as error:
            if dry_run:
                raise
            raise _interrupted(error, outcome) from error
        finally:
            if not dry_run:
                self._memory.doubt(keys.tenant)
                _tell(outcome, perf_counter() - begun)
        return outcome

    async def _note(self, keys: TenantKeys, predicates: Sequence[Predicate]) -> None:
        budget = Budget(self._redis_s)
        await self._responses.invalidations.note(keys, predicates, self._clock(), budget)

    async def _sweep(
        self,
        keys: TenantKeys,
        one: Predicate,
        keyspace: Keyspace,
        outcome: Outcome,
        until: float,
        *,
        dry_run: bool,
    ) -> None:
        """Until a pass finds nothing: a cursor may skip a document while Redis clears up behind deleted ones.

        Not for ever, because new ones may come in that nobody asked to delete.
        """
        for turn in range(PASSES):
            before, sample = outcome.matched.copy(), [*outcome.sample]
            try:
                await self._pass(keys, one, keyspace, outcome, until, dry_run=dry_run)
            except IndexMissingError:
                if turn + 1 == PASSES:
                    raise
                if dry_run:  # it is all found again
                    outcome.matched, outcome.sample = before, sample
                await self._responses.refresh()  # a migration dropped it
                continue
            if dry_run or outcome.matched == before:
                return

    async def _pass(
        self,
        keys: TenantKeys,
        one: Predicate,
        keyspace: Keyspace,
        outcome: Outcome,
        until: float,
        *,
        dry_run: bool,
    ) -> None:
        async with aclosing(self._finder.pages(keys, one, keyspace)) as pages:
            async for page in pages:
                outcome.note(page)
                if not dry_run:
                    if gone := outcome.texts.intersection(it.entry_id for it in page):
                        await self._reviews.forget(keys, gone)
                    await self._delete(page, outcome, until)
                _check_time(until)

    async def _delete(self, page: Sequence[Found], outcome: Outcome, until: float) -> None:
        for at in range(0, len(page), DELETED_AT_ONCE):
            some = page[at : at + DELETED_AT_ONCE]
            commands: list[Command] = [("UNLINK", *one.keys) for one in some]
            commands += [("ZREM", *one.listed) for one in some if one.listed is not None]
            replies = await self._redis.run(commands, Budget(self._redis_s + ENTRY_S * len(some)))
            for one, reply in zip(some, replies, strict=False):
                if isinstance(reply, int) and reply > 0:  # keys
                    outcome.deleted[one.keyspace] += 1
            error = next((reply for reply in replies if isinstance(reply, Exception)), None)
            if error is not None:
                raise refusal(error)
            _check_time(until)
            await asyncio.sleep(0)  # lookups have their turn


def _check_time(until: float) -> None:
    if perf_counter() > until:
        raise StoreUnavailableError(
            f"it took longer than {PATIENCE_S:.0f} s; a source, tag or agent_type beside it shortens it"
        )


def _interrupted(error: StoreUnavailableError, outcome: Outcome) -> StoreUnavailableError:
    deleted = outcome.deleted.total()
    told = f"interrupted ({error}); at least {deleted} entries were deleted: run it again to go on"
    return type(error)(told)


def _tell(outcome: Outcome, seconds: float) -> None:
    """Numbers only: what was asked for may be a user's text."""
    for keyspace, count in outcome.deleted.items():
        INVALIDATED.labels(keyspace.value).inc(count)
    counts = ", ".join(f"{keyspace} {outcome.deleted[keyspace]}" for keyspace in Keyspace)
    log.info("invalidated %s of %d found in %.0f ms", counts, outcome.matched.total(), seconds * 1000)
