"""The service as its users start it: a process with a data folder of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SEMCACHED = Path(sys.executable).with_name("semcached")
UP_S = 60


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """No SEMCACHED_ setting of the caller's, only these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SEMCACHED_")}
    named = {f"SEMCACHED_{name.upper()}": value for name, value in settings.items()}
    return clean | {"SEMCACHED_DATA_DIR": str(data_dir)} | named


def command(data_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [str(SEMCACHED), *arguments],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Served:
    """A running `semcached serve`."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.port = int(settings.pop("port", "0")) or free_port()
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [str(SEMCACHED), "serve"],
            env=environment(data_dir, port=str(self.port), **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - it was asked for
        with self.process.stdout as lines:
            for line in lines:
                self.said.append(line)

    def wait(self) -> "Served":
        """Until it is ready."""
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/readyz").status_code == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(self.end(signal.SIGKILL))

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal, wait for the end, and return what was printed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join(60)  # a worker may outlive the process it was started by
        self.http.close()
        return "".join(self.said)


@contextmanager
def served(data_dir: Path, **settings: str) -> Iterator[Served]:
    """A service that is ready; ended with SIGTERM if the test has not ended it."""
    service = Served(data_dir, **settings).wait()
    try:
        yield service
    finally:
        service.end()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_servers(data_dir: Path) -> list[int]:
    """Pids of servers that work in the folder, whoever their parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_redis = entry.name.isdigit() and b"redis-server" in (entry / "cmdline").read_bytes()
            if is_redis and (entry / "cwd").resolve() == data_dir.resolve():
                found.append(int(entry.name))
    return found


def gone(data_dir: Path) -> bool:
    """Whether no server works in the folder, waiting for one that is just ending."""
    deadline = time.monotonic() + 20
    while redis_servers(data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
