"""An earlier release over a Redis that is migrated: what it had written, and the very commands that it sent.

Both are recorded (fixtures/README.md). What it made of the replies is told here as that release did it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from redis import Redis, ResponseError

from service.cache.digests import TenantKeys
from service.model import Record
from service.store.keys import entry_id_of
from service.store.records import unseal
from service.store.responses import is_whole

FOLDER = Path(__file__).parent / "fixtures"
PREFIX = "sc:{"
_NO_INDEX = ("no such index", "unknown index name")

Word = str | tuple[bytes]
"""Of a command, or a value: as it is where it is plain text."""


class Value(Struct, frozen=True, forbid_unknown_fields=True):
    """A key's; `end` in ms since 1970."""

    end: int | None
    string: Word | None = None
    hash: dict[str, Word] = {}


class Act(Struct, frozen=True, forbid_unknown_fields=True):
    """What was sent for one request, and which entry it was about, or found."""

    entry_id: str
    sent: list[list[Word]]


class Written(Struct, frozen=True, forbid_unknown_fields=True):
    """What a release left behind."""

    commit: str
    secret: str
    tenant: str
    ids: dict[str, str]
    indexes: list[list[Word]]
    keys: dict[str, Value]
    acts: dict[str, Act] = {}


class EarlierGeneration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As that release read it: it knows neither other numbers nor places."""

    number: int
    index: str
    space: str
    model: str
    revision: str
    dim: int
    datatype: Literal["float32"]
    threshold: float


def written(commit: str) -> Written:
    """By a commit."""
    return msgspec.json.decode((FOLDER / f"{commit}.json").read_bytes(), type=Written)


def restore(redis: Redis, found: Written, prefix: str) -> None:
    """Put it all under another prefix."""
    for command in found.indexes:
        redis.execute_command(*_under(command, prefix))
    for name, value in found.keys.items():
        key = name.replace(PREFIX, prefix + ":{")
        if value.string is not None:
            redis.set(key, _raw(value.string))
        else:
            redis.hset(key, mapping={field: _raw(word) for field, word in value.hash.items()})
        if value.end is not None:
            redis.pexpireat(key, value.end)


class Earlier:
    """A service of that release. The exact tier goes on without an index; stores don't."""

    def __init__(self, redis: Redis, found: Written, prefix: str, keys: TenantKeys) -> None:
        self._redis, self._found, self._prefix, self._keys = redis, found, prefix, keys
        self.serves = True

    def exact(self, act: str) -> Record | None:
        """Its record, beside its document."""
        one = self._found.acts[act]
        (blob, *_), told = self._send(one)
        record = unseal(blob, one.entry_id, self._keys)
        return record if record is not None and is_whole(record.stored_at, told) else None

    def nearest(self, act: str) -> str | None:
        """The id of the nearest entry. Where the index is gone it asks which generation serves."""
        if not self.serves:
            return None
        try:
            found = next(reply for reply in self._send(self._found.acts[act]) if _is_page(reply))
        except ResponseError as error:
            assert any(words in str(error).lower() for words in _NO_INDEX)  # noqa: PT017 - nothing else is refused
            self._look()
            return None
        rows = sorted(zip(found[2::2], found[1::2], strict=True), key=lambda row: float(row[0][1]))
        return entry_id_of(rows[0][1]) if rows else None

    def do(self, act: str) -> None:
        """A store, or a deletion."""
        assert self.serves
        self._send(self._found.acts[act])

    def _look(self) -> None:
        """It can't read what is published now: so it serves no meanings any more, and stores nothing."""
        raw = self._redis.get(f"{self._prefix}:{{meta}}:responses:generation")
        try:
            msgspec.json.decode(raw or b"", type=EarlierGeneration)
        except msgspec.DecodeError:
            self.serves = False

    def _send(self, act: Act) -> list[Any]:
        """The replies, none of them an error."""
        with self._redis.client() as connection:  # transactions need one of their own
            return [connection.execute_command(*_under(one, self._prefix)) for one in act.sent]


def _is_page(reply: Any) -> bool:
    """[total, key, [b"distance", d], …]."""
    return isinstance(reply, list) and bool(reply) and isinstance(reply[0], int)


def _under(command: Sequence[Word], prefix: str) -> list[bytes]:
    return [_raw(word).replace(PREFIX.encode(), prefix.encode() + b":{") for word in command]


def _raw(word: Word) -> bytes:
    return word.encode() if isinstance(word, str) else word[0]
