"""The full scan that tutorials show, in Python over Redis.

Form `get`: the common one. An entry is a JSON string with its embedding as a list; a lookup walks over all
keys, reads and decodes each, takes the cosine by numpy, and serves the best at or above the threshold. Form
`pipelined`, kinder than any tutorial we found: raw float32 in a hash, read in pipelines, one product of
matrices.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from redis import Redis

from bench.peers.workers.harness import Floats, Given, Part, main

PREFIX = "cache:"
PAGE = 1000


class Scan:
    """Form `get`."""

    def __init__(self, given: Given) -> None:
        self.redis: Any = Redis.from_url(given.target)
        self.threshold = given.threshold
        self.table: dict[str, Floats] = {}

    async def prepare(self, part: Part) -> None:
        self.table = dict(zip(part.texts, part.vectors, strict=True))

    async def fill(self, part: Part) -> None:
        await self.prepare(part)
        self.redis.mset(
            {
                PREFIX + text: packed(text, answer, self.table[text])
                for text, answer in zip(part.texts, part.answers, strict=True)
            }
        )

    async def lookup(self, text: str) -> str | None:
        asked = self.table[text]
        best, served = self.threshold, None
        for key in self.redis.scan_iter(match=f"{PREFIX}*"):
            entry = json.loads(self.redis.get(key))
            similarity = cosine(asked, np.array(entry["embedding"]))
            if similarity >= best:
                best, served = similarity, entry["response"]
        return served

    async def store(self, text: str, answer: str) -> None:
        self.redis.set(PREFIX + text, packed(text, answer, self.table[text]))

    async def size(self) -> None:
        return None


class Pipelined(Scan):
    """Form `pipelined`."""

    async def fill(self, part: Part) -> None:
        with self.redis.pipeline(transaction=False) as pipeline:
            for text, answer, vector in zip(part.texts, part.answers, part.vectors, strict=True):
                pipeline.hset(PREFIX + text, mapping=fields(answer, vector))
            pipeline.execute()

    async def lookup(self, text: str) -> str | None:
        keys = list(self.redis.scan_iter(match=f"{PREFIX}*", count=PAGE))
        rows = np.frombuffer(b"".join(self._embeddings(keys)), "<f4").reshape(len(keys), -1)
        similarities = rows @ self.table[text]
        best = int(np.argmax(similarities))
        if similarities[best] < self.threshold:
            return None
        found: bytes = self.redis.hget(keys[best], "response")
        return found.decode()

    def _embeddings(self, keys: list[bytes]) -> Iterator[bytes]:
        for begin in range(0, len(keys), PAGE):
            with self.redis.pipeline(transaction=False) as pipeline:
                for key in keys[begin : begin + PAGE]:
                    pipeline.hget(key, "embedding")
                yield from pipeline.execute()

    async def store(self, text: str, answer: str) -> None:
        self.redis.hset(PREFIX + text, mapping=fields(answer, self.table[text]))


def cosine(a: Floats, b: Any) -> float:
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def packed(text: str, answer: str, vector: Floats) -> str:
    return json.dumps({"prompt": text, "response": answer, "embedding": vector.tolist()})


def fields(answer: str, vector: Floats) -> dict[str, str | bytes]:
    return {"response": answer, "embedding": vector.astype("<f4").tobytes()}


@asynccontextmanager
async def opened(given: Given) -> AsyncIterator[Scan]:
    yield (Pipelined if given.form == "pipelined" else Scan)(given)


if __name__ == "__main__":
    main(opened, ["redis", "hiredis", "numpy"])
