"""What lies in Redis of a tenant: entries by counting queries; scopes and bytes from a sample."""

from collections.abc import Sequence
from typing import NamedTuple

from service.cache.digests import DigestKey, TenantKeys
from service.cache.figures import Entries, Sampled, Stock
from service.cache.ports import Budget
from service.store.client import Command, IndexMissingError, RedisClient, value_of
from service.store.diagnosis import pairs, text
from service.store.keys import Keys, entry_id_of
from service.store.responses import RedisResponses

TRIP_S = 5.0
TIMEOUT_MS = 2000
SCOPES = 1000
SIZED = 100


class Sample(NamedTuple):
    """Some of an index' entries: keys of documents, and their scopes where they have one."""

    entries: int
    documents: list[bytes]
    scopes: set[str]


async def read(
    redis: RedisClient, keys: Keys, responses: RedisResponses, tenant: TenantKeys, agent_type: str | None
) -> Stock:
    """Of a tenant, or of one agent_type.

    Raises:
        StoreUnavailableError: Redis does not answer, or nothing is served now.
    """
    partition, generation = responses.partition(tenant), responses.generation
    answers, tools = NOTHING, await _sample(redis, keys.tool_index(partition), tenant, agent_type)
    if generation is not None:
        answers = await _sample(redis, keys.index(partition, generation), tenant, agent_type)
    records = [keys.record(partition, entry_id_of(one)) for one in answers.documents[:SIZED]]
    answered = await _bytes(redis, [*answers.documents[:SIZED], *records])
    results = [keys.tool_record(partition, entry_id_of(one)) for one in tools.documents[:SIZED]]
    resulted = await _bytes(redis, [*tools.documents[:SIZED], *results])
    counted = answers.entries + tools.entries
    looked_at = len(answers.documents[:SIZED]) + len(tools.documents[:SIZED])
    return Stock(
        entries=Entries(
            responses=answers.entries,
            tools=tools.entries,
            embeddings=await _embeddings(redis, keys, partition, tenant) if agent_type is None else None,
        ),
        scopes=_sampled(len(answers.scopes), answers.entries, len(answers.documents)),
        bytes=_sampled(_reckoned(answered, answers) + _reckoned(resulted, tools), counted, looked_at),
    )


NOTHING = Sample(0, [], set())


async def _sample(redis: RedisClient, index: str, tenant: TenantKeys, agent_type: str | None) -> Sample:
    """How many entries, and some of them; an index that isn't there has none."""
    query, params = _query(tenant.keys, agent_type)
    ending: Command = ("PARAMS", len(params), *params, "TIMEOUT", TIMEOUT_MS, "DIALECT", 2)
    count: Command = ("FT.SEARCH", index, query, "LIMIT", 0, 0, *ending)
    load: Command = ("LOAD", 2, "@__key", "@scope", "LIMIT", 0, SCOPES)
    some: Command = ("FT.AGGREGATE", index, query, *load, *ending)
    try:
        (entries,), (_, *page) = [value_of(one) for one in await redis.run([count, some], Budget(TRIP_S))]
    except IndexMissingError:
        return NOTHING
    rows = [row for row in map(pairs, page) if "__key" in row]
    return Sample(
        entries, [row["__key"] for row in rows], {text(row["scope"]) for row in rows if "scope" in row}
    )


def _query(keys: Sequence[DigestKey], agent_type: str | None) -> tuple[str, list[str]]:
    """The tenant's, also under a previous secret."""
    wanted = {"tenant": [key.tenant for key in keys]}
    if agent_type is not None:
        wanted["agent_type"] = [key.digest("agent_type", agent_type.encode()) for key in keys]
    clauses: list[str] = []
    params: list[str] = []
    for field, digests in wanted.items():
        names = [f"{field}{at}" for at in range(len(digests))]
        clauses.append(f"@{field}:{{{'|'.join('$' + name for name in names)}}}")
        params += [part for pair in zip(names, digests, strict=True) for part in pair]
    return " ".join(clauses), params


async def _bytes(redis: RedisClient, names: Sequence[bytes | str]) -> int:
    replies = await redis.run([("MEMORY", "USAGE", name) for name in names], Budget(TRIP_S))
    return sum(value_of(reply) or 0 for reply in replies)


async def _embeddings(redis: RedisClient, keys: Keys, partition: int, tenant: TenantKeys) -> int:
    commands: list[Command] = [("ZCARD", keys.embeddings(partition, key.tenant)) for key in tenant.keys]
    return sum(value_of(reply) for reply in await redis.run(commands, Budget(TRIP_S)))


def _reckoned(size: int, sample: Sample) -> int:
    looked_at = len(sample.documents[:SIZED])
    return round(size / looked_at * sample.entries) if looked_at else 0


def _sampled(number: int, entries: int, looked_at: int) -> Sampled:
    return Sampled(number=number, sampled=entries > looked_at, sample=looked_at)
