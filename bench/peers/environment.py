"""The peers' packages: in an environment of their own, made where it is missing or its lock has changed."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

LOCK = Path(__file__).with_name("requirements.lock")


class Absent(NamedTuple):
    """Why a contender isn't measured."""

    why: str


def kept(cache: Path) -> Path | Absent:
    """Its Python, if it is there and up to date."""
    folder = cache.absolute() / "peers-venv"
    stamp = folder / "lock"
    if stamp.exists() and stamp.read_text() == digest():
        return folder / "bin" / "python"
    return Absent(f"needs an environment of its own in {cache}: leave out --here, which makes it")


def made(cache: Path) -> Path | Absent:
    """Its Python, installed if need be."""
    found = kept(cache)
    if isinstance(found, Path):
        return found
    folder = cache.absolute() / "peers-venv"
    print(f"installing the peers into {folder}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", str(LOCK)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return Absent(f"can't be installed: {done.stderr.strip().splitlines()[-1]}")
    (folder / "lock").write_text(digest())
    return folder / "bin" / "python"


def digest() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()
