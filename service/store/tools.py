"""The entries of the keyspace `tools`: records and index documents."""

from collections.abc import Sequence
from typing import Any

from service.cache.digests import TenantKeys
from service.cache.invalidation import Newer, tool_subject
from service.cache.ports import Budget, NewTool
from service.cache.tickets import Ticket
from service.model import ToolRecord
from service.store.client import Command, RedisClient, outcome, value_of
from service.store.keys import Keys
from service.store.records import seal_tool, unseal_tool
from service.store.responses import NO_END_MS, RedisResponses, is_whole, number_of, stored_when


class RedisTools:
    """Fulfils `cache.ports.ToolResults`."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout
        self._log = responses.invalidations

    async def read(
        self, keys: TenantKeys, names: Sequence[str], budget: Budget
    ) -> tuple[list[ToolRecord | None], int]:
        """See `cache.ports.ToolResults`."""
        partition = self._responses.partition(keys)
        read: Command = (*("MGET", *self._records(keys, names)), self._keys.invalidations_number(partition))
        bound = [stored_when(self._keys.tool_document(partition, name)) for name in names]
        found, *times = await self._redis.run([read, *bound], budget)
        *blobs, last = value_of(found)
        records = _unsealed(names, blobs, keys)
        return [
            one if one is not None and is_whole(one.stored_at, time) else None
            for one, time in zip(records, times, strict=True)
        ], number_of(last)

    async def before(
        self, keys: TenantKeys, names: Sequence[str], lookup: Ticket | None, budget: Budget
    ) -> tuple[list[ToolRecord | None], Newer | None]:
        """See `cache.ports.ToolResults`."""
        commands: list[Command] = [("MGET", *self._records(keys, names))]
        commands += self._log.since_commands(keys, lookup) if lookup else []
        blobs, *log = await self._redis.run(commands, budget)
        return _unsealed(names, value_of(blobs), keys), self._log.newer(keys, log) if lookup else None

    async def put(self, keys: TenantKeys, entry: NewTool, budget: Budget) -> bool:
        """See `cache.ports.ToolResults`. In two steps where it follows a lookup, as `RedisResponses.put`."""
        if entry.lookup is None:
            await self._transact([*self._findable(keys, entry), *self._record(keys, entry)], budget)
            return True
        log = self._log.since_commands(keys, entry.lookup)
        said = await self._transact(self._findable(keys, entry), budget, log)
        late = self._log.newer(keys, said).refuses(tool_subject(entry.record), entry.lookup)
        partition = self._responses.partition(keys)
        document = self._keys.tool_document(partition, entry.record.entry_id)
        await self._transact([("UNLINK", document)] if late else self._record(keys, entry), budget)
        return not late

    async def _transact(
        self, commands: Sequence[Command], budget: Budget, then: Sequence[Command] = ()
    ) -> list[Any]:
        """What `then` brings."""
        replies = await self._redis.run([("MULTI",), *commands, ("EXEC",), *then], budget)
        error = outcome(replies[: len(commands) + 2])
        if error is not None:
            raise error
        return replies[len(commands) + 2 :]

    def _records(self, keys: TenantKeys, names: Sequence[str]) -> list[str]:
        partition = self._responses.partition(keys)
        return [self._keys.tool_record(partition, name) for name in names]

    def _findable(self, keys: TenantKeys, entry: NewTool) -> list[Command]:
        """The document in the place of all that was there."""
        partition, record = self._responses.partition(keys), entry.record
        names = [record.entry_id, *entry.superseded]
        gone = [*self._records(keys, names), *(self._keys.tool_document(partition, name) for name in names)]
        document = self._keys.tool_document(partition, record.entry_id)
        end: list[Command] = [] if record.expires_at is None else [("PEXPIREAT", document, record.expires_at)]
        return [("UNLINK", *gone), ("HSET", document, *_document(entry)), *end]

    def _record(self, keys: TenantKeys, entry: NewTool) -> list[Command]:
        """With it the lease goes."""
        partition, record = self._responses.partition(keys), entry.record
        key, end = self._keys.tool_record(partition, record.entry_id), record.expires_at
        lease = self._keys.lease(partition, record.entry_id)
        return [
            ("SET", key, seal_tool(record, keys.current), *(() if end is None else ("PXAT", end))),
            ("UNLINK", lease),
        ]


def _unsealed(
    names: Sequence[str], blobs: Sequence[bytes | None], keys: TenantKeys
) -> list[ToolRecord | None]:
    return [
        None if blob is None else unseal_tool(blob, name, keys)
        for name, blob in zip(names, blobs, strict=True)
    ]


def _document(entry: NewTool) -> Command:
    record = entry.record
    fields: dict[str, str | int] = {
        "tenant": record.tenant,
        "agent_type": entry.agent_type,
        "tool": entry.tool,
        "source": ",".join(entry.sources),
        "stored_at": record.stored_at,
        "expires_at": NO_END_MS if record.expires_at is None else record.expires_at,
    }
    return tuple(part for name, value in fields.items() if value for part in (name, value))
