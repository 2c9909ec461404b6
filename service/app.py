"""The HTTP application: puts the parts under the routes; owns start and stop. Nobody imports it."""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from litestar import Litestar
from litestar.di import Provide

from service.api import (
    cache,
    docs,
    embeddings,
    entries,
    feedback,
    health,
    invalidation,
    langcache,
    learning,
    policies,
    proxy,
    review_page,
    stats,
    tools,
)
from service.api.admission import Limits, admission
from service.api.auth import Keys
from service.api.authentication import authentication
from service.api.direct import Direct
from service.api.langcache_errors import handle_by_path
from service.api.measuring import Measuring
from service.api.services import Services, provide_services
from service.errors import EmbedderError, StartupError, StoreUnavailableError
from service.logs import log_to_stderr
from service.settings import Settings, from_environment
from service.wiring import NOTHING, Loaded, Parts, opened

log = logging.getLogger(__name__)

CHECK_S = 1.0
GARBAGE = 10_000
"""New objects until garbage is looked for among them; by default 700, which one batch makes."""
MEASURE_S = 10.0
MEASURE_REST = 1000
"""Times what measuring took: for FT.INFO of a million vectors Redis stands still for 0.2 s."""


def create_app(settings: Settings, redis_url: str, loaded: Loaded = NOTHING) -> Litestar:
    """The application over one Redis. It starts also while that is away, and attaches when it comes.

    Args:
        settings: as given.
        redis_url: the Redis to work on.
        loaded: the local models, as far as they are loaded already.
    """
    keys = Keys(settings.keys_path, settings.admin_key, expected=settings.keys_file is not None)
    keys.check_bind(settings.host)
    limits = Limits(settings)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with (
            opened(settings, redis_url, loaded) as parts,
            _background(_Attachment(parts)) as attachment,
            parts.ledger.kept(),
            parts.comparer.running(),
        ):
            services = Services(
                lookup=parts.lookup,
                faceted=parts.faceted,
                store=parts.store,
                tools=parts.tools,
                leases=parts.leases,
                keyring=parts.keyring,
                policies=parts.policies,
                rates=parts.rates,
                accounting=parts.accounting,
                ledger=parts.ledger,
                invalidator=parts.invalidator,
                judging=parts.judging,
                learning=parts.learning,
                comparer=parts.comparer,
                rules=parts.rules,
                entries=parts.entries,
                passage=parts.passage,
                why_not_ready=attachment.why_not_ready,
                embeddings=parts.embeddings,
                metric_tenants=settings.named_tenants,
                has_judge=settings.llm("judge") is not None,
            )
            app.state.services = services
            app.state.direct = Direct(services, keys, limits, cache.DIRECT)
            yield

    return Litestar(
        route_handlers=[
            *(cache.lookup, cache.lookup_batch, cache.store, cache.store_batch),
            *(policies.get_policy, policies.put_policy),
            *(tools.look_up_tool, tools.store_tool, tools.get_tool_policies, tools.put_tool_policy),
            stats.get_stats,
            *(embeddings.embed, embeddings.lookup_embeddings, embeddings.store_embeddings),
            *(entries.get_entry, entries.delete_entry, entries.list_entries, entries.clear),
            *(invalidation.invalidate, invalidation.event),
            *(feedback.feedback, feedback.list_reviews, feedback.review),
            *(learning.get_learning, learning.undo_move),
            *(invalidation.get_rules, invalidation.put_rule, invalidation.delete_rule),
            langcache.router(),
            *(health.livez, health.readyz, health.metrics),
            *(proxy.chat_completions, proxy.responses, proxy.messages),
            *(proxy.openai_rest, proxy.anthropic_rest, proxy.models),
            docs.files(),
            review_page.files(),
        ],
        dependencies={"services": Provide(provide_services, sync_to_thread=False)},
        middleware=[Measuring, authentication(keys), admission(limits)],
        exception_handlers={Exception: handle_by_path},
        lifespan=[lifespan],
        logging_config=None,  # the console script's
        openapi_config=docs.openapi_config(),
    )


class _Attachment:
    """Keeps the parts attached to a Redis that comes and goes, is emptied, or loses its index."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._why: str | None = "starting"
        self._logged: str | None = self._why
        self._measure_at = 0.0

    async def why_not_ready(self) -> str | None:
        """None while requests are served as they should be; as of the last check, a second ago at most."""
        return self._why

    async def check(self) -> None:
        """Attach where that is needed; one log line per change."""
        try:
            if self._parts.responses.generation is None:
                await self._parts.attach(log.info)
            else:
                await self._parts.responses.refresh()
            await self._parts.responses.usable()
            await self._parts.policies.refresh()
        except (StoreUnavailableError, EmbedderError, StartupError) as error:
            self._note(str(error), log_it=type(error) is not StoreUnavailableError)
        except Exception:  # a defect must not end the watch
            log.exception("unexpected error while attaching to Redis")
            self._note("the service's log says more", log_it=False)
        else:
            self._note(None)
        await self._beat()

    async def _beat(self) -> None:
        """A Redis that takes no writes serves lookups all the same."""
        try:
            await self._parts.beat()
        except StoreUnavailableError as error:
            log.debug("a migration won't wait for us: %s", error)

    async def leave(self) -> None:
        """No migration waits for us any more; where that can't be said, for a while."""
        with contextlib.suppress(StoreUnavailableError):
            await self._parts.processes.leave()

    async def drain(self) -> None:
        """Make vectors that wait for this model, as long as two are served."""
        try:
            await self._parts.draining.once()
        except (StoreUnavailableError, EmbedderError) as error:
            log.debug("documents wait for their vectors: %s", error)
        except Exception:  # a defect must not end the watch
            log.exception("unexpected error while making vectors that wait")

    async def learn(self) -> None:
        """Follow the outcomes; without them the service serves all the same."""
        try:
            if self._parts.responses.generation is not None:
                await self._parts.learning.refresh()
        except StoreUnavailableError as error:
            log.debug("outcomes are not followed: %s", error)
        except Exception:  # a defect must not end the watch
            log.exception("unexpected error while following outcomes")

    async def measure(self) -> None:
        """Set the index' gauges if it is time; without them the service serves all the same."""
        begun = perf_counter()
        if begun < self._measure_at:
            return
        try:
            await self._parts.responses.measure()
        except StoreUnavailableError:
            pass
        except Exception:  # a defect must not end the watch
            log.exception("unexpected error while measuring the index")
        ended = perf_counter()
        self._measure_at = ended + max(MEASURE_S, MEASURE_REST * (ended - begun))

    def _note(self, why: str | None, *, log_it: bool = True) -> None:
        """What the breaker has logged (Redis is away, is back) isn't logged again."""
        self._why = why
        if log_it and why != self._logged:
            log.log(logging.WARNING if why else logging.INFO, "%s", why or "serving from Redis")
            self._logged = why

    async def run(self) -> None:
        """Watch for as long as the service runs; end it when the process that started it is gone."""
        parent = multiprocessing.parent_process()
        while True:
            await asyncio.sleep(CHECK_S)
            if parent is not None and not parent.is_alive():
                signal.raise_signal(signal.SIGTERM)
            await self.check()
            await self.measure()

    async def drain_all(self) -> None:
        """For as long as the service runs, beside the watch: a model may be slow."""
        while True:
            await asyncio.sleep(CHECK_S)
            await self.drain()

    async def learn_all(self) -> None:
        """For as long as the service runs, beside the watch."""
        while True:
            await asyncio.sleep(CHECK_S)
            await self.learn()


@asynccontextmanager
async def _background(attachment: _Attachment) -> AsyncIterator[_Attachment]:
    await attachment.check()
    tasks = [
        asyncio.create_task(one) for one in (attachment.run(), attachment.drain_all(), attachment.learn_all())
    ]
    try:
        yield attachment
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await attachment.leave()


def from_env() -> Litestar:
    """For the server's workers: `serve` has put everything into the environment."""
    log_to_stderr()
    settings = from_environment()
    if settings.redis_url is None:
        raise StartupError("start it with `semcached serve`, or set SEMCACHED_REDIS_URL")
    app = create_app(settings, settings.redis_url)
    app.on_startup.append(_settle)
    return app


def _settle() -> None:
    """What is there now stays: collecting garbage needn't look at it, which took a tenth of a lookup."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
