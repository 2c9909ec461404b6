"""The books: what was counted, put together with what lies in Redis."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.cache import figures
from service.cache.accounting import Accounting
from service.cache.decided import Review
from service.cache.digests import TenantKeys
from service.errors import StoreUnavailableError
from service.store import stock
from service.store.client import RedisClient
from service.store.decisions import RedisDecisions
from service.store.keys import Keys
from service.store.responses import RedisResponses
from service.store.reviews import RedisReviews
from service.store.stats import RedisStats

log = logging.getLogger(__name__)

EVERY_S = 0.5
"""With the round trips less than a second, which is the most that a kill -9 costs."""


class Ledger:
    """Writes what `Accounting` gathers, and reads the figures."""

    def __init__(
        self,
        redis: RedisClient,
        keys: Keys,
        responses: RedisResponses,
        accounting: Accounting,
        counted: RedisStats,
        *,
        decisions: RedisDecisions,
        reviews: RedisReviews,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._accounting = accounting
        self.counted = counted
        self.reviews = reviews
        self.decisions = decisions

    async def flush(self) -> None:
        """Write what was counted; what can't be written waits for the next time."""
        await self.counted.flush(self._accounting)
        with contextlib.suppress(StoreUnavailableError):  # counted as dropped
            await self.decisions.flush()
            for keys, some in self._sampled().items():
                await self.reviews.put(keys, some)

    def _sampled(self) -> dict[TenantKeys, list[Review]]:
        found: dict[TenantKeys, list[Review]] = defaultdict(list)
        for keys, one in self._accounting.decisions.take_sampled():
            found[keys].append(one)
        return found

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write all the time, and at the end."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.flush()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
            except Exception:  # a defect must not end the counting
                log.exception("unexpected error while writing stats")

    async def stats(self, keys: TenantKeys, agent_type: str | None) -> figures.Stats:
        """Of a tenant, or of one agent_type.

        Raises:
            StoreUnavailableError: Redis does not answer, or nothing is served now.
        """
        there = await stock.read(self._redis, self._keys, self._responses, keys, agent_type)
        as_of = self._accounting.prices.file.as_of
        if agent_type is not None:
            one = await self.counted.of(keys, agent_type)
            since = None if one is None else one.since_ms
            return figures.stats(one.counts if one else {}, since_ms=since, prices=as_of, stock=there)
        cells = await self.counted.all(keys)
        return await asyncio.to_thread(  # of 1,000 agent_types it takes a tenth of a second
            figures.stats,
            figures.summed(cell.counts for cell in cells.values()),
            since_ms=min((cell.since_ms for cell in cells.values()), default=None),
            prices=as_of,
            stock=there,
            agent_types={name: cell.counts for name, cell in cells.items() if name is not None},
            others=cells[None].counts if None in cells else None,
        )
