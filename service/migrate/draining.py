"""Gives the documents that another model's process stored their vectors, while both models serve."""

import random

from service.cache.ports import Embedder
from service.migrate.making import Embedding
from service.migrate.progress import Pace
from service.store.client import RedisClient
from service.store.documents import Documents
from service.store.keys import Keys
from service.store.responses import RedisResponses

AT_ONCE = 32
BATCHES, SHARE = 20, 0.5
"""One after the other, so that stores don't outrun it; and how much of the time: lookups need the model."""


class Draining:
    """Of this process' generation."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, embedder: Embedder) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._embedder = embedder

    async def once(self) -> int:
        """Some of what waits, in several batches where it is much; how many.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no function for it.
            EmbedderError: the embedder is away.
        """
        pace, done = Pace(SHARE), 0
        for _ in range(BATCHES):
            with pace:
                made = await self._batch()
            done += made
            if made < AT_ONCE:
                break
            await pace.rest()
        return done

    async def _batch(self) -> int:
        """By chance: processes share it, and what fails holds up its neighbours."""
        generation, done = self._responses.generation, 0
        if generation is None:
            return 0
        maker = Embedding(self._embedder, generation)
        for partition, live in self._responses.spaces.raw():
            queue = self._keys.pending(partition, generation)
            waiting = await self._redis.call("ZCARD", queue)
            first = random.randrange(max(1, waiting - AT_ONCE + 1))  # noqa: S311 - no secret
            names = await self._redis.call("ZRANGE", queue, first, first + AT_ONCE - 1)
            ids = [one.decode("ascii", "replace") for one in names]
            if not ids:
                continue
            documents = Documents(self._redis, self._keys, partition, live)
            there = await documents.read(ids, generation)
            records = await documents.records([one.entry_id for one in there])
            whole = [one for one, record in zip(there, records, strict=True) if record is not None]
            made = await maker.made(documents, whole)
            await documents.copy(made, generation, generation)
            # What is gone, or has no meaning to the model, waits no longer; what is only half stored does.
            over = set(ids) - {one.entry_id for one in there}
            over |= {one.entry_id for one in made if "vector" not in one.fields}
            if over:
                await self._redis.call("ZREM", queue, *over)
            done += len(made)
        return done
