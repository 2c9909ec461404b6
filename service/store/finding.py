"""Finds what a predicate matches, by the indexes and page by page; changes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from service.cache.canonical import Vector
from service.cache.digests import TenantKeys
from service.cache.invalidation import (
    TAGS,
    Keyspace,
    Predicate,
    Subject,
    beyond_tags,
    matcher,
    matches,
    subject_of,
)
from service.cache.ports import Budget
from service.errors import StoreUnavailableError
from service.model import Generation
from service.store.client import Command, IndexMissingError, RedisClient, value_of
from service.store.diagnosis import pairs
from service.store.keys import Keys, entry_id_of
from service.store.records import unseal
from service.store.responses import RedisResponses, stored_when
from service.store.vectors import unpacked

UNKNOWN: Vector = np.zeros(1, np.float32)
"""Of what means something that can't be compared."""
PAGE = 500
RECORDS = 50
"""Records at a time: an answer may have a MiB."""
TURN_S = 0.005
READ_S = 2.0
"""A page of vectors or records takes longer than a lookup, and nobody waits behind it."""
TIMEOUT_MS = 1000
IDLE_MS = 30_000  # after which Redis forgets a cursor that we left behind

_json = msgspec.json.Encoder().encode


class Found(NamedTuple):
    """An entry that matches."""

    keyspace: Keyspace
    entry_id: str
    keys: tuple[str | bytes, ...]  # what holds it
    listed: tuple[str, bytes] | None = None  # a sorted set and its member that go with it
    live: bool = True  # False: only its place in the list is left


class Finder:
    """Pages of what is there."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout and the generation

    async def pages(
        self, keys: TenantKeys, predicate: Predicate, keyspace: Keyspace
    ) -> AsyncGenerator[list[Found]]:
        """What matches in a keyspace that the predicate reaches; an empty page says that time went by.

        Raises:
            StoreUnavailableError: Redis does not answer, or refuses.
        """
        if keyspace is Keyspace.EMBEDDINGS:
            for key in keys.keys:
                model = None if predicate.model is None else key.digest("model", predicate.model.encode())
                async for page in self._embeddings(keys, key.tenant, predicate, model):
                    yield page
        elif predicate.entry_id is not None:
            yield await self._one(keys, predicate, keyspace, predicate.entry_id)
        else:
            for one in await self._searched(keys, keyspace):
                async with aclosing(self._seen(keys, predicate, keyspace, one)) as pages:
                    async for rows in pages:
                        yield await self._matching(keys, predicate, keyspace, rows, one)

    async def _searched(self, keys: TenantKeys, keyspace: Keyspace) -> list[Generation]:
        """One live generation of each space, first ours: Redis may have evicted what one's index finds by."""
        followed, partition = self._generation(), self._responses.partition(keys)
        if keyspace is Keyspace.TOOLS:
            return [followed]
        spaces = self._responses.spaces
        spaces.hear(partition, await self._call(*spaces.asked(partition)))
        return spaces.of(partition, followed)

    async def _seen(
        self, keys: TenantKeys, predicate: Predicate, keyspace: Keyspace, generation: Generation
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """Documents that a generation's index has; of another than ours, those that ours lacks."""
        partition, followed = self._responses.partition(keys), self._generation()
        tools = keyspace is Keyspace.TOOLS
        index = self._keys.tool_index(partition) if tools else self._keys.index(partition, generation)
        ours, begun = tools or generation.space == followed.space, False
        try:
            async with aclosing(self._rows(index, keys, predicate)) as pages:
                async for rows in pages:
                    begun = True
                    yield rows if ours else await self._lacking(rows, predicate, partition, generation)
        except IndexMissingError:
            if ours or begun:
                raise  # else a migration is about to make it: nobody searches it yet

    async def _lacking(
        self,
        rows: Sequence[dict[str, Any]],
        predicate: Predicate,
        partition: int,
        generation: Generation,
    ) -> list[dict[str, Any]]:
        """Those of another generation that have no document in ours, or an older one.

        That one still says what is meant where the other's vector can't be compared.
        """
        followed = self._generation()
        alike = predicate.vector is None or generation.embedding == followed.embedding
        names = [self._keys.document(partition, followed, entry_id_of(row["__key"])) for row in rows]
        told = await self._redis.values([stored_when(name) for name in names], Budget(READ_S))
        return [
            row
            for row, at in zip(rows, told, strict=True)
            if at is None or (alike and float(row["stored_at"]) > int(at))
        ]

    def _generation(self) -> Generation:
        generation = self._responses.generation
        if generation is None:
            raise StoreUnavailableError("the service is not ready; /readyz says why")
        return generation

    def _with_meaning(
        self, subject: Subject, fields: Mapping[str, Any], partition: int, generation: Generation
    ) -> Subject:
        """With the vector that its document has.

        Where it may lack one because another model's process stored it, nobody knows what it means: its
        record has one (`embedding`).
        """
        raw = fields.get("vector")
        if raw is not None:
            return subject._replace(vector=unpacked(raw, generation), embedding=generation.embedding)
        unknown = subject.embedding is not None and self._differ(partition, generation)
        return subject._replace(vector=UNKNOWN if unknown else None, embedding=None)

    def _differ(self, partition: int, generation: Generation) -> bool:
        """Whether several models' generations are live."""
        return len({one.embedding for one in self._responses.spaces.of(partition, generation)}) > 1

    async def _rows(
        self, index: str, keys: TenantKeys, predicate: Predicate
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """Documents with the predicate's tags.

        Times are compared by us: a cursor over a numeric range ends early when the range's tree changes.
        """
        query, params = tag_query(keys, predicate)
        fields = ["@__key", "@stored_at"] + ["@vector"] * (predicate.vector is not None)
        cursor = ("WITHCURSOR", "COUNT", PAGE, "MAXIDLE", IDLE_MS, "TIMEOUT", TIMEOUT_MS, "DIALECT", 2)
        asked: Command = (index, query, "PARAMS", len(params), *params, "LOAD", len(fields), *fields)
        page, at = await self._call("FT.AGGREGATE", *asked, *cursor)
        try:
            while True:
                rows = [pairs(row) for row in page[1:]]  # before them, how many
                yield [row for row in rows if row.keys() >= {"__key", "stored_at"}]  # else it has expired
                if not at:
                    return
                page, at = await self._call("FT.CURSOR", "READ", index, at, "COUNT", PAGE)
        finally:
            if at:
                with suppress(StoreUnavailableError):
                    await self._call("FT.CURSOR", "DEL", index, at)

    async def _matching(
        self,
        keys: TenantKeys,
        predicate: Predicate,
        keyspace: Keyspace,
        rows: Sequence[Mapping[str, Any]],
        generation: Generation,
    ) -> list[Found]:
        """What of a page matches beyond its tags."""
        rest, partition = beyond_tags(predicate), self._responses.partition(keys)
        matching = matcher(rest, keyspace)
        read: Sequence[Mapping[str, Any]] = rows if rest.prompt_regex is not None else ()
        if not read and rest.vector is not None and self._differ(partition, generation):
            read = [row for row in rows if "vector" not in row]
        said = await self._said(keys, read)
        found, begun = [], perf_counter()
        for row in rows:
            if perf_counter() - begun > TURN_S:
                await asyncio.sleep(0)  # others have their turn
                begun = perf_counter()
            entry_id = entry_id_of(row["__key"])
            subject = said.get(entry_id) or Subject(keyspace, entry_id, embedding=generation.embedding)
            if keyspace is Keyspace.RESPONSES:
                subject = self._with_meaning(subject, row, partition, generation)
            if matching(subject, int(float(row["stored_at"]))):
                found.append(Found(keyspace, entry_id, self._kept(partition, keyspace, entry_id, generation)))
        return found

    async def _said(self, keys: TenantKeys, rows: Sequence[Mapping[str, Any]]) -> dict[str, Subject]:
        """Of a page's records, by id: the question, and whose vector it has."""
        ids = [entry_id_of(row["__key"]) for row in rows]
        said: dict[str, Subject] = {}
        for at in range(0, len(ids), RECORDS):
            records = await self._responses.records(keys, ids[at : at + RECORDS], Budget(READ_S))
            said |= {one.entry_id: subject_of(one, None) for one in records if one is not None}
        return said

    async def _one(
        self, keys: TenantKeys, predicate: Predicate, keyspace: Keyspace, entry_id: str
    ) -> list[Found]:
        """An entry by its id, if it is the tenant's and what else is asked for holds."""
        partition, generation = self._responses.partition(keys), self._generation()
        kept = self._kept(partition, keyspace, entry_id, generation)
        commands: list[Command] = [("MGET", kept[0]), ("HGETALL", kept[1])]
        blobs, flat = await self._redis.values(commands, Budget(READ_S))
        fields = pairs(flat)
        if keyspace is Keyspace.TOOLS:
            held = _has_tags(fields, keys, predicate) and matches(
                beyond_tags(predicate), Subject(keyspace, entry_id), int(fields.get("stored_at", 0))
            )
        else:
            record = unseal(blobs[0], entry_id, keys)
            held = record is not None and matches(
                predicate,
                self._with_meaning(subject_of(record, None), fields, partition, generation),
                record.stored_at,
            )
        return [Found(keyspace, entry_id, kept)] if held else []

    def _kept(
        self, partition: int, keyspace: Keyspace, entry_id: str, generation: Generation
    ) -> tuple[str, ...]:
        """The keys of an entry: record, then documents, first that of the index which is searched."""
        if keyspace is Keyspace.TOOLS:
            return self._keys.tool_record(partition, entry_id), self._keys.tool_document(partition, entry_id)
        documents = self._responses.spaces.documents(partition, generation, entry_id)
        return self._keys.record(partition, entry_id), *documents

    async def _embeddings(
        self, keys: TenantKeys, tenant: str, predicate: Predicate, model: str | None
    ) -> AsyncGenerator[list[Found]]:
        """By score, which what others add or remove doesn't shift, newest first."""
        partition = self._responses.partition(keys)
        listed = self._keys.embeddings(partition, tenant)
        top: str | bytes = "+inf"
        while page := await self._listed(listed, top):
            held = [
                Found(Keyspace.EMBEDDINGS, name, (self._keys.embedding(partition, name),), (listed, member))
                for member, score in page
                for name in [entry_id_of(member)]
                if (model is None or member.startswith(model.encode() + b":"))
                and (predicate.older_than_ms is None or score <= predicate.at - predicate.older_than_ms)
            ]
            there = await self._there([one.keys[0] for one in held])
            yield [one._replace(live=live) for one, live in zip(held, there, strict=True)]
            top = f"({page[-1][1]:.0f}"

    async def _listed(self, listed: str, top: str | bytes) -> list[tuple[bytes, float]]:
        """Members and scores below `top`, greatest first; all that share the last one's score among them."""
        page = await self._scored("ZRANGE", listed, top, "-inf", "BYSCORE", "REV", "LIMIT", 0, PAGE)
        if len(page) < PAGE:
            return page
        last = page[-1][1]
        ties = await self._scored("ZRANGE", listed, f"{last:.0f}", f"{last:.0f}", "BYSCORE")
        return [one for one in page if one[1] > last] + ties

    async def _scored(self, *command: str | bytes | float) -> list[tuple[bytes, float]]:
        flat = await self._call(*command, "WITHSCORES")
        return list(zip(flat[::2], map(float, flat[1::2]), strict=True))

    async def _there(self, names: Sequence[str | bytes]) -> list[bool]:
        commands: list[Command] = [("EXISTS", name) for name in names]
        return [bool(value_of(one)) for one in await self._redis.run(commands, Budget(READ_S))]

    async def _call(self, *command: str | bytes | float) -> Any:
        (reply,) = await self._redis.run([command], Budget(READ_S))
        return value_of(reply)


def tag_query(keys: TenantKeys, predicate: Predicate) -> tuple[str, list[str]]:
    """The tags of a predicate as a query, and its parameters; the tenant is always among them."""
    clauses = [("tenant", [key.tenant for key in keys.keys]), *_tags(keys, predicate)]
    words, params = [], []
    for at, (field, digests) in enumerate(clauses):
        names = [f"p{at}_{number}" for number in range(len(digests))]
        words.append(f"@{field}:{{{'|'.join('$' + name for name in names)}}}")
        params += [part for pair in zip(names, digests, strict=True) for part in pair]
    return " ".join(words), params


def _tags(keys: TenantKeys, predicate: Predicate) -> list[tuple[str, list[str]]]:
    """Fields of the index, each with what it may be: a digest under each secret."""
    wanted: list[tuple[str, bytes]] = []
    for name in TAGS:
        value = getattr(predicate, name)
        if name == "attributes":
            wanted += [("attribute", _json(pair)) for pair in (value or {}).items()]
        elif value is not None:
            wanted.append((name, value.encode()))
    return [(field, [key.digest(field, data) for key in keys.keys]) for field, data in wanted]


def _has_tags(fields: Mapping[str, Any], keys: TenantKeys, predicate: Predicate) -> bool:
    """Whether a document has the tags that a query would ask for."""
    wanted = [("tenant", [key.tenant for key in keys.keys]), *_tags(keys, predicate)]
    return all(
        not set(digests).isdisjoint(fields.get(field, b"").decode().split(",")) for field, digests in wanted
    )
