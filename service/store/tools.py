"""The entries of the keyspace `tools`: records and index documents."""

from collections.abc import Sequence

from service.cache.digests import TenantKeys
from service.cache.invalidation import Newer, tool_subject
from service.cache.ports import Budget, NewTool
from service.cache.tickets import Ticket
from service.model import ToolRecord
from service.store.client import Command, RedisClient, outcome, value_of
from service.store.eviction import there
from service.store.keys import Keys
from service.store.records import seal_tool, unseal_tool
from service.store.responses import NO_END_MS, RedisResponses, number_of


class RedisTools:
    """Fulfils `cache.ports.ToolResults`."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout
        self._log = responses.invalidations
        self._eviction = responses.eviction

    async def read(
        self, keys: TenantKeys, names: Sequence[str], budget: Budget
    ) -> tuple[list[ToolRecord | None], int]:
        """See `cache.ports.ToolResults`."""
        partition = self._responses.partition(keys)
        number = self._keys.invalidations_number(partition)
        documents = [self._keys.tool_document(partition, name) for name in names]
        read: Command = ("MGET", *self._records(keys, names), number)
        found, *said = await self._redis.run([read, *self._eviction.asked(documents)], budget)
        *blobs, last = value_of(found)
        whole = there(said, len(names))
        kept = [blob if is_whole else None for blob, is_whole in zip(blobs, whole, strict=True)]
        return _unsealed(names, kept, keys), number_of(last)

    async def before(
        self, keys: TenantKeys, names: Sequence[str], lookup: Ticket | None, budget: Budget
    ) -> tuple[list[ToolRecord | None], Newer | None]:
        """See `cache.ports.ToolResults`."""
        commands: list[Command] = [("MGET", *self._records(keys, names))]
        commands += [self._log.since_command(keys, lookup)] if lookup else []
        blobs, *log = await self._redis.run(commands, budget)
        return _unsealed(names, value_of(blobs), keys), self._log.newer(keys, log[0]) if log else None

    async def put(self, keys: TenantKeys, entry: NewTool, budget: Budget) -> bool:
        """See `cache.ports.ToolResults`."""
        commands = self._transaction(keys, entry)
        length = len(commands)
        commands += [self._log.since_command(keys, entry.lookup)] if entry.lookup else []
        replies = await self._redis.run(commands, budget)
        error = outcome(replies[:length])
        if error is not None:
            raise error
        if entry.lookup is None or not self._log.refuses(
            keys, replies[-1], tool_subject(entry.record), entry.lookup
        ):
            return True
        await self._take_back(keys, entry.record.entry_id, budget)
        return False

    async def _take_back(self, keys: TenantKeys, name: str, budget: Budget) -> None:
        partition = self._responses.partition(keys)
        pair = (self._keys.tool_record(partition, name), self._keys.tool_document(partition, name))
        await self._redis.values([("UNLINK", *pair)], budget)

    def _records(self, keys: TenantKeys, names: Sequence[str]) -> list[str]:
        partition = self._responses.partition(keys)
        return [self._keys.tool_record(partition, name) for name in names]

    def _transaction(self, keys: TenantKeys, entry: NewTool) -> list[Command]:
        partition, record = self._responses.partition(keys), entry.record
        key = self._keys.tool_record(partition, record.entry_id)
        document = self._keys.tool_document(partition, record.entry_id)
        end = record.expires_at
        gone = [self._keys.tool_record(partition, old) for old in entry.superseded]
        gone += [self._keys.tool_document(partition, old) for old in entry.superseded]
        return [
            ("MULTI",),
            ("SET", key, seal_tool(record, keys.current), *(() if end is None else ("PXAT", end))),
            ("UNLINK", document, self._keys.lease(partition, record.entry_id), *gone),
            ("HSET", document, *_document(entry)),
            *([] if end is None else [("PEXPIREAT", document, end)]),
            ("EXEC",),
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
