"""redisvl's SemanticCache, by its synchronous calls. Its vectorizer looks the text up in a table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redisvl.extensions.cache.llm import SemanticCache
from redisvl.extensions.cache.llm.schema import CacheEntry
from redisvl.utils.vectorize import CustomVectorizer

from bench.peers.workers.harness import Given, Part, main


class Redisvl:
    """No TTL: with one each hit would cost an EXPIRE more."""

    def __init__(self, given: Given) -> None:
        self.table = {"dimension test": [0.5] * given.dim}
        self.cache = SemanticCache(
            distance_threshold=1 - given.threshold,
            vectorizer=CustomVectorizer(embed=self.table.__getitem__),
            redis_url=given.target,
        )

    async def prepare(self, part: Part) -> None:
        self.table.clear()
        self.table.update(zip(part.texts, part.vectors.tolist(), strict=True))

    async def fill(self, part: Part) -> None:
        """What `store` writes, in pipelines."""
        entries = [
            CacheEntry(prompt=text, response=answer, prompt_vector=vector).to_dict("float32")
            for text, answer, vector in zip(part.texts, part.answers, part.vectors.tolist(), strict=True)
        ]
        self.cache.index.load(entries, id_field="entry_id")

    async def lookup(self, text: str) -> str | None:
        found = self.cache.check(prompt=text)
        return found[0]["response"] if found else None

    async def store(self, text: str, answer: str) -> None:
        self.cache.store(prompt=text, response=answer)

    async def size(self) -> None:
        return None


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Redisvl]:
    yield Redisvl(given)


if __name__ == "__main__":
    main(opened, ["redisvl", "redis", "hiredis"])
