"""The entries of the keyspace `responses`: records and index documents."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from service.cache.canonical import Vector
from service.cache.digests import TenantKeys, partition_of
from service.cache.invalidation import subject_of
from service.cache.ports import Budget, Coming, First, Found, NewEntry, Search, Sought
from service.errors import LayoutError, SemcachedError, StoreUnavailableError
from service.model import INVALIDATED, Candidate, Generation, Record, Refused
from service.store.client import (
    Command,
    IndexMissingError,
    RedisClient,
    RedisRefusedError,
    outcome,
    refusal,
    value_of,
)
from service.store.forms import Forms
from service.store.invalidations import RedisInvalidations
from service.store.keys import Keys, entry_id_of
from service.store.layout import Layout, read_generation
from service.store.live import fitting, read_live
from service.store.records import seal, unseal
from service.store.searches import SEARCH_TIMEOUT_MS, Searches, any_of, marks_clauses, when
from service.store.spaces import Spaces
from service.store.vectors import packed
from service.telemetry import INDEX_DOCUMENTS, INDEX_FAILURES

NO_END_MS = 2**53
TAGS = ("tenant", "agent_type", "scope", "history")
"""The tags that searches filter by."""
RELOAD_S = 1.0
MEASURE_S = 5.0
COUNTED_S = 86_400
CHANGES = 5
"""How often a store is written again because another generation became live meanwhile."""
COUNTING = 4
"""Commands that count one attempt."""


class RedisResponses:
    """Reads and writes entries; follows the generation record."""

    def __init__(self, redis: RedisClient, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._layout: Layout | None = None
        self._generation: Generation | None = None
        self._last: Generation | None = None  # also while nothing is served
        self._forms = Forms()
        self.spaces = Spaces(keys)
        self.invalidations = RedisInvalidations(redis, keys, self.partition)

    @property
    def generation(self) -> Generation | None:
        """What the semantic tier runs on."""
        return self._generation

    @property
    def partitions(self) -> int:
        """How many the layout has.

        Raises:
            StoreUnavailableError: nothing is served now.
        """
        self._current()
        return self._layout.partitions if self._layout else 0

    def follow(self, layout: Layout, generation: Generation, *, graph: bool = True) -> None:
        """Start serving from a layout that was found fitting; `graph`: its indexes are walked, not read."""
        self._forms.walks = graph
        self._layout, self._generation, self._last = layout, generation, generation

    def leave(self) -> None:
        """Stop serving: what is there doesn't fit, or isn't there any more."""
        self._generation = None

    async def records(
        self, keys: TenantKeys, entry_ids: Sequence[str], budget: Budget
    ) -> list[Record | None]:
        """See `cache.ports.Responses`."""
        if not entry_ids:
            return []
        partition = self.partition(keys)
        blobs = await self._blobs([self._keys.record(partition, one) for one in entry_ids], budget)
        return [unseal(blob, entry_id, keys) for entry_id, blob in zip(entry_ids, blobs, strict=True)]

    async def first(
        self,
        keys: TenantKeys,
        sought: Sequence[Sought],
        budget: Budget,
    ) -> tuple[list[First], int]:
        """See `cache.ports.Responses`."""
        partition, names = self.partition(keys), self._keys
        documents = names.documents(partition, self.followed)
        read: list[str] = ["MGET", names.invalidations_number(partition)]
        commands: list[Command] = []
        for one in sought:
            for entry_id in one.entry_ids:
                read.append(names.record(partition, entry_id))
                commands.append(stored_when(documents + entry_id))
                if one.pointed:
                    read.append(names.pointer(partition, entry_id))
            if one.embedding is not None:
                read.append(names.embedding(partition, one.embedding))
        commands.insert(0, tuple(read))
        wanted = [one.search for one in sought if one.search is not None]
        pages: Iterator[list[Candidate] | Exception] = iter(())
        if wanted and self._generation is not None:
            searches = self._searches(keys, wanted)
            told = await self._sent(commands, searches, budget)
            pages = iter(searches.pages(told[len(commands) :]))
        else:
            told = await self._redis.run(commands, budget)
        replies = iter(told)
        blobs = iter(value_of(next(replies)))
        number = number_of(next(blobs))
        return [_first(one, blobs, replies, pages, keys) for one in sought], number

    async def _blobs(self, names: Sequence[str], budget: Budget) -> list[bytes | None]:
        """One command, whose one reply costs less to read than many; a key of another type has no value."""
        (reply,) = await self._redis.run([("MGET", *names)], budget)
        blobs: list[bytes | None] = value_of(reply)
        return blobs

    async def before(self, keys: TenantKeys, coming: Sequence[Coming], budget: Budget) -> list[Found]:
        """See `cache.ports.Responses`. What can't be counted, because something else lies there, is 0."""
        partition = self.partition(keys)
        ids = [
            (entry_id, self._keys.record(partition, entry_id)) for one in coming for entry_id in one.entry_ids
        ]
        vectors = [self._keys.embedding(partition, one.embedding) for one in coming if one.embedding]
        commands: list[Command] = [("MGET", *(key for _, key in ids), *vectors)]
        commands += [self._quarantined(partition, one.entry_ids) for one in coming]
        for one in coming:
            commands += _counting(self._keys.asked(partition, one.entry_ids[0])) if one.counted else []
            commands += self.invalidations.since_commands(keys, one.lookup) if one.lookup else []
        blobs, *others = await self._redis.run(commands, budget)
        values, said = iter(value_of(blobs)), iter(others)
        marked = [value_of(one) > 0 for one in islice(said, len(coming))]
        records = [[unseal(next(values), entry_id, keys) for entry_id in one.entry_ids] for one in coming]
        return [
            Found(
                records=found,
                embedding=next(values) if one.embedding else None,
                attempts=_count(list(islice(said, COUNTING))) if one.counted else 1,
                newer=self.invalidations.newer(keys, list(islice(said, len(keys.keys))))
                if one.lookup
                else None,
                quarantined=mark,
            )
            for one, found, mark in zip(coming, records, marked, strict=True)
        ]

    async def nearest(
        self, keys: TenantKeys, searches: Sequence[Search], budget: Budget
    ) -> list[list[Candidate]]:
        """See `cache.ports.Responses`."""
        try:
            return await self._nearest(keys, searches, budget)
        except RedisRefusedError as error:
            if not await self._moved(error, budget):
                raise
            return await self._nearest(keys, searches, budget)

    async def _nearest(
        self, keys: TenantKeys, searches: Sequence[Search], budget: Budget
    ) -> list[list[Candidate]]:
        asked = self._searches(keys, searches)
        replies = await self._sent([], asked, budget)
        return [value_of(page) for page in asked.pages(replies)]

    def _searches(self, keys: TenantKeys, searches: Sequence[Search]) -> Searches:
        generation = self._current()
        index = self._keys.index(self.partition(keys), generation)
        return Searches(searches, index, generation, self._forms)

    async def _sent(self, before: Sequence[Command], searches: Searches, budget: Budget) -> list[Any]:
        """Their replies, in one round trip."""
        try:
            return await self._redis.run([*before, *searches.commands], budget, lane="search")
        except StoreUnavailableError:
            searches.doubt()
            raise

    async def marked(
        self, keys: TenantKeys, marks: Sequence[Sequence[str]], most: int, live_at: int, budget: Budget
    ) -> list[tuple[str, int]]:
        """See `cache.ports.Responses`."""
        try:
            return await self._marked(keys, marks, most, live_at, budget)
        except RedisRefusedError as error:
            if not await self._moved(error, budget):
                raise
            return await self._marked(keys, marks, most, live_at, budget)

    async def _marked(
        self, keys: TenantKeys, marks: Sequence[Sequence[str]], most: int, live_at: int, budget: Budget
    ) -> list[tuple[str, int]]:
        index = self._keys.index(self.partition(keys), self._current())
        params: dict[str, str | bytes | int] = {"now": live_at}
        clauses = [any_of("tenant", [key.tenant for key in keys.keys], params), *marks_clauses(marks, params)]
        named = [part for pair in params.items() for part in pair]
        command: Command = ("FT.SEARCH", index, f"{' '.join(clauses)} @expires_at:[($now inf]")
        command += ("PARAMS", len(named), *named, "SORTBY", "stored_at", "DESC", "RETURN", 1, "stored_at")
        command += ("LIMIT", 0, most, "TIMEOUT", SEARCH_TIMEOUT_MS, "DIALECT", 2)
        (reply,) = await self._redis.values([command], budget)
        rows = zip(reply[1::2], reply[2::2], strict=True)
        return [(entry_id_of(key), when(fields[1])) for key, fields in rows if fields]  # else it has expired

    async def put(
        self, keys: TenantKeys, entries: Sequence[NewEntry], budget: Budget
    ) -> list[SemcachedError | Refused | None]:
        """See `cache.ports.Responses`. Each entry is a transaction of its own.

        One that follows a lookup takes two: first its documents, by which an invalidation finds it; then, if
        none came in between, the record, without which it isn't served. Where the live generations turn out
        to be others, it is all written again. One that was found wrong meanwhile is taken away again.
        """
        if not entries:
            return []
        for _ in range(CHANGES):
            outcomes = await self._put(keys, entries, budget)
            if outcomes is not None:
                return outcomes
        raise StoreUnavailableError("the live generations change all the time")

    async def _put(
        self, keys: TenantKeys, entries: Sequence[NewEntry], budget: Budget
    ) -> list[SemcachedError | Refused | None] | None:
        """None: the live generations are others."""
        partition, log = self.partition(keys), self.invalidations
        live, used = self.spaces.of(partition, self._current()), self.spaces.told(partition)
        steps: list[list[Command]] = []
        for entry in entries:
            gone = self._place(partition, live, entry)
            found = self._findable(partition, live, entry)
            record = [] if entry.lookup else self._recorded(partition, entry, keys)
            steps.append([("MULTI",), gone, *found, *record, ("EXEC",)])
        asked = [log.since_commands(keys, one.lookup) if one.lookup else [] for one in entries]
        sent = [[*step, *ask] for step, ask in zip(steps, asked, strict=True)]
        commands = [*(command for each in sent for command in each), self.spaces.asked(partition)]
        *told, said = await self._redis.run(commands, budget)
        if self.spaces.hear(partition, said) != used:
            return None
        replies = iter(told)
        outcomes: list[SemcachedError | Refused | None] = []
        for entry, step, ask in zip(entries, steps, asked, strict=True):
            done = list(islice(replies, len(step)))
            failed = outcome(done)
            newer = log.newer(keys, list(islice(replies, len(ask)))) if ask else None
            if newer is not None and entry.lookup is not None:
                late = newer.refuses(subject_of(entry.record, entry.vector), entry.lookup)
            else:
                late = failed is None and _is_quarantined(entry, done[-1][-1])
            outcomes.append(failed or (INVALIDATED if late else None))
        return await self._finish(keys, [*zip(entries, outcomes, strict=True)], live, budget)

    async def _finish(
        self,
        keys: TenantKeys,
        entries: Sequence[tuple[NewEntry, SemcachedError | Refused | None]],
        live: Sequence[Generation],
        budget: Budget,
    ) -> list[SemcachedError | Refused | None]:
        """The second step of those that follow a lookup: the record. Of what came too late: its end.

        What Redis refused changed nothing: the entry that was there before stays.
        """
        partition = self.partition(keys)
        steps: list[list[Command]] = [
            []
            if entry.lookup is None or failed is not None
            else [
                *self._recorded(partition, entry, keys),
                ("UNLINK", self._keys.lease(partition, entry.record.entry_id)),
            ]
            for entry, failed in entries
        ]
        replies = iter(await self._redis.values([one for step in steps for one in step], budget))
        outcomes: list[SemcachedError | Refused | None] = []
        for (entry, failed), step in zip(entries, steps, strict=True):
            done = list(islice(replies, len(step)))
            outcomes.append(INVALIDATED if done and _is_quarantined(entry, done[1]) else failed)
        late = [entry for (entry, _), one in zip(entries, outcomes, strict=True) if one == INVALIDATED]
        gone = [self._keys.record(partition, one.record.entry_id) for one in late]
        gone += [self._keys.document(partition, it, one.record.entry_id) for one in late for it in live]
        if gone:
            await self._redis.values([("UNLINK", *gone)], budget)
        return outcomes

    def _place(self, partition: int, live: Sequence[Generation], entry: NewEntry) -> Command:
        """Away with what was there: no field of an older document stays, no answer that loses its document.

        A lease goes with the answer.
        """
        ids = [entry.record.entry_id, *entry.superseded]
        gone = [self._keys.document(partition, one, entry_id) for one in live for entry_id in ids]
        gone += [self._keys.record(partition, one) for one in ids]
        gone += [] if entry.lookup else [self._keys.lease(partition, entry.record.entry_id)]
        return ("UNLINK", *gone)

    def _findable(self, partition: int, live: Sequence[Generation], entry: NewEntry) -> Iterator[Command]:
        """A document of each live generation, with its end; what lacks another model's vector waits."""
        end, ours = entry.record.expires_at, self._current().embedding
        for one in live:
            document = self._keys.document(partition, one, entry.record.entry_id)
            vector = entry.vector if one.embedding == ours and not entry.hidden else None
            yield ("HSET", document, *_document(entry, vector, one))
            if end is not None:
                yield ("PEXPIREAT", document, end)
            if vector is None and entry.vector is not None and not entry.hidden:
                queue = self._keys.pending(partition, one)
                yield ("ZADD", queue, entry.record.stored_at, entry.record.entry_id)

    def _recorded(self, partition: int, entry: NewEntry, keys: TenantKeys) -> list[Command]:
        """The record, and behind it the question whether the entry was quarantined by now.

        Who quarantines marks first and deletes then: either the mark is seen here, or the record there.
        """
        record, end = entry.record, entry.record.expires_at
        key = self._keys.record(partition, record.entry_id)
        return [
            ("SET", key, seal(record, keys.current), *(() if end is None else ("PXAT", end))),
            self._quarantined(partition, (record.entry_id, *entry.superseded)),
        ]

    def _quarantined(self, partition: int, entry_ids: Sequence[str]) -> Command:
        """Asks how many marks there are of an entry, under each secret."""
        return ("EXISTS", *(self._keys.quarantine(partition, one) for one in entry_ids))

    async def usable(self) -> None:
        """Search the index for what isn't there, which takes no longer on a large one.

        Raises:
            StoreUnavailableError: says what is wrong.
        """
        generation, partitions = self._current(), self.partitions
        indexes = [self._keys.index(one, generation) for one in range(partitions)]
        indexes += [self._keys.tool_index(one) for one in range(partitions)]
        try:
            query = ("@tenant:{none}", "LIMIT", 0, 0, "DIALECT", 2)
            await self._redis.values([("FT.SEARCH", one, *query) for one in indexes])
        except RedisRefusedError as error:
            if not await self._moved(error, Budget(RELOAD_S)):
                raise

    async def measure(self) -> None:
        """Set the gauges of the index.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        generation, partitions = self._current(), self.partitions
        indexes = [self._keys.index(one, generation) for one in range(partitions)]
        replies = await self._redis.values([("FT.INFO", name) for name in indexes], Budget(MEASURE_S))
        told = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
        INDEX_FAILURES.set(sum(int(one[b"hash_indexing_failures"]) for one in told))
        INDEX_DOCUMENTS.set(sum(int(one[b"num_docs"]) for one in told))

    async def _moved(self, error: RedisRefusedError, budget: Budget) -> bool:
        """Whether a migration has published another generation for our embedder's vectors; it is followed.

        Where there is none, or the index is gone, we stop serving: whoever attached us has to look.
        """
        before = self._current()
        await self.refresh(budget)
        if self._generation is not None and self._generation != before:
            return True
        if isinstance(error, IndexMissingError):
            self.leave()
        return False

    async def refresh(self, budget: Budget | None = None) -> None:
        """Follow what a migration published, as far as it is for our embedder's vectors; else stop serving.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        before = self._current()
        partitions = range(self.partitions)
        for partition, raw in zip(
            partitions, await read_live(self._redis, self._keys, partitions, budget), strict=True
        ):
            self.spaces.hear(partition, raw)
        try:
            now = await read_generation(self._redis, self._keys, budget)
        except LayoutError:  # a later version's
            now = None
        found = fitting(now, self.spaces.live, before.embedding)
        if found is None:
            self.leave()
        elif self._generation is not None and found != before:
            self._forms.walks = not any(found.index in one.flat for one in self.spaces.live)
            self._generation = self._last = found

    @property
    def followed(self) -> Generation:
        """The one served from, or served from last: the exact tier goes on without an index.

        Raises:
            StoreUnavailableError: there was none yet.
        """
        return self._last or self._current()

    def _current(self) -> Generation:
        if self._generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return self._generation

    def partition(self, keys: TenantKeys) -> int:
        """The tenant's.

        Raises:
            StoreUnavailableError: Redis was not reached yet.
        """
        if self._layout is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return partition_of(keys.tenant, self._layout.partitions)


def _first(
    sought: Sought,
    blobs: Iterator[bytes | None],
    times: Iterator[Any],
    pages: Iterator[list[Candidate] | Exception],
    keys: TenantKeys,
) -> First:
    """The next of what was read, in the order in which it was asked for."""
    records: list[Record | None] = []
    pointers: list[bytes | None] = []
    for entry_id in sought.entry_ids:
        record, time = unseal(next(blobs), entry_id, keys), next(times)
        records.append(record if record is not None and is_whole(record.stored_at, time) else None)
        if sought.pointed:
            pointers.append(next(blobs))
    embedding = None if sought.embedding is None else next(blobs)
    near = None if sought.search is None else next(pages, None)
    return First(
        records,
        embedding,
        pointers if sought.pointed else None,
        None if isinstance(near, Exception) else near,  # `nearest` finds out why
    )


def stored_when(document: str) -> Command:
    """Asks a document when it was stored, for `is_whole`; in a pipeline that is sent anyway."""
    return ("HGET", document, "stored_at")


def is_whole(stored_at: int, told: Any) -> bool:
    """Whether a record has its document: only that lets an invalidation find it.

    Redis evicts them one by one, and a store may have been cut off between the two.
    """
    return isinstance(told, bytes) and told == b"%d" % stored_at


def number_of(blob: bytes | None) -> int:
    """The number of the last invalidation, in ms since 1970; 0: there was none, or nobody knows."""
    return int(blob) if blob is not None and blob.isdigit() else 0


def _is_quarantined(entry: NewEntry, marks: int) -> bool:
    """Whether it must not be found by its vector, by how many marks there are."""
    return entry.vector is not None and marks > 0


def _counting(key: str) -> list[Command]:
    """One more, in a transaction, so that no number stays without an end."""
    return [("MULTI",), ("INCR", key), ("EXPIRE", key, COUNTED_S, "NX"), ("EXEC",)]


def _count(replies: list[Any]) -> int:
    """What the transaction of `_counting` says.

    Raises:
        StoreUnavailableError: it was refused.
    """
    refused = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if refused is not None:
        raise refusal(refused)
    count = replies[-1][0]
    return count if isinstance(count, int) else 0


def _document(entry: NewEntry, vector: Vector | None, generation: Generation) -> Command:
    tags, record = entry.tags, entry.record
    fields: dict[str, str | bytes | int | None] = {
        "tenant": tags.identity.tenant,
        "agent_type": tags.identity.agent_type,
        "scope": tags.identity.scope,
        "history": tags.identity.history,
        "model": tags.model,
        "prompt_version": tags.prompt_version,
        "attribute": ",".join(tags.attributes),
        "source": ",".join(tags.sources),
        "tag": ",".join(tags.tags),
        "stored_at": record.stored_at,
        "expires_at": NO_END_MS if record.expires_at is None else record.expires_at,
        "vector": None if vector is None else checked_bytes(vector, tags.identity.scope, generation),
    }
    return tuple(part for name, value in fields.items() if value for part in (name, value))


def checked_bytes(vector: Vector, scope: str, generation: Generation) -> bytes:
    """As the generation keeps it. NaN and zero vectors spoil a graph for every neighbour."""
    norm = float(vector @ vector)
    if vector.ndim != 1 or not 0.999 < norm < 1.001:  # noqa: PLR2004 - false for NaN
        raise ValueError(f"a vector of squared norm {norm} must not reach the index")
    return packed(vector, scope, generation)
