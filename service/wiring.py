"""Where the parts meet: settings in, working parts out. For `app` and `cli` only."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from service import migrate
from service.cache import prices
from service.cache.accounting import Accounting
from service.cache.comparing import Comparing
from service.cache.digests import Keyring
from service.cache.embeddings import Embeddings, embeddings
from service.cache.faceted import FacetedLookup
from service.cache.leases import Leases, leases
from service.cache.lookup import Lookup
from service.cache.memory import Memory
from service.cache.pointers import Pointers, pointers
from service.cache.ports import Embedder, Judge, Policies, Rewriter, Verifier
from service.cache.rewriting import rewriting
from service.cache.store import Store
from service.cache.tools import Tools
from service.cache.usage import Uses
from service.embedders.batching import Model, batching
from service.errors import LayoutError, SettingsError, StoreUnavailableError
from service.judges import llm as judges_of
from service.migrate.draining import Draining
from service.model import Generation
from service.providers.upstream import upstream
from service.proxy.passage import Passage
from service.rewriters import llm as rewriters
from service.settings import SHORTEST_SECRET, Settings
from service.store.bounds import Bounds, holding
from service.store.client import RedisClient, connected
from service.store.decisions import RedisDecisions
from service.store.embeddings import RedisEmbeddings
from service.store.entries import Entries
from service.store.fresh import Comparer
from service.store.index import (
    as_found,
    cuts_off_silently,
    ensure_indexes,
    ensure_tool_indexes,
    load_schema,
)
from service.store.invalidator import Invalidator
from service.store.judging import Judging
from service.store.keys import Keys
from service.store.layout import check_secret, read_layout
from service.store.learning import RedisLearning
from service.store.leases import RedisLeases
from service.store.ledger import Ledger
from service.store.live import generations_of
from service.store.outcomes import RedisOutcomes
from service.store.pending import Pending
from service.store.pointers import RedisPointers
from service.store.policies import RedisPolicies
from service.store.processes import Processes
from service.store.quarantine import RedisQuarantine
from service.store.rates import Rates
from service.store.responses import RedisResponses
from service.store.revealing import Revealing
from service.store.reviews import RedisReviews
from service.store.rewritings import RedisRewritings
from service.store.rules import RedisRules
from service.store.stats import RedisStats
from service.store.tools import RedisTools
from service.store.tracking import tracking
from service.store.usage import RedisUsage
from service.verifiers import threaded

SECRET_BYTES = 32

L = TypeVar("L", bound=Lookup)


@dataclass(frozen=True)
class Parts:
    """A working service without its HTTP."""

    settings: Settings
    keyring: Keyring
    redis: RedisClient
    embedder: Embedder
    responses: RedisResponses
    processes: Processes
    draining: Draining
    policies: RedisPolicies
    rates: Rates
    leases: Leases
    embeddings: Embeddings
    invalidator: Invalidator
    judging: Judging
    learning: RedisLearning
    comparer: Comparer
    rules: RedisRules
    entries: Entries
    memory: Memory
    lookup: Lookup
    faceted: FacetedLookup
    store: Store
    tools: Tools
    accounting: Accounting
    ledger: Ledger
    passage: Passage

    @property
    def target(self) -> migrate.Target:
        """What a migration works on."""
        embedder = self.embedder
        model = migrate.Model(embedder.model, embedder.revision, embedder.dim)
        keys = Keys(self.settings.key_prefix)
        return migrate.Target(self.redis, keys, self.keyring, self.settings, model, embedder)

    async def measure(self, *, ask: bool = False) -> None:
        """Know the embedder's dimension.

        The index has it, so that a service starts while the embedder is away; else the embedder is asked, of
        an index of another model's if `ask`.

        Raises:
            StoreUnavailableError: Redis does not answer.
            EmbedderError: the embedder does not.
        """
        embedder = self.embedder
        if embedder.dim is not None:
            return
        generations = await generations_of(self.redis, self.target.keys)
        for one in generations:
            if (one.model, one.revision) == (embedder.model, embedder.revision):
                embedder.dim = one.dim
        if embedder.dim is None and (ask or not generations):
            await embedder.embed(["warm up"])

    async def attach(self, report: Callable[[str], None]) -> None:
        """Set up an empty Redis, check that a used one is ours, and start serving from it.

        Raises:
            StoreUnavailableError: Redis does not answer; try again later.
            EmbedderError: an empty Redis needs an embedder that answers; try again later.
            StartupError: it never will fit this program.
        """
        await self.measure()
        await migrate.up_if_empty(self.target, report)
        keys = self.target.keys
        layout = await read_layout(self.redis, keys)
        if layout is None:
            raise LayoutError("the layout is incomplete: run `semcached migrate up`")
        layout = await check_secret(self.redis, keys, layout, self.keyring)
        generation = await self._fitting(keys)
        schema = load_schema(self.settings.schema_dir / "responses.yaml", generation.dim)
        async with self.processes.attaching(generation.number):
            await ensure_indexes(self.redis, keys, generation, layout.partitions, schema)
        found, graph = await as_found(self.redis, keys, generation, layout.partitions)
        if found != generation:
            raise LayoutError(
                f"the index holds {found.datatype} vectors, the generation's record says "
                f"{generation.datatype}, or they differ in places: FT.DROPINDEX it, and it is made anew"
            )
        tools = load_schema(self.settings.schema_dir / "tools.yaml")
        await ensure_tool_indexes(self.redis, keys, layout.partitions, tools)
        if await self.rates.prepare(needed=self.settings.rate_limit > 0):
            report("loaded the function that counts for rate limits")
        if await cuts_off_silently(self.redis):
            report("this Redis cuts long searches off silently: FT.CONFIG SET ON_TIMEOUT FAIL")
        await self.policies.load(layout.partitions)  # first: none that is stricter may be missed
        self.responses.follow(layout, generation, graph=graph)
        await self.responses.refresh()
        with suppress(StoreUnavailableError):
            await self.learning.refresh()  # thresholds that moved are in force from the first lookup on

    async def _fitting(self, keys: Keys) -> Generation:
        """The generation to serve from.

        Raises:
            LayoutError: there is none for our embedder.
            StoreUnavailableError: Redis does not answer.
        """
        embedder = self.embedder
        generations = await generations_of(self.redis, keys)
        if not generations:
            raise LayoutError("the layout is incomplete: run `semcached migrate up`")
        for one in generations:
            if one.embedding == (embedder.model, embedder.revision, embedder.dim):
                return one
        first = generations[0]
        raise LayoutError(
            f"the index holds vectors of {first.model} {first.revision} ({first.dim}), "
            f"the embedder is {embedder.model} {embedder.revision} ({embedder.dim}): set "
            "SEMCACHED_EMBEDDER back, or run `semcached migrate up`, which embeds what is stored anew"
        )

    async def beat(self) -> None:
        """Say that we serve, and what: a migration waits for who is behind.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        generation = self.responses.generation
        if generation is not None:
            live = self.responses.spaces.number(self.responses.partitions)
            await self.processes.beat(live, generation.number)


class Loaded(NamedTuple):
    """Local models that are in memory already; who opens many services shares them."""

    embedder: Model | None = None
    verifier: threaded.Model | None = None


NOTHING = Loaded()


@asynccontextmanager
async def opened(
    settings: Settings, redis_url: str, loaded: Loaded = NOTHING, policies: Policies | None = None
) -> AsyncIterator[Parts]:
    """The parts, with a warm embedder; everything opened here is closed at the end.

    Args:
        settings: as given.
        redis_url: the Redis to work on.
        loaded: the local models, as far as they are loaded already.
        policies: a test's own.

    Raises:
        StartupError: a setting or an installed package is wrong.
    """
    keyring = keyring_of(settings)
    keys = Keys(settings.key_prefix)
    redis_s = settings.redis_timeout_s
    async with (
        connected(redis_url, redis_s, keys.meta("probe")) as redis,
        _embedder(settings, loaded.embedder) as embedder,
        _verifier(settings, loaded.verifier) as verifier,
        _rewriter(settings) as rewriter,
        _judge(settings) as judge,
    ):
        responses = RedisResponses(redis, keys)
        ledger, accounting = ledger_of(settings, redis, keys, keyring, responses)
        stored = RedisPolicies(redis, keys, keyring, responses, now_ms)
        kept = RedisEmbeddings(redis, keys, responses, settings.embeddings_ttl_s * 1000, now_ms)
        outcomes = RedisOutcomes(redis, keys, responses)
        learning = RedisLearning(
            redis,
            keys,
            keyring,
            responses,
            outcomes=outcomes,
            stats=ledger.counted,
            policies=policies or stored,
            clock=now_ms,
            verifier=verifier,
            named=settings.named_tenants,
        )
        uses, memory = Uses(now_ms), Memory(settings.memory_bytes)
        bounds = Bounds(uses, RedisUsage(redis, keys, responses), stored, keyring)
        async with (
            rewriting(rewriter, RedisRewritings(redis, keys, responses)) as rewrites,
            leases(RedisLeases(redis, keys, responses), now_ms) as turns,
            holding(bounds),
            tracking(memory, redis.connections, redis.breaker, keys, responses),
            embeddings(
                kept,
                embedder,
                ttl_s=settings.embeddings_ttl_s,
                redis_s=redis_s,
                named=settings.named_tenants,
            ) as vectors,
            pointers(RedisPointers(redis, keys, responses), now_ms, redis_s) as pointing,
            upstream(settings.upstream_timeout_s) as providers,
        ):

            def looking(kind: type[L], pointing: Pointers | None = None) -> L:
                return kind(
                    responses,
                    embedder,
                    embeddings=vectors,
                    verifier=verifier,
                    policies=policies or stored,
                    rewriting=rewrites,
                    leases=turns,
                    uses=uses,
                    clock=now_ms,
                    redis_s=redis_s,
                    pointers=pointing,
                    memory=memory,
                    learning=learning,
                )

            lookup = looking(Lookup, pointing)
            store = Store(
                responses,
                embedder,
                embeddings=vectors,
                policies=policies or stored,
                rewriting=rewrites,
                uses=uses,
                clock=now_ms,
                redis_s=redis_s,
                memory=memory,
            )
            invalidator = Invalidator(
                redis,
                keys,
                responses,
                embedder,
                reviews=ledger.reviews,
                clock=now_ms,
                redis_s=redis_s,
                memory=memory,
            )
            judging = Judging(
                responses,
                decisions=ledger.decisions,
                quarantine=RedisQuarantine(redis, keys, responses, now_ms),
                outcomes=outcomes,
                reviews=ledger.reviews,
                invalidator=invalidator,
                learning=learning,
            )
            comparer = Comparer(
                Comparing(embedder, judge),
                embedder,
                keyring=keyring,
                responses=responses,
                decisions=ledger.decisions,
                outcomes=outcomes,
                pending=Pending(redis, keys, keyring, responses, now_ms),
                revealing=Revealing(redis, keys, responses),
                clock=now_ms,
            )
            store.told = comparer.note
            yield Parts(
                settings=settings,
                keyring=keyring,
                redis=redis,
                embedder=embedder,
                responses=responses,
                processes=Processes(redis, keys),
                draining=Draining(redis, keys, responses, embedder),
                policies=stored,
                rates=Rates(redis, keys, redis_s),
                embeddings=vectors,
                invalidator=invalidator,
                judging=judging,
                learning=learning,
                comparer=comparer,
                memory=memory,
                rules=RedisRules(redis, keys, responses),
                entries=Entries(redis, keys, responses, now_ms),
                lookup=lookup,
                faceted=looking(FacetedLookup),
                leases=turns,
                tools=Tools(
                    RedisTools(redis, keys, responses),
                    policies=policies or stored,
                    leases=turns,
                    clock=now_ms,
                    redis_s=redis_s,
                ),
                store=store,
                accounting=accounting,
                ledger=ledger,
                passage=Passage(settings, providers, lookup, store, turns, accounting),
            )


@asynccontextmanager
async def _embedder(settings: Settings, model: Model | None) -> AsyncIterator[Embedder]:
    """The one that the settings name; each is imported when it is needed, which takes half a second."""
    if settings.embedder == "openai":
        from service.embedders.openai import provider  # noqa: PLC0415 - when it is needed

        async with provider(settings) as embedder:
            yield embedder
    else:
        from service.embedders.local import MiniLM  # noqa: PLC0415 - when it is needed

        async with batching(model or MiniLM(settings.embedder_threads)) as embedder:
            yield embedder


@asynccontextmanager
async def _verifier(settings: Settings, model: threaded.Model | None) -> AsyncIterator[Verifier | None]:
    if settings.verifier == "off":
        yield None
        return
    from service.verifiers.crossencoder import WEIGHTS, CrossEncoder  # noqa: PLC0415 - as the embedders

    async with threaded.threaded(model or CrossEncoder(settings.verifier_weights or WEIGHTS)) as verifier:
        yield verifier


@asynccontextmanager
async def judges(settings: Settings) -> AsyncIterator[tuple[Embedder, Verifier | None]]:
    """What tells two texts apart, without a Redis."""
    async with _embedder(settings, None) as embedder, _verifier(settings, None) as verifier:
        yield embedder, verifier


@asynccontextmanager
async def _rewriter(settings: Settings) -> AsyncIterator[Rewriter | None]:
    """The one that the settings name, if any; its SDK is imported only then."""
    if (wanted := settings.llm("rewriter")) is None:
        yield None
        return
    async with rewriters.rewriter(wanted) as one:
        yield one


@asynccontextmanager
async def _judge(settings: Settings) -> AsyncIterator[Judge | None]:
    """As the rewriter."""
    if (wanted := settings.llm("judge")) is None:
        yield None
        return
    async with judges_of.judge(wanted) as one:
        yield one


def ledger_of(
    settings: Settings, redis: RedisClient, keys: Keys, keyring: Keyring, responses: RedisResponses
) -> tuple[Ledger, Accounting]:
    """The books, and what counts for them.

    Raises:
        SettingsError: the price file is none.
    """
    accounting = Accounting(prices.load(settings.prices or prices.SHIPPED))
    counted = RedisStats(redis, keys, keyring, responses, clock=now_ms, label=settings.label)
    decisions = RedisDecisions(redis, keys, responses, accounting.decisions, clock=now_ms)
    reviews = RedisReviews(redis, keys, responses, now_ms)
    ledger = Ledger(redis, keys, responses, accounting, counted, decisions=decisions, reviews=reviews)
    return ledger, accounting


def now_ms() -> int:
    """Wall time."""
    return time.time_ns() // 1_000_000


def keyring_of(settings: Settings) -> Keyring:
    """Under the current secret and the previous one.

    Raises:
        SettingsError: there is none, and none can be made.
    """
    previous = settings.previous_secret
    share = settings.share_embeddings == "on"
    return Keyring(
        secret_of(settings), None if previous is None else previous.encode(), share_embeddings=share
    )


def secret_of(settings: Settings) -> bytes:
    """The secret that is set, else the one generated at first use in the data folder.

    Raises:
        SettingsError: none is set, and the folder can't hold one.
    """
    if settings.secret is not None:
        return settings.secret.encode()
    path = settings.data_dir / "secret"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create_private(path, secrets.token_hex(SECRET_BYTES))
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"SEMCACHED_SECRET is not set, and {path} can't hold one: {error.strerror}"
        ) from None
    if len(secret) < SHORTEST_SECRET:
        raise SettingsError(f"{path} must hold {SHORTEST_SECRET} bytes or more")
    return secret


def _create_private(path: Path, text: str) -> None:
    """Whole or not at all; of two that create it, one wins."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
