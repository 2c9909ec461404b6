"""`semcached warm`: fills the cache from a JSON Lines file, in the batches of the HTTP API.

Resumable and idempotent without a checkpoint: entries that are there with the same answer are skipped
before anything is embedded, so a second run goes on where the first one ended.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from tqdm import tqdm

from service.api.wire import decoder
from service.cache.digests import TenantKeys
from service.cache.store import Accepted
from service.errors import SemcachedError, SettingsError
from service.model import Record, Refused, StoreRequest
from service.wiring import Parts

BATCH = 64


class Refusal(NamedTuple):
    """A line that was not stored."""

    line: int
    why: str


class Summary(NamedTuple):
    """What became of the lines."""

    stored: int
    skipped: int
    refused: list[Refusal]


_request = decoder(StoreRequest)


async def warm(parts: Parts, keys: TenantKeys, path: Path, *, refresh: bool) -> Summary:
    """Store every line of a file; `refresh` also those that are there already.

    Raises:
        SettingsError: the file can't be read.
        StoreUnavailableError: Redis went away; run it again to go on.
    """
    stored = skipped = 0
    refused: list[Refusal] = []
    try:
        file = path.open("rb")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    with file, tqdm(total=_count(file), unit=" lines", file=sys.stderr, desc="warm") as bar:
        for batch in _batches(file):
            accepted: dict[int, Accepted] = {}
            for number, line in batch:
                try:
                    one = parts.store.accept(_request(line), keys)
                except (SemcachedError, RecursionError) as error:
                    refused.append(Refusal(number, str(error)))
                    continue
                if isinstance(one, Refused):
                    refused.append(Refusal(number, f"the policy refuses it: {one.reason}"))
                else:
                    accepted[number] = one
            if not refresh:
                there = await _there(parts, keys, accepted)
                skipped += len(there)
                accepted = {number: one for number, one in accepted.items() if number not in there}
            outcomes = await parts.store.answer(list(accepted.values()), keys)
            for number, outcome in zip(accepted, outcomes, strict=True):
                if isinstance(outcome, SemcachedError):
                    refused.append(Refusal(number, str(outcome)))
                else:
                    stored += 1
            bar.update(len(batch))
    return Summary(stored, skipped, sorted(refused))


async def _there(parts: Parts, keys: TenantKeys, accepted: dict[int, Accepted]) -> set[int]:
    """The lines whose entry exists with the same answer."""
    ids = [one.query.identities[0].entry_id for one in accepted.values()]
    records = await parts.responses.records(keys, ids)
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


def _count(file: BinaryIO) -> int:
    count = sum(1 for line in file if line.strip())
    file.seek(0)
    return count


def _batches(file: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Lines with their numbers from 1; blank ones are passed over."""
    batch: list[tuple[int, bytes]] = []
    for number, line in enumerate(file, 1):
        if line.strip():
            batch.append((number, line))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
