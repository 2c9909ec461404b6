"""The entries of the keyspace `tools`: records and index documents."""

from collections.abc import Sequence

from service.cache.digests import TenantKeys
from service.cache.ports import Budget, NewTool
from service.model import ToolRecord
from service.store.client import Command, RedisClient, outcome, refusal
from service.store.keys import Keys
from service.store.records import seal_tool, unseal_tool
from service.store.responses import NO_END_MS, RedisResponses, number_of


class RedisTools:
    """Fulfils `cache.ports.ToolResults`."""

    def __init__(self, redis: RedisClient, keys: Keys, responses: RedisResponses) -> None:
        self._redis = redis
        self._keys = keys
        self._responses = responses  # knows the layout

    async def read(
        self, keys: TenantKeys, names: Sequence[str], budget: Budget
    ) -> tuple[list[ToolRecord | None], int]:
        """See `cache.ports.ToolResults`."""
        partition = self._responses.partition(keys)
        wanted = [self._keys.tool_record(partition, name) for name in names]
        (reply,) = await self._redis.run(
            [("MGET", *wanted, self._keys.invalidations_number(partition))], budget
        )
        if isinstance(reply, Exception):
            raise refusal(reply)
        *blobs, number = reply
        return [
            None if blob is None else unseal_tool(blob, name, keys)
            for name, blob in zip(names, blobs, strict=True)
        ], number_of(number)

    async def put(self, keys: TenantKeys, entry: NewTool, budget: Budget) -> None:
        """See `cache.ports.ToolResults`."""
        error = outcome(await self._redis.run(self._transaction(keys, entry), budget))
        if error is not None:
            raise error

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
