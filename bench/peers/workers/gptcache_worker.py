"""GPTCache over sqlite and faiss (its IDMap,Flat), by `get` and `put`.

It runs pip from inside the library where a package is missing, and opens a file in the working directory
when it is imported: this one finds no program at all, and works in a folder of its own.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.peers.workers.harness import Floats, Given, Part, main

MANY = 10**9
"""Its default evicts beyond 1,000 entries."""


class Gptcache:
    """Form `no report`: without the row that it writes to sqlite at each hit by default."""

    def __init__(self, given: Given) -> None:
        from gptcache import Cache, Config  # noqa: PLC0415 - from the folder that `opened` went to
        from gptcache.manager import CacheBase, VectorBase, get_data_manager  # noqa: PLC0415 - as above
        from gptcache.processor.pre import get_prompt  # noqa: PLC0415 - as above
        from gptcache.similarity_evaluation import SearchDistanceEvaluation  # noqa: PLC0415 - as above

        self.table: dict[str, Floats] = {}
        self.files = [given.place / "sqlite.db", given.place / "faiss.index"]
        scalars = CacheBase("sqlite", sql_url=f"sqlite:///{self.files[0]}")
        vectors = VectorBase("faiss", dimension=given.dim, index_path=str(self.files[1]))
        self.cache = Cache()
        self.cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: self.table[text],
            data_manager=get_data_manager(scalars, vectors, max_size=MANY),
            similarity_evaluation=SearchDistanceEvaluation(),  # 4 - squared distance = 2 + 2 x cosine
            config=Config(
                similarity_threshold=(1 + given.threshold) / 2,
                disable_report=given.form == "no report",
            ),
        )

    async def prepare(self, part: Part) -> None:
        self.table = dict(zip(part.texts, part.vectors, strict=True))

    async def fill(self, part: Part) -> None:
        await self.prepare(part)
        self.cache.import_data(part.texts, part.answers)

    async def lookup(self, text: str) -> str | None:
        from gptcache.adapter.api import get  # noqa: PLC0415 - as above

        found: str | None = get(text, cache_obj=self.cache)
        return found

    async def store(self, text: str, answer: str) -> None:
        from gptcache.adapter.api import put  # noqa: PLC0415 - as above

        put(text, answer, cache_obj=self.cache)

    async def size(self) -> int:
        """Its two files; the second is in memory as well."""
        self.cache.flush()
        return sum(file.stat().st_size for file in self.files)


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Gptcache]:
    os.environ["PATH"] = ""
    sys.path.insert(0, str(Path.cwd()))
    os.chdir(given.place)
    yield Gptcache(given)


if __name__ == "__main__":
    main(opened, ["gptcache", "faiss-cpu", "sqlalchemy"])
