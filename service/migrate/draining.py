"""Gives the documents that another model's process stored their vectors, while both models serve."""

from service.cache.ports import Embedder
from service.migrate.making import Embedding
from service.store.client import RedisClient
from service.store.documents import Documents
from service.store.keys import Keys
from service.store.responses import RedisResponses

AT_ONCE = 64


class Draining:
    """Of this process' generation."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses, embedder: Embedder) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses
        self._embedder = embedder

    async def once(self) -> int:
        """Some of what waits, oldest first; how many.

        Raises:
            StoreUnavailableError: Redis does not answer, or has no function for it.
            EmbedderError: the embedder is away.
        """
        generation, done = self._responses.generation, 0
        if generation is None:
            return 0
        maker = Embedding(self._embedder, generation)
        for partition, live in self._responses.spaces.raw():
            queue = self._keys.pending(partition, generation)
            names = await self._redis.call("ZRANGE", queue, 0, AT_ONCE - 1)
            ids = [one.decode("ascii", "replace") for one in names]
            if not ids:
                continue
            documents = Documents(self._redis, self._keys, partition, live)
            there = await documents.read(ids, generation)
            gone = set(ids) - {one.entry_id for one in there}
            if gone:
                await self._redis.call("ZREM", queue, *gone)
            await documents.copy(await maker.made(documents, there), generation, generation)
            done += len(ids)
        return done
