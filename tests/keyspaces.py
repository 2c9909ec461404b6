"""Tool results and embeddings as they lie in Redis, written by hand."""

from collections.abc import Sequence

from redis import Redis

from service.cache.digests import DigestKey
from service.store.keys import Keys

NO_END_MS = 2**53


def write_tool(
    redis: Redis,
    prefix: str,
    key: DigestKey,
    *,
    call: str,
    agent_type: str = "a",
    tool: str = "search",
    sources: Sequence[str] = (),
    stored_at: int = 1,
) -> str:
    """A record, and the document that the index sees; its id."""
    names, name = Keys(prefix), key.digest("tool call", call.encode())
    fields: dict[str, str | int] = {
        "tenant": key.tenant,
        "agent_type": key.digest("agent_type", agent_type.encode()),
        "tool": key.digest("tool", tool.encode()),
        "source": ",".join(key.digest("source", one.encode()) for one in sources),
        "stored_at": stored_at,
        "expires_at": NO_END_MS,
    }
    redis.set(names.tool_record(0, name), b"sealed")
    redis.hset(
        names.tool_document(0, name), mapping={field: value for field, value in fields.items() if value}
    )
    return name


def write_embedding(
    redis: Redis, prefix: str, key: DigestKey, *, text: str, model: str = "m", stored_at: int = 1
) -> str:
    """A value, and its member in the list; its name."""
    names, name = Keys(prefix), key.digest("embedding", f"{model} {text}".encode())
    redis.set(names.embedding(0, name), b"sealed")
    member = f"{key.digest('model', model.encode())}:{name}"
    redis.zadd(names.embeddings(0, key.tenant), {member: stored_at})
    return name
