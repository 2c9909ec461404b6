"""`semcached warm`: fills the cache from a JSON Lines file, in the batches of the HTTP API.

Resumable and idempotent without a checkpoint: entries that are there with the same answer are skipped
before anything is embedded, so a second run goes on where the first one ended.
"""

import codecs
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from tqdm import tqdm

from service.api.wire import decoder
from service.cache.digests import TenantKeys
from service.cache.ports import Budget
from service.cache.store import Accepted
from service.errors import SemcachedError, SettingsError
from service.model import Record, Refused, Stored, StoreRequest
from service.wiring import Parts

BATCH = 64


class Refusal(NamedTuple):
    """A line that was not stored."""

    line: int
    why: str


@dataclass
class Summary:
    """What became of the lines so far."""

    stored: int = 0
    skipped: int = 0
    refused: list[Refusal] = field(default_factory=list)


_request = decoder(StoreRequest)


async def warm(parts: Parts, keys: TenantKeys, path: Path, summary: Summary, *, refresh: bool) -> None:
    """Store every line of a file; `refresh` also those that are there already.

    Of several lines that ask the same, the first counts, so that a second run changes nothing.

    Raises:
        SettingsError: the file can't be read.
        StoreUnavailableError: Redis went away; run it again to go on.
    """
    seen: dict[str, int] = {}
    try:
        file = path.open("rb")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    with file, tqdm(total=_count(file), unit=" lines", file=sys.stderr, desc="warm") as bar:
        for batch in _batches(file):
            accepted: dict[int, Accepted] = {}
            for number, line in batch:
                one = _accepted(parts, keys, line)
                if isinstance(one, str):
                    summary.refused.append(Refusal(number, one))
                elif (first := seen.setdefault(_id(one), number)) != number:
                    summary.refused.append(Refusal(number, f"asks the same as line {first}"))
                else:
                    accepted[number] = one
            there = set() if refresh else await _there(parts, keys, accepted)
            summary.skipped += len(there)
            new = {number: one for number, one in accepted.items() if number not in there}
            outcomes = await parts.store.answer(list(new.values()), keys)
            summary.refused += [
                Refusal(number, _told(outcome))
                for number, outcome in zip(new, outcomes, strict=True)
                if not isinstance(outcome, Stored)
            ]
            summary.stored += sum(isinstance(outcome, Stored) for outcome in outcomes)
            bar.update(len(batch))


def _accepted(parts: Parts, keys: TenantKeys, line: bytes) -> Accepted | str:
    """A line that may be stored, or why it may not."""
    try:
        one = parts.store.accept(_request(line), keys)
    except SemcachedError as error:
        return str(error)
    return _told(one) if isinstance(one, Refused) else one


def _told(why: Refused | SemcachedError) -> str:
    return f"the policy refuses it: {why.reason}" if isinstance(why, Refused) else str(why)


def _id(one: Accepted) -> str:
    return one.query.identities[0].entry_id


async def _there(parts: Parts, keys: TenantKeys, accepted: dict[int, Accepted]) -> set[int]:
    """The lines whose entry exists with the same answer."""
    ids = [_id(one) for one in accepted.values()]
    records = await parts.responses.records(keys, ids, Budget(parts.settings.redis_timeout_s))
    return {
        number
        for (number, one), record in zip(accepted.items(), records, strict=True)
        if record is not None and _same(record, one)
    }


def _same(record: Record, one: Accepted) -> bool:
    request = one.request
    return (
        record.response == bytes(request.response)
        and record.sources == list(dict.fromkeys(request.sources))
        and record.tags == list(dict.fromkeys(request.tags))
        and record.metadata == msgspec.json.encode(request.metadata)
    )


def _count(file: BinaryIO) -> int | None:
    if not file.seekable():  # a pipe
        return None
    count = sum(1 for line in file if line.strip())
    file.seek(0)
    return count


def _batches(file: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their numbers from 1; blank ones are passed over."""
    batch: list[tuple[int, bytes]] = []
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        if line.strip():
            batch.append((number, line))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
