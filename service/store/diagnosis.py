"""What a Redis is, says of itself, and lets us do. Changes nothing."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import StoreUnavailableError
from service.store.client import Command, RedisClient, RedisRefusedError, refusal
from service.store.keys import Keys
from service.store.rates import FUNCTION

VECTOR_TYPES = ("FLOAT32", "FLOAT64", "FLOAT16", "BFLOAT16", "INT8", "UINT8")
_GRAPHS = ("HNSW", "SVS-VAMANA")


class NotAllowedError(StoreUnavailableError):
    """The ACL keeps this user from asking."""


async def ask(redis: RedisClient, *command: str | bytes | float, timeout_s: float | None = None) -> Any:
    """One command's reply; `timeout_s` as `RedisClient.call`.

    Raises:
        NotAllowedError: our user may not.
        StoreUnavailableError: as `RedisClient.call`.
    """
    try:
        return await redis.call(*command, timeout_s=timeout_s)
    except RedisRefusedError as error:
        if is_refusal(error):
            raise NotAllowedError(str(error)) from None
        raise


def is_refusal(reply: Any) -> bool:
    """Whether an error reply comes from the ACL."""
    return isinstance(reply, Exception) and "no permissions" in str(reply).lower()


def text(value: Any) -> str:
    """A bulk string, or a number, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(reply: Sequence[Any]) -> dict[str, Any]:
    """The map that a flat list stands for; values as they came."""
    return dict(zip(map(text, reply[::2]), reply[1::2], strict=False))


async def read_info(redis: RedisClient) -> dict[str, str]:
    """INFO's fields, modules' included; `module_search` is the search module's number."""
    reply = await ask(redis, "INFO", "everything")
    fields = dict(line.split(":", 1) for line in text(reply).splitlines() if ":" in line)
    for line in text(reply).splitlines():
        if line.startswith("module:name=search,"):
            fields["module_search"] = line.split("ver=")[1].split(",")[0]
    return fields


async def read_setting(redis: RedisClient, name: str) -> str | None:
    """CONFIG GET of one name; None where this Redis has no such."""
    found = pairs(await ask(redis, "CONFIG", "GET", name))
    return None if name not in found else text(found[name])


async def timeout_policy(redis: RedisClient, info: Mapping[str, str]) -> str:
    """What the search module does with a query that runs out of time: `fail` or a kind of `return`."""
    if policy := info.get("search_timeout_policy"):
        return policy.lower()
    if policy := await read_setting(redis, "search-on-timeout"):
        return policy.lower()
    ((_, value),) = await ask(redis, "FT.CONFIG", "GET", "ON_TIMEOUT")
    return text(value).lower()


async def skew_s(redis: RedisClient) -> float:
    """How far Redis's clock is ahead of ours, less what the round trip leaves open."""
    before = time.time()
    seconds, microseconds = await ask(redis, "TIME")
    after = time.time()
    ahead = int(seconds) + int(microseconds) / 1e6 - (before + after) / 2
    open_s = (after - before) / 2
    return max(0.0, abs(ahead) - open_s) * (1 if ahead > 0 else -1)


async def vector_types(redis: RedisClient, keys: Keys) -> list[str]:
    """Number types and graphs that the search module takes.

    By trial, over a prefix without keys, in one transaction: whatever becomes of us, no index stays. Of a
    user who may create but not drop, the transaction is refused as a whole.
    """
    name = keys.trial(secrets.token_hex(8))
    wanted = [("FLAT", kind) for kind in VECTOR_TYPES] + [(graph, "FLOAT32") for graph in _GRAPHS]
    trials = [trial for one in wanted for trial in (_trial(name, *one), ("FT.DROPINDEX", name))]
    replies = await redis.run([("MULTI",), *trials, ("EXEC",)])
    if error := next((reply for reply in replies if isinstance(reply, Exception)), None):
        raise NotAllowedError(str(error)) if is_refusal(error) else refusal(error)
    done = replies[-1]
    words = [graph if graph in _GRAPHS else kind for graph, kind in wanted]
    return [word for word, made in zip(words, done[::2], strict=True) if not isinstance(made, Exception)]


def _trial(name: str, graph: str, kind: str) -> Command:
    vector = (graph, 6, "TYPE", kind, "DIM", 8, "DISTANCE_METRIC", "COSINE")
    return ("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, name + ":", "SCHEMA", "vector", "VECTOR", *vector)


async def user(redis: RedisClient) -> str:
    """Who we are to Redis."""
    return text(await ask(redis, "ACL", "WHOAMI"))


async def lacking(redis: RedisClient, keys: Keys) -> list[str]:
    """Commands that the service sends and this user may not."""
    name = keys.trial(secrets.token_hex(8))
    needed: list[Command] = [
        ("GET", name),
        ("MGET", name),
        ("SET", name, "", "PX", 1),
        ("INCR", name),
        ("INCRBY", name, 1),
        ("PEXPIRE", name, 1),
        ("EXPIRE", name, 1, "NX"),
        ("EXISTS", name),
        ("PTTL", name),
        ("HGETALL", name),
        ("HSET", name, "field", ""),
        ("HDEL", name, "field"),
        ("ZADD", name, 1, "member"),
        ("ZREM", name, "member"),
        ("ZCARD", name),
        ("ZMSCORE", name, "member"),
        ("ZRANGE", name, 0, 0),
        ("ZREMRANGEBYRANK", name, 0, 0),
        ("ZREMRANGEBYSCORE", name, 0, 0),
        ("PEXPIREAT", name, 1),
        ("UNLINK", name),
        ("DEL", name),
        ("HGET", name, "field"),
        ("HSETNX", name, "field", ""),
        ("HMGET", name, "field"),
        ("PEXPIRETIME", name),
        ("ZUNIONSTORE", name, 1, name),
        ("MEMORY", "USAGE", name),
        ("ECHO", ""),
        ("FCALL", FUNCTION, 1, name),
        ("TIME",),
        ("CLIENT", "TRACKING", "OFF"),
        ("CLIENT", "CACHING", "YES"),
        ("FT.SEARCH", name, "*"),
        ("FT.AGGREGATE", name, "*"),
        ("FT.CURSOR", "READ", name, 1),
        ("FT.CREATE", name, "SCHEMA"),
        ("FT.INFO", name),
        ("FT._LIST",),
    ]
    replies = await _queued(redis, needed)
    return [_name(command) for command, reply in zip(needed, replies, strict=True) if is_refusal(reply)]


def _name(command: Command) -> str:
    return " ".join(map(str, command[: 2 if command[0] == "CLIENT" else 1]))


async def needless(redis: RedisClient) -> list[str]:
    """Commands that would hurt in wrong hands, that we never send, and that this user may."""
    name = secrets.token_hex(8)  # outside of every prefix of ours
    dangerous: list[tuple[str, Command]] = [
        ("EVAL", ("EVAL", "return 1", 0)),
        ("CONFIG SET", ("CONFIG", "SET", name, "1")),
        ("ACL SETUSER", ("ACL", "SETUSER", name, name)),
        ("FLUSHALL", ("FLUSHALL", name)),
        ("KEYS", ("KEYS", name)),
        ("RESTORE", ("RESTORE", name, 0, "")),
        ("MODULE LOAD", ("MODULE", "LOAD", name)),
        ("reading other keys", ("GET", name)),
        ("writing other keys", ("DEL", name)),
    ]
    replies = await _queued(redis, [command for _, command in dangerous])
    return [
        word for (word, _), reply in zip(dangerous, replies, strict=True) if not isinstance(reply, Exception)
    ]


async def _queued(redis: RedisClient, commands: Sequence[Command]) -> list[Any]:
    """What Redis says to each command in a transaction, which is then discarded: the ACL is asked first.

    None is executed; and were one, by a proxy that knows no transactions, it would do no harm.
    """
    first = await redis.run([("MULTI",), ("DISCARD",)])
    if error := next((reply for reply in first if isinstance(reply, Exception)), None):
        raise NotAllowedError(str(error))
    return (await redis.run([("MULTI",), *commands, ("DISCARD",)]))[1:-1]
