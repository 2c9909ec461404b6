"""What docs/redis.acl refuses. What it must allow, the rest of the suite shows: it runs under it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis, exceptions

from service.errors import StartupError
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.wiring import Loaded, opened
from tests.acl import FILE, MIGRATE, SERVICE, as_service

NEVER = """
    EVAL return(1) 0 | EVAL_RO return(1) 0 | EVALSHA 0 0 | EVALSHA_RO 0 0
    SCRIPT LOAD return(1) | SCRIPT FLUSH
    FUNCTION DELETE x | FUNCTION FLUSH | FUNCTION RESTORE x | FUNCTION DUMP | FUNCTION KILL
    CONFIG SET maxmemory 1 | CONFIG REWRITE | CONFIG RESETSTAT | DEBUG SLEEP 0 | DEBUG SEGFAULT
    MODULE LOAD /x.so | MODULE LOADEX /x.so | MODULE UNLOAD search | MODULE LIST
    ACL SETUSER x on | ACL DELUSER x | ACL LIST | ACL GETUSER semcached | ACL LOAD | ACL SAVE | ACL LOG
    FLUSHALL | FLUSHDB | KEYS * | RANDOMKEY | DBSIZE | SWAPDB 0 1 | SHUTDOWN NOSAVE | FAILOVER
    REPLICAOF NO ONE | SLAVEOF NO ONE | SYNC | PSYNC x 0 | REPLCONF ACK 0 | WAIT 0 0
    SAVE | BGSAVE | BGREWRITEAOF | LASTSAVE | ROLE
    CLIENT KILL 127.0.0.1:1 | CLIENT LIST | CLIENT PAUSE 1 | CLIENT NO-EVICT on | MONITOR | SLOWLOG GET
    LATENCY RESET | MEMORY PURGE | CLIENT TRACKINGINFO | CLIENT GETREDIR
    SUBSCRIBE x | PSUBSCRIBE * | SSUBSCRIBE x | PUBLISH x y | SPUBLISH x y | PUBSUB CHANNELS
    CLUSTER INFO | CLUSTER RESET | CLUSTER NODES | READONLY | ASKING
    DUMP sc:a | RESTORE sc:a 0 x | MIGRATE h 1 sc:a 0 1 | MOVE sc:a 1 | COPY sc:a sc:b | RENAME sc:a sc:b
    SORT sc:a | SORT_RO sc:a | OBJECT ENCODING sc:a | TYPE sc:a | PERSIST sc:a | APPEND sc:a x | GETDEL sc:a
    SETRANGE sc:a 99999999 x | LPUSH sc:a x | BLPOP sc:a 0 | XADD sc:a * f v | PFADD sc:a x | SADD sc:a x
    FT.ALIASADD sc:x sc:i | FT.SUGADD sc:s x 1 | FT.EXPLAIN sc:i *
    FT.PROFILE sc:i SEARCH QUERY *
"""
# Allowed commands, on what isn't ours.
ELSEWHERE = """
    GET other | SET other x | DEL other | UNLINK sc:a other | EXISTS other | PTTL other | PEXPIREAT other 1
    HSET other f v | HGETALL other | FCALL f 1 other | GET scx | GET sc | FT.INFO other
    MGET sc:a other | INCR other | INCRBY other 1 | HDEL other f | PEXPIRE other 1
    ZADD other 1 m | ZREM other m | ZCARD other | ZRANGE other 0 0 | ZREMRANGEBYRANK other 0 0
    ZREMRANGEBYSCORE other 0 0 | FT.AGGREGATE other * | FT.CURSOR READ other 1 | ZMSCORE other m
    ZUNIONSTORE sc:a 1 other | ZUNIONSTORE other 1 sc:a | HSETNX other f v | HGET other f
    MEMORY USAGE other | FT.SEARCH other * | FT.CREATE other PREFIX 1 sc: SCHEMA a TAG
"""
# What migrations and the doctor need, and the service doesn't.
MIGRATIONS = """
    FT.DROPINDEX sc:i | FT.ALTER sc:i SCHEMA ADD x TAG | FT.CONFIG GET TIMEOUT | SCAN 0
    FUNCTION LOAD x | FUNCTION LIST | CONFIG GET maxmemory
"""

NOT_THERE = ["FT.DROPINDEX other", "FT.ALTER other SCHEMA ADD x TAG"]


def commands(text: str) -> list[str]:
    return [command.strip() for line in text.strip().splitlines() for command in line.split("|")]


@pytest.fixture
def user(redis_server: EmbeddedRedis, request: pytest.FixtureRequest) -> Iterator[Redis]:
    with Redis.from_url(as_service(redis_server.url, request.param), protocol=2) as client:
        yield client


def refused(client: Redis, command: str) -> bool:
    """Really sent."""
    try:
        client.execute_command(*command.split())
    except exceptions.NoPermissionError:
        return True
    except exceptions.ResponseError:
        return False
    return False


@pytest.mark.parametrize("user", [SERVICE], indirect=True)
def test_the_service_may_do_nothing_else(user: Redis) -> None:
    forbidden = commands(NEVER) + commands(ELSEWHERE) + commands(MIGRATIONS)
    assert len(forbidden) >= 40
    assert [command for command in forbidden if not refused(user, command)] == []


@pytest.mark.parametrize("user", [MIGRATE], indirect=True)
def test_migrations_may_do_little_more(user: Redis) -> None:
    forbidden = commands(NEVER) + commands(ELSEWHERE) + NOT_THERE
    assert [command for command in forbidden if not refused(user, command)] == []
    assert [command for command in commands(MIGRATIONS) if refused(user, command)] == []


@pytest.mark.anyio
async def test_each_user_sets_up_an_empty_redis(settings: Settings, redis: Redis, models: Loaded) -> None:
    """Migrations may run under either; the service does, on its first start."""
    for user, prefix in [(SERVICE, settings.key_prefix), (MIGRATE, settings.key_prefix[:-1] + "x")]:
        url = as_service(settings.redis_url or "", user)
        async with opened(replace(settings, key_prefix=prefix), url, models) as parts:
            await parts.attach(lambda _: None)
            assert parts.responses.generation is not None
    for index in ("responses", "tools"):
        redis.execute_command("FT.DROPINDEX", f"{prefix}:{{0}}:{index}:index:1")
    redis.delete(*redis.scan_iter(f"{prefix}:*", count=1000))


def test_an_admin_may_do_all_of_it(redis: Redis) -> None:
    """So none was refused for being misspelt. DRYRUN also finds wrong numbers of arguments."""
    for command in commands(NEVER) + commands(ELSEWHERE) + commands(MIGRATIONS):
        assert redis.execute_command("ACL", "DRYRUN", "default", *command.split()) == b"OK", command


def test_the_file_as_it_stands_lets_nobody_in(tmp_path: Path) -> None:
    with pytest.raises(StartupError):
        EmbeddedRedis(tmp_path, options=["--aclfile", str(FILE)]).start()
    assert "password hash" in (tmp_path / "redis.log").read_text()


def test_without_a_password_nobody_gets_in(redis_server: EmbeddedRedis) -> None:
    url = as_service(redis_server.url).replace("password", "guess")
    with Redis.from_url(url, protocol=2) as client, pytest.raises(exceptions.AuthenticationError):
        client.ping()
