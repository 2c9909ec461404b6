"""langchain-redis' RedisSemanticCache, by its synchronous calls; its embeddings are looked up in a table."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps
from langchain_core.outputs import Generation
from langchain_redis import RedisSemanticCache
from redisvl.extensions.cache.llm.schema import CacheEntry

from bench.peers.workers.harness import Given, Part, main

LLM = "model"


class Table(Embeddings):
    """Vectors that are laid ready."""

    def __init__(self, dim: int) -> None:
        self.rows = {"test": [0.5] * dim}

    def embed_query(self, text: str) -> list[float]:
        return self.rows[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.rows[text] for text in texts]


class Langchain:
    """Without a TTL, as redisvl's, which is inside."""

    def __init__(self, given: Given) -> None:
        self.table = Table(given.dim)
        self.cache = RedisSemanticCache(
            self.table, redis_url=given.target, distance_threshold=1 - given.threshold
        )

    async def prepare(self, part: Part) -> None:
        self.table.rows = dict(zip(part.texts, part.vectors.tolist(), strict=True))

    async def fill(self, part: Part) -> None:
        """What `update` writes, in pipelines."""
        entries = [
            CacheEntry(
                prompt=text,
                response=json.dumps([dumps(Generation(text=answer))]),
                prompt_vector=vector,
                metadata={"llm_string": LLM},
            ).to_dict("float32")
            for text, answer, vector in zip(part.texts, part.answers, part.vectors.tolist(), strict=True)
        ]
        self.cache.cache.index.load(entries, id_field="entry_id")

    async def lookup(self, text: str) -> str | None:
        found = self.cache.lookup(text, LLM)
        return found[0].text if found else None

    async def store(self, text: str, answer: str) -> None:
        self.cache.update(text, LLM, [Generation(text=answer)])

    async def size(self) -> None:
        return None


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Langchain]:
    yield Langchain(given)


if __name__ == "__main__":
    main(opened, ["langchain-redis", "langchain-core", "redisvl", "redis", "hiredis"])
