"""What the speed benches run against: Redis, the service, the servers beside it; and what they are asked."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import msgspec
from redis import Redis

from bench.load import NUMBER, Job, http_requests
from bench.noop import doing_nothing
from bench.paired import Contender, family
from bench.processes import Served, served
from service.model import GuardName
from service.settings import Settings

UNCOUNTED = {"date", "content-length", "content-type"}
"""Headers that any server here adds."""
GUARDS_OFF = dict.fromkeys(get_args(GuardName), False)


class Op(NamedTuple):
    """A request that is measured."""

    name: str
    path: str
    bodies: Sequence[Any]
    expected: Sequence[str]  # in each answer
    tolerated: float = 0  # but for this share


class Place(NamedTuple):
    """A running Redis, and how it is reached."""

    redis: Redis
    pid: int | None  # None: it runs elsewhere
    address: str  # as Job has it


class Asked(NamedTuple):
    """A service that runs, and the API key it is asked with."""

    port: int
    pids: tuple[int, ...]
    headers: tuple[str, ...]

    def job(self, op: Op, callers: int, seconds: float) -> Job:
        return Job(
            protocol="http",
            address=f"127.0.0.1:{self.port}",
            requests=http_requests(op.path, op.bodies, self.headers),
            expected=[b"HTTP/1.1 20", *(one.encode() for one in op.expected)],
            callers=callers,
            tolerated=op.tolerated,
            seconds=seconds,
        )

    def contender(self, name: str, op: Op, callers: int, seconds: float) -> Contender:
        return Contender(name, self.job(op, callers, seconds), self.pids)

    def post(self, path: str, body: Any) -> httpx.Response:
        """One request, as a client library sends it."""
        headers = dict(line.split(": ", 1) for line in self.headers)
        url = f"http://127.0.0.1:{self.port}{path}"
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = client().post(url, content=data, headers=headers)
        return answer.raise_for_status()

    def put_policy(self, agent_type: str, **policy: Any) -> None:
        headers = dict(line.split(": ", 1) for line in self.headers)
        url = f"http://127.0.0.1:{self.port}/v1/policies"
        client().put(url, params={"agent_type": agent_type}, json=policy, headers=headers).raise_for_status()


@cache
def client() -> httpx.Client:
    """Made once: making one takes longer than any request."""
    return httpx.Client(timeout=60)


def place(url: str) -> Place:
    """The Redis at a URL: a unix socket, or host and port without TLS."""
    redis = Redis.from_url(url, protocol=2)
    where = redis.connection_pool.connection_kwargs
    address = where.get("path") or f"{where['host']}:{where['port']}"
    server: Any = redis.info("server")
    pid = int(server["process_id"])
    try:
        here = b"redis" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        here = False
    return Place(redis, pid if here else None, address)


def versions(redis: Redis) -> dict[str, str]:
    modules: Any = redis.info("modules")
    server: Any = redis.info("server")
    search = next(one["ver"] for one in modules["modules"] if one["name"] == "search")
    return {"redis": server["redis_version"], "search": str(search)}


def memory_off() -> dict[str, str]:
    """The setting that switches the process-local tier off, where the version has that tier."""
    known = any(one.name == "memory_bytes" for one in fields(Settings))
    return {"memory_bytes": "0"} if known else {}


@contextmanager
def asked(folder: Path, url: str, key: str, **settings: str) -> Iterator[Asked]:
    """A service over a Redis; `key` is an API key that it knows."""
    with served(folder, redis_url=url, redis_timeout_s="5", verifier="off", **settings) as service:
        yield of(service, key)


def of(service: Served, key: str) -> Asked:
    return Asked(service.port, family(service.process.pid), (f"authorization: Bearer {key}",))


@contextmanager
def noops(folder: Path, service: Asked, ops: Sequence[Op], workers: int = 1) -> Iterator[dict[str, Asked]]:
    """The no-op servers, by kind; each answers each op as the service does now, in size and headers."""
    answers = folder / "noop.json"
    answers.write_text(json.dumps({silent(op).path: shape(service, op) for op in ops}))
    with (
        doing_nothing("litestar", answers, workers) as (framed, framed_pid),
        doing_nothing("asgi", answers, workers) as (bare, bare_pid),
    ):
        yield {
            "no-op Litestar": Asked(framed, family(framed_pid), service.headers),
            "no-op ASGI": Asked(bare, family(bare_pid), service.headers),
        }


def shape(service: Asked, op: Op) -> dict[str, Any]:
    """Size and headers of the answer to an op."""
    body = msgspec.json.encode(op.bodies[0]).replace(NUMBER, b"shape 000")
    answer = service.post(op.path, body)
    headers = {name: value for name, value in answer.headers.items() if name not in UNCOUNTED}
    return {"size": len(answer.content), "headers": headers}


def silent(op: Op) -> Op:
    """The op as the no-op servers have it."""
    return op._replace(path=f"/{op.name.replace(' ', '-')}", expected=())


def doing(name: str, kind: Asked, op: Op, callers: int, seconds: float) -> Contender:
    """A no-op server as a contender: the same bytes go to it, its answer is only counted."""
    return kind.contender(name, silent(op), callers, seconds)
