"""redisvl's SemanticCache, by its synchronous calls. Its vectorizer looks the text up in a table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redisvl.extensions.cache.llm import SemanticCache
from redisvl.extensions.cache.llm.schema import CacheEntry
from redisvl.query.filter import Tag
from redisvl.utils.vectorize import CustomVectorizer

from bench.peers.workers.harness import Given, Part, main

FIELD = {"name": "tenant", "type": "tag"}


class Redisvl:
    """No TTL: with one each hit would cost an EXPIRE more."""

    def __init__(self, given: Given, fields: list[dict[str, str]] | None = None) -> None:
        self.table = {"dimension test": [0.5] * given.dim}
        self.cache = SemanticCache(
            distance_threshold=1 - given.threshold,
            vectorizer=CustomVectorizer(embed=self.table.__getitem__),
            filterable_fields=fields,
            redis_url=given.target,
        )
        self.owners: dict[str, str] = {}

    async def prepare(self, part: Part) -> None:
        self.table.clear()
        self.table.update(zip(part.texts, part.vectors.tolist(), strict=True))
        self.owners = dict(zip(part.texts, part.tenants, strict=True))

    async def fill(self, part: Part) -> None:
        """What `store` writes, in pipelines."""
        given = zip(part.texts, part.answers, part.tenants, part.vectors.tolist(), strict=True)
        entries = [self._entry(*one).to_dict("float32") for one in given]
        self.cache.index.load(entries, id_field="entry_id")

    def _entry(self, text: str, answer: str, _tenant: str, vector: list[float]) -> CacheEntry:
        return CacheEntry(prompt=text, response=answer, prompt_vector=vector)

    async def lookup(self, text: str) -> str | None:
        found = self.cache.check(prompt=text)
        return found[0]["response"] if found else None

    async def store(self, text: str, answer: str) -> None:
        self.cache.store(prompt=text, response=answer)

    async def size(self) -> None:
        return None


class Filtered(Redisvl):
    """Form `filtered`: with a tag per tenant, which each check names."""

    def __init__(self, given: Given) -> None:
        super().__init__(given, [FIELD])

    def _entry(self, text: str, answer: str, tenant: str, vector: list[float]) -> CacheEntry:
        filters = {"tenant": tenant}
        return CacheEntry(prompt=text, response=answer, prompt_vector=vector, filters=filters)

    async def lookup(self, text: str) -> str | None:
        found = self.cache.check(prompt=text, filter_expression=Tag("tenant") == self.owners[text])
        return found[0]["response"] if found else None

    async def store(self, text: str, answer: str) -> None:
        self.cache.store(prompt=text, response=answer, filters={"tenant": self.owners[text]})


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Redisvl]:
    yield Filtered(given) if given.form == "filtered" else Redisvl(given)


if __name__ == "__main__":
    main(opened, ["redisvl", "redis", "hiredis"])
