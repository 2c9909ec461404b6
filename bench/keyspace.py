"""What lies in a Redis behind a service: after a migration one index, and one document of each entry."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from redis import Redis

from service.migrate.record import Migration
from service.migrate.record import name as migration_key
from service.model import Generation, Live
from service.store.keys import Keys, entry_id_of
from service.store.layout import Layout

PAGE = 1000
Ends = dict[str, int]
"""By entry id when it ends, in ms since 1970; -1: never."""


class Keyspace:
    """Of a prefix. Read key by key: right only while nobody writes."""

    def __init__(self, redis: Redis, prefix: str = "sc") -> None:
        self._redis, self._keys = redis, Keys(prefix)

    def generation(self) -> Generation:
        """What serves."""
        raw: Any = self._redis.get(self._keys.meta("responses:generation"))
        return msgspec.json.decode(raw, type=Generation)

    def migration(self) -> Migration | None:
        """The one at work, or the last one."""
        raw: Any = self._redis.get(migration_key(self._keys))
        return None if raw is None else msgspec.json.decode(raw, type=Migration)

    def live(self) -> list[Live | None]:
        """Of each partition."""
        raws: list[Any] = [self._redis.get(self._keys.live(one)) for one in range(self._partitions())]
        return [None if raw is None else msgspec.json.decode(raw, type=Live) for raw in raws]

    def indexes(self) -> list[str]:
        """Names of those over answers."""
        found: Any = self._redis.execute_command("FT._LIST")
        names = (one.decode() for one in found)
        return sorted(
            one for one in names if one.startswith(f"{self._keys.prefix}:") and ":responses:index:" in one
        )

    def is_building(self) -> bool:
        """Whether an index of what serves still reads documents that were there before it."""
        now = self.generation()
        indexes = [self._keys.index(one, now) for one in range(self._partitions())]
        return any(int(self._info(one)[b"indexing"]) for one in indexes)

    def vector(self) -> dict[str, str]:
        """How the index that serves keeps vectors: options by name, in capitals."""
        fields = self._info(self._keys.index(0, self.generation()))[b"attributes"]
        words = next([_text(word) for word in one] for one in fields if b"VECTOR" in one)
        return {name.upper(): value for name, value in zip(words[::2], words[1::2], strict=False)}

    def records(self) -> Ends:
        """Of all partitions."""
        names = self._names("record:*")
        return dict(zip(map(entry_id_of, names), self._asked(names, _end), strict=True))

    def documents(self) -> dict[str, Ends]:
        """By space."""
        names, found = self._names("document:*"), defaultdict[str, Ends](dict)
        for name, end in zip(names, self._asked(names, _end), strict=True):
            found[name.split(b":")[-2].decode()][entry_id_of(name)] = end
        return found

    def flaws(self) -> Iterator[str]:
        """What isn't as it should be once a migration has ended, whichever way it went."""
        now = self.generation()
        indexes = [self._keys.index(one, now) for one in range(self._partitions())]
        if self.indexes() != sorted(indexes):
            yield f"the indexes are {self.indexes()}, generation {now.number} serves"
            return
        for one in self.live():
            if one is not None and [each.number for each in one.generations] != [now.number]:
                yield f"live are {[each.number for each in one.generations]}, generation {now.number} serves"
        records, spaces = self.records(), self.documents()
        documents = spaces.pop(now.space, {})
        held = sum(int(self._info(one)[b"num_docs"]) for one in indexes)
        counts = {
            "records without a document": len(records.keys() - documents.keys()),
            "documents without a record": len(documents.keys() - records.keys()),
            "documents with another end": sum(end != records.get(one, end) for one, end in documents.items()),
            "documents of another space": sum(map(len, spaces.values())),
            "documents without a vector": self._without_vector(now.space),
            "documents that wait for a vector": self._waiting(),
            f"documents of {len(documents)} missing in the index": len(documents) - held,
        }
        yield from (f"{count} {what}" for what, count in counts.items() if count)

    def _partitions(self) -> int:
        raw: Any = self._redis.get(self._keys.meta("layout"))
        return msgspec.json.decode(raw, type=Layout).partitions

    def _info(self, index: str) -> dict[bytes, Any]:
        told: Any = self._redis.execute_command("FT.INFO", index)
        return dict(zip(told[::2], told[1::2], strict=True))

    def _names(self, pattern: str) -> list[bytes]:
        found = self._redis.scan_iter(f"{self._keys.prefix}:{{*}}:responses:{pattern}", count=PAGE)
        return list(set(found))

    def _without_vector(self, space: str) -> int:
        has = self._asked(self._names(f"document:{space}:*"), lambda to, name: to.hexists(name, "vector"))
        return sum(not one for one in has)

    def _waiting(self) -> int:
        return sum(self._asked(self._names("pending:*"), lambda to, name: to.zcard(name)))

    def _asked(self, names: Sequence[bytes], ask: Callable[[Any, bytes], object]) -> list[Any]:
        found: list[Any] = []
        for at in range(0, len(names), PAGE):
            with self._redis.pipeline(transaction=False) as pipeline:
                for name in names[at : at + PAGE]:
                    ask(pipeline, name)
                found += pipeline.execute()
        return found


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _end(to: Any, name: bytes) -> object:
    return to.pexpiretime(name)
