"""`semcached migrate` in processes that may be killed.

They are forked from a server that has imported all of it: nearly all of their time is the migration's.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import NamedTuple

from service import cli, wiring
from service.settings import PREFIX

PRELOADED = [__name__, wiring.__name__]
LONGEST_S = 120.0


class Ended(NamedTuple):
    """What became of one."""

    code: int
    said: str


class Migrator:
    """One that runs."""

    def __init__(self, process: "multiprocessing.context.ForkServerProcess", said: Path) -> None:
        self._process, self._said = process, said

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.join()

    def end(self) -> Ended:
        """Wait for its end.

        Raises:
            TimeoutError: it hangs; it is killed.
        """
        if not self.ends_within(LONGEST_S):
            self.kill()
            raise TimeoutError(f"a migrator has not ended in {LONGEST_S:.0f} s")
        return Ended(self._process.exitcode or 0, self._said.read_text())


class Migrators:
    """Starts them; what each says is kept in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count(1)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, settings: Mapping[str, str], *action: str, at: float = 0.0) -> Migrator:
        """`semcached migrate` with no settings but these; `at`: not before then, in s since 1970."""
        said = self._folder / f"migrator-{next(self._numbers)}.txt"
        said.touch()
        named = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
        process = self._context.Process(target=work, args=(["migrate", *action], named, said, at))
        process.start()
        return Migrator(process, said)


def work(arguments: list[str], settings: Mapping[str, str], said: Path, at: float) -> None:
    """The console script."""
    for name in [one for one in os.environ if one.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(settings)
    time.sleep(max(0.0, at - time.time()))
    with said.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        code = cli.main(arguments)
    sys.exit(code)
