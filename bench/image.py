"""Follow the Dockerfile without an engine: build, then serve as the container would.

    sudo .venv/bin/python bench/image.py

Runs the build stage's RUN and COPY lines in a mount namespace of its own, where /opt/semcached and /build
are scratch folders, with this machine's Python 3.11 as the base image's. Then starts ENTRYPOINT and CMD
with ENV on a read-only root, as USER without capabilities, on an embedded Redis outside, asks, runs
HEALTHCHECK, and sends STOPSIGNAL. Says nothing about the base image, nor about the final stage's RUN on it.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from bench.processes import free_port
from service.store.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[1]
PREFIX, BUILD, DATA = Path("/opt/semcached"), Path("/build"), Path("/data")
INSIDE = "SEMCACHED_BENCH_INSIDE"
UP_S = 60


class Instruction(NamedTuple):
    """One line of a Dockerfile, continued lines joined."""

    name: str
    text: str


def instructions(text: str) -> list[list[Instruction]]:
    """The instructions of each stage."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: list[list[Instruction]] = []
    for line in joined.splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name == "FROM":
                stages.append([])
            stages[-1].append(Instruction(name, rest.strip()))
    return stages


def one(stage: list[Instruction], name: str) -> str:
    """The text of the stage's last instruction of that name."""
    return [each.text for each in stage if each.name == name][-1]


def variables(stage: list[Instruction]) -> dict[str, str]:
    """What ENV sets."""
    pairs = [pair for each in stage if each.name == "ENV" for pair in shlex.split(each.text)]
    return dict(pair.split("=", 1) for pair in pairs)


def health_command(stage: list[Instruction]) -> list[str]:
    """HEALTHCHECK's argument list."""
    command: list[str] = json.loads(one(stage, "HEALTHCHECK").partition("CMD ")[2])
    return command


def build(stage: list[Instruction], python: Path) -> None:
    """COPY from the checkout, RUN in /build."""
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": "/tmp"} | variables(stage)  # noqa: S108
    indexes = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for name, text in stage:
        if name == "RUN":
            subprocess.run(["sh", "-ec", text], cwd=BUILD, env=indexes | environment, check=True)
        elif name == "COPY":
            *sources, target = text.split()
            for source in sources:
                _copy(ROOT / source, BUILD / target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@contextlib.contextmanager
def container(stage: list[Instruction], url: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """The final stage's process: its user, environment and command, nothing writable but /data and /tmp."""
    user, _, group = one(stage, "USER").partition(":")
    os.chown(DATA, int(user), int(group))
    mounts = f"""
        mount -t tmpfs -o noexec,nosuid,nodev tmpfs /tmp
        mount -o remount,bind,ro {PREFIX}
        mount -o remount,bind,ro /
        if touch /probe 2>&- || touch {PREFIX}/probe 2>&-; then echo "the root is writable"; exit 9; fi
        exec "$@" """
    entry = [*json.loads(one(stage, "ENTRYPOINT")), *json.loads(one(stage, "CMD"))]
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", mounts, "sh", *as_user, "--bounding-set=-all", *entry],
        env=environment(stage) | {"SEMCACHED_REDIS_URL": url, "SEMCACHED_PORT": str(port)},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()


def environment(stage: list[Instruction]) -> dict[str, str]:
    """ENV, with what compose.yaml asks of its caller."""
    values = {name: value.replace("$PATH", "/usr/bin:/bin") for name, value in variables(stage).items()}
    return values | {"HOME": "/", "SEMCACHED_SECRET": "s" * 32, "SEMCACHED_ADMIN_KEY": "k" * 32}


def ask(port: int) -> None:
    """A store, then an exact and a semantic hit."""
    base, headers = f"http://127.0.0.1:{port}", {"Authorization": "Bearer " + "k" * 32}
    with httpx.Client(base_url=base, headers=headers, timeout=30, trust_env=False) as http:
        asked = {"agent_type": "support", "prompt": "How do I reset my password?"}
        http.post("/v1/cache/store", json=asked | {"response": "Settings."}).raise_for_status()
        for prompt, tier in [(asked["prompt"], "exact"), ("How can I reset my password?", "semantic")]:
            found = http.post("/v1/cache/lookup", json=asked | {"prompt": prompt}).json()
            print(f"lookup: {found['outcome']} {found.get('tier')}")
            if found.get("tier") != tier:
                sys.exit(f"expected a hit of the {tier} tier: {found}")


def wait(process: subprocess.Popen[str], port: int) -> float:
    """Seconds until it is ready."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < UP_S and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                return time.perf_counter() - begun
        time.sleep(0.02)
    process.kill()
    sys.exit(f"it did not start:\n{process.communicate()[0]}")


def inside(python: Path, url: str) -> None:
    """In the namespace: build, serve, ask, end."""
    building, final = instructions((ROOT / "Dockerfile").read_text("utf-8"))
    begun = time.perf_counter()
    build(building, python)
    size = sum(path.lstat().st_size for path in PREFIX.rglob("*"))
    print(f"built in {time.perf_counter() - begun:.0f} s; /opt/semcached: {size / 1e6:.0f} MB")
    port = free_port()
    with container(final, url, port) as process:
        print(f"ready in {wait(process, port):.2f} s")
        ask(port)
        status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        print(
            re.sub(
                r"\s+",
                " ",
                " ".join(re.findall(r"^(?:Uid|CapBnd|NoNewPrivs|VmRSS):.*", status, re.MULTILINE)),
            )
        )
        health = subprocess.run(
            health_command(final), env=environment(final) | {"SEMCACHED_PORT": str(port)}, check=False
        )
        process.send_signal(signal.Signals[one(final, "STOPSIGNAL")])
        output, _ = process.communicate(timeout=60)
    print(f"{output}health check: {health.returncode}; ended with {process.returncode} on STOPSIGNAL")
    sys.exit(health.returncode or process.returncode)


def main() -> None:
    if INSIDE in os.environ:
        python, url = json.loads(os.environ[INSIDE])
        inside(Path(python), url)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="/usr/bin/python3.11", help="one that every user may run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis", port=0) as redis:
        base = Path(folder) / "base"
        subprocess.run([arguments.python, "-m", "venv", "--without-pip", str(base)], check=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(base)]
        subprocess.run([*pip, "install", "pip"], check=True)
        for target in (PREFIX, BUILD, DATA):
            (Path(folder) / target.name).mkdir()
            target.mkdir(exist_ok=True)
        mounts = "\n".join(f"mount --bind {folder}/{each.name} {each}" for each in (PREFIX, BUILD, DATA))
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", mounts + '\nexec "$@"', "sh", sys.executable, __file__],
            env=os.environ | {INSIDE: json.dumps([str(base / "bin" / "python"), redis.url])},
            check=False,
        )
        for target in (PREFIX, BUILD, DATA):
            with contextlib.suppress(OSError):  # there was one already
                target.rmdir()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
