"""What the service sends to Redis, seen by MONITOR: so that raw rows send exactly the same."""

import re
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

Command = tuple[bytes, ...]

_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def commands_of(redis: Redis, act: Callable[[], Any]) -> list[Command]:
    """The commands that anybody sent while `act` ran, and in the moment after it."""
    connection = redis.connection_pool.get_connection()
    try:
        connection.send_command("MONITOR")
        connection.read_response()
        act()
        time.sleep(0.01)  # until MONITOR has told of the last of it
        redis.echo("the end")
        return list(iter(lambda: parsed(connection.read_response()), (b"ECHO", b"the end")))
    finally:
        connection.disconnect()
        redis.connection_pool.release(connection)


def parsed(line: bytes) -> Command:
    """One line of MONITOR: time, [database address], arguments in quotes."""
    return tuple(_ESCAPE.sub(_plain, one) for one in _ARGUMENT.findall(line[line.index(b"] ") :]))


def _plain(escape: re.Match[bytes]) -> bytes:
    code, letter = escape.groups()
    return bytes([int(code, 16)]) if code else _NAMED.get(letter, letter)


def searches(commands: list[Command]) -> list[Command]:
    """Those for the nearest entries."""
    return [one for one in commands if any(b"KNN" in part or b"VECTOR_RANGE" in part for part in one[:3])]


def record_key(commands: list[Command]) -> bytes:
    """The record that an exact lookup read.

    Raises:
        LookupError: none was read.
    """
    for command in commands:
        for part in command[1:]:
            if b":responses:record:" in part:
                return part
    raise LookupError(f"no record was read: {[one[:2] for one in commands]}")
