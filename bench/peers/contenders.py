"""Who is measured, and the processes that it takes: a worker each, and a Redis of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from bench.lookups import cpu_ns
from bench.peers.environment import Absent, kept, made
from bench.peers.work import Work
from bench.processes import Served, environment, redis_servers, served
from service.store.embedded import EmbeddedRedis, running_url

ROOT = Path(__file__).resolve().parents[2]
OURS = "semcached"


class Contender(NamedTuple):
    """A way to cache. `family`: as --peers names it; `of`: whose cache it shares; `most`: entries.

    `tenants`: the form that keeps them apart.
    """

    name: str
    family: str
    worker: str
    form: str = ""
    redis: bool = True
    of: str | None = None
    most: int | None = None
    tenants: str | None = None


ALL = [
    Contender(OURS, OURS, "http", "raw", redis=False, tenants="raw"),
    Contender("semcached, Python client", OURS, "http", "client", redis=False, of=OURS, tenants="client"),
    Contender("semcached, in-process", OURS, "inprocess", redis=False, of=OURS, tenants="any"),
    Contender("redisvl SemanticCache", "redisvl", "redisvl", tenants="filtered"),
    Contender("LangChain RedisSemanticCache", "langchain", "langchain"),
    Contender("GPTCache", "gptcache", "gptcache", redis=False),
    Contender("GPTCache, no report", "gptcache", "gptcache", "no report", redis=False),
    Contender("full scan", "scan", "scan", "get", most=10_000),
    Contender("full scan, pipelined", "scan", "scan", "pipelined", most=100_000),
]
FAMILIES = list(dict.fromkeys(one.family for one in ALL if one.family != OURS))
NEEDS_OWN = {"gptcache"}
"""What the service's development environment hasn't."""


class Servers(NamedTuple):
    """What a worker speaks to. `target`: as it is told; `redis`: the address of the Redis behind."""

    target: str
    redis: str | None
    pids: dict[str, int]


class Running:
    """A worker that waits for orders."""

    def __init__(
        self, contender: Contender, process: subprocess.Popen[str], servers: "Servers", errors: Path
    ) -> None:
        self.contender, self.process, self.servers, self.errors = contender, process, servers, errors
        self.versions: dict[str, str] = self._answer()["versions"]

    def do(self, what: str, **told: Any) -> Any:
        """One order, and its answer.

        Raises:
            RuntimeError: the worker ended; its stderr says why.
        """
        assert self.process.stdin is not None  # noqa: S101 - it was asked for
        self.process.stdin.write(json.dumps({"do": what} | told) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None  # noqa: S101 - it was asked for
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"its worker ended with {self.process.wait(60)}: {last(self.errors)}")

    def cpu_ms(self) -> dict[str, float]:
        """Of each process beside the worker, since it began."""
        return {name: cpu_ns(pid) / 1e6 for name, pid in self.servers.pids.items()}

    def used(self) -> int | None:
        """Bytes in Redis, or what the worker tells."""
        if self.servers.redis is None:
            told: int | None = self.do("size")["bytes"]
            return told
        with Redis.from_url(self.servers.redis) as redis:
            info: Any = redis.info("memory")
            return int(info["used_memory"])


class Field:
    """Starts contenders over one work; ends with its stack."""

    def __init__(self, stack: ExitStack, work: Work, folder: Path, threshold: float) -> None:
        self.stack, self.work, self.folder, self.threshold = stack, work, folder, threshold
        self._service: tuple[Served, str, int] | None = None

    def start(self, contender: Contender, python: Path) -> Running | Absent:
        """Start its Redis or the service, and its worker."""
        if contender.most is not None and self.work.size > contender.most:
            return Absent(f"not run beyond {contender.most:,} entries: its time grows with them")
        if self.work.tenants > 1 and contender.tenants is None:
            return Absent("has no filter: each tenant would need a cache of its own")
        form = contender.form if self.work.tenants == 1 else contender.tenants or ""
        place = self.folder / contender.name.replace(" ", "-").replace(",", "")
        place.mkdir()
        servers = self._servers(contender, place)
        module = f"bench.peers.workers.{contender.worker}_worker"
        given = [str(self.work.folder), servers.target, str(place), str(self.threshold), form]
        process = self.stack.enter_context(
            process_of([str(python), "-m", module, *given], place / "stderr", place)
        )
        try:
            return Running(contender, process, servers, place / "stderr")
        except RuntimeError as error:
            return Absent(str(error))

    def _servers(self, contender: Contender, place: Path) -> Servers:
        if contender.family == OURS:
            service, url, redis_pid = self._ours()
            if contender.worker == "inprocess":
                return Servers(f"{url} {service.data_dir}", url, {"redis": redis_pid})
            return Servers(str(service.port), url, {"service": service.process.pid, "redis": redis_pid})
        if contender.redis:
            redis = self.stack.enter_context(EmbeddedRedis(place))
            return Servers(redis.url, redis.url, {"redis": redis.pid} if redis.pid else {})
        return Servers("", None, {})

    def _ours(self) -> tuple[Served, str, int]:
        if self._service is None:
            folder = self.folder / "service"
            service = self.stack.enter_context(served(folder, verifier="off", redis_timeout_s="5"))
            url = running_url(folder)
            if url is None:
                raise RuntimeError(f"no Redis answers in {folder}")
            self._service = service, url, redis_servers(folder)[0]
        return self._service


@contextmanager
def process_of(command: list[str], errors: Path, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker; it ends when its stdin does."""
    with (
        errors.open("w") as told,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(place),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def last(file: Path) -> str:
    lines = file.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def pythons(cache: Path, *, here: bool) -> Callable[[Contender], Path | Absent]:
    """Whose environment runs whom. `here`: this one, for all that it can."""
    own: list[Path | Absent] = []

    def python(contender: Contender) -> Path | Absent:
        if contender.family == OURS or (here and contender.family not in NEEDS_OWN):
            return Path(sys.executable)
        if not own:
            own.append((kept if here else made)(cache))
        return own[0]

    return python
