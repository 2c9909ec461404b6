"""Kills migrators, and Redis beneath them, anywhere; who comes next goes on or goes back. Is anything lost?

    python -m bench.kills [--kills N] [--redis-kills N] [--pairs N] [--entries N]
        [--kinds reindex,convert,reembed] [--seed N] [--output FILE.json]

Each kind has a Redis of its own (appendfsync always), a service (of the model whose turn it is), entries
whose answers are known, of which some are changed and deleted all the time (bench/stock.py), and a reader
that asks every few ms what the generation's record names (bench/polling.py). A migration is started, and its
migrator gets a kill -9: every other time when a time is over that is drawn evenly over what one takes, else
soon after a phase that is drawn has begun. Every third time the one that follows gets one, too. Then a coin
decides whether `up` goes on or `rollback` goes back. Redis is killed in the same way, and started again.
Then pairs of migrators are started at once, of which only one may work. Last, each kind goes there, and is
rolled back after its end.

After each kill every entry must be found, by its words and by others, and what was deleted must not be. At
the end of each round also: one index per partition, one live generation, one document of each entry, with
its vector and its entry's end, none in another space, ends as they were.

The lease of a killed migrator is deleted, where an operator waits for 30 s at most. Exits with 1 if anything
was wrong.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec
from redis import Redis

from bench.keyspace import Ends
from bench.migrators import Ended, Migrator
from bench.models import behind
from bench.operating import PACE, PARTITIONS, Bomb, Fuse, KilledError, Operator, RefusedError, operating
from bench.paired import names, run_of, table, write
from bench.polling import Polled, polling
from bench.processes import free_port
from bench.serving import versions
from bench.stock import Drawers, Stock
from service.store.embedded import EmbeddedRedis
from service.store.keys import Keys

OPTIONS = {
    "reindex": ("M", ("20", "8")),
    "convert": ("DATA_TYPE", ("FLOAT16", "FLOAT32")),
    "reembed": ("DIM", ("72", "56")),
}
"""By kind what tells one side's index from the other's; a vector's place is 8 numbers more."""
PHASES = (
    *("not noted", "copying: nothing", "copying: an", "copying: some", "copying: all", "copying: published"),
    *("published", "ending", "done", "undoing", "leaving", "undone"),
)
AGAIN = 1 / 3
"""How often the migrator that follows a killed one is killed, too."""
AIMS = {
    "up": ("copying: nothing", "copying: some", "copying: all", "published", "ending"),
    "rollback": ("undoing", "leaving"),
}
SOON_S = 0.5
LONGER = 1.1
"""Up to a little more than the last took that weren't killed."""
SETTLED_S = 15.0
TOGETHER_S = 0.1
BUSY = "another migrator is at work"


class Case(NamedTuple):
    """A kill, and what came of it."""

    phase: str  # in which it was
    then: str  # up or rollback
    ended: str  # there, or back


class Report(msgspec.Struct):
    """Of one kind. There must be no flaws, and no pair that both worked."""

    kind: str
    migrator_s: float = 0.0  # what migrators take for one migration when nobody kills them
    kills: list[Case] = []
    redis_kills: list[Case] = []
    too_late: int = 0  # migrations that had ended before
    pairs: dict[str, int] = {}
    both_worked: int = 0
    rolled_back: int = 0
    changes: int = 0
    late: dict[str, int] = {}  # what was so only a while after the end
    polled: Polled = msgspec.field(default_factory=Polled)
    flaws: list[str] = []


class Options(msgspec.Struct):
    """How often, of one kind."""

    kills: int
    redis_kills: int
    pairs: int
    entries: int
    seed: int


class Kills:
    """The rounds of one kind."""

    def __init__(self, operator: Operator, options: Options, server: EmbeddedRedis) -> None:
        self.operator, self.options, self.server = operator, options, server
        self.report = Report(operator.kind)
        self.redis = Redis.from_url(server.url, protocol=2)
        self.keyspace = operator.keyspace
        self.stock = Stock(options.entries, options.seed)
        self.random = random.Random(f"{operator.kind} {options.seed}")  # noqa: S311 - repeatable on purpose
        self.ends: Ends = {}

    def run(self) -> Report:
        """All of them."""
        report, operator = self.report, self.operator
        operator.serve(0)
        self.stock.fill(operator.service.http)
        with polling(self.server.url, PARTITIONS) as reader:
            try:
                self._all()
            except RefusedError as error:
                report.flaws.append(str(error))
            report.polled = reader.end()
        report.flaws += [*self.stock.flaws, *report.polled.flaws]
        report.changes = self.stock.done
        report.migrator_s = round(statistics.median(operator.took_s), 1)
        return report

    def _all(self) -> None:
        report, options = self.report, self.options
        self._measure()
        while len(report.kills) < options.kills:
            self._round(report.kills, Migrator.kill)
        self.stock.may_fail = True
        while len(report.redis_kills) < options.redis_kills:
            self._round(report.redis_kills, self._kill_redis)
        self.stock.may_fail = False
        for _ in range(options.pairs):
            self._pair()
        self._there_and_back()

    # --- rounds ---

    def _measure(self) -> None:
        for _ in range(2):
            with self._changing():
                self.operator.up()
            self._settled("unkilled")

    def _fuse(self, action: str, first: int, bomb: Bomb) -> Fuse:
        """By turns: at a time that is drawn, or soon after a phase that is drawn has begun."""
        if self.random.random() < 0.5:
            longest = LONGER * statistics.median(self.operator.took_s[-3:])
            return Fuse(self.random.uniform(0, longest), lambda: True, bomb)
        wanted = PHASES.index(self.random.choice(AIMS[action]))
        return Fuse(self.random.uniform(0, SOON_S), lambda: _order(self._phase(first)) >= wanted, bomb)

    def _round(self, cases: list[Case], bomb: Bomb) -> None:
        """There, killed; then by coins, until one isn't killed."""
        operator, side, first, killed = self.operator, self.operator.side, self._number(), list[str]()
        then = ["up"]
        while True:
            if len(killed) == 0 or (self.random.random() < AGAIN and bomb is Migrator.kill):
                operator.fuse = self._fuse(then[-1], first, bomb)
            try:
                with self._changing():
                    operator.up() if then[-1] == "up" else operator.rollback()
            except KilledError:
                killed.append(self._phase(first))
                then.append(self.random.choice(["up", "rollback"]))
                self._resumable(f"{killed[-1]}, {' '.join(then)}")
            else:
                break
            finally:
                operator.fuse = None
        ended = "back" if operator.side == side else "there"
        self.report.too_late += not killed
        cases += [Case(*one, ended) for one in zip(killed, then[1:], strict=True)]
        self._settled(f"killed: {', '.join(killed)}; {' '.join(then)}")

    def _kill_redis(self, migrator: Migrator) -> None:
        if self.server.pid is not None:
            os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()
        time.sleep(self.random.uniform(0, 1))
        self.server.start()
        migrator.end()  # by an error, or it was patient

    def _pair(self) -> None:
        """Two at the same moment."""
        operator, number = self.operator, self._number()
        settings, at = operator.sides[1 - operator.side], time.time() + TOGETHER_S
        with self._changing():
            two = [operator.migrators.start(settings, "up", "--pace", PACE, at=at) for _ in range(2)]
            ended = [one.end() for one in two]
        fared = sorted(_fared(one, operator.kind) for one in ended)
        _count(self.report.pairs, " and ".join(fared))
        self.report.both_worked += fared == ["worked", "worked"]
        if fared[-1] != "worked" or self.keyspace.generation().number != number + 1:
            self.report.flaws.append(f"a pair: {[one.said for one in ended]}")
        operator.up()
        self._settled("a pair")

    def _there_and_back(self) -> None:
        side = self.operator.side
        for action in (self.operator.up, self.operator.rollback):
            with self._changing():
                action()
            self._settled("there and back")
        self.report.rolled_back += self.operator.side == side

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self.stock.changing(self.operator.doors):
            yield

    # --- checks ---

    def _number(self) -> int:
        last = self.keyspace.migration()
        return 0 if last is None else last.after.number

    def _phase(self, first: int) -> str:
        """Where it was, in words."""
        last = self.keyspace.migration()
        if last is None or last.after.number == first:
            return "not noted yet"
        if last.phase != "copying":
            return last.phase
        if self.keyspace.generation().number == last.after.number:
            return "copying: published, not noted"
        if last.kind == "reindex":
            return "copying: " + ("an index" if len(self.keyspace.indexes()) > PARTITIONS else "nothing")
        copied = len(self.keyspace.documents().get(last.after.space, {}))
        if not copied:
            return "copying: nothing"
        return "copying: " + ("all" if copied >= len(self.stock.answers) else "some")

    def _resumable(self, where: str) -> None:
        """After a kill all is found; the lease ends."""
        self._ready()
        self.redis.delete(Keys("sc").meta("migrations:lease"))
        self.stock.check(self.operator.service.http, where)

    def _ready(self) -> None:
        """Redis has its index, and the service has found it again."""
        self.operator.service.wait()
        while self.keyspace.is_building():
            time.sleep(0.05)

    def _settled(self, where: str) -> None:
        """Nobody migrates, nobody writes: one of two states, and whole."""
        self._ready()
        http = self.operator.service.http
        self.stock.settle(http)
        self.stock.check(http, where)
        flaws, deadline = self._flaws(), time.monotonic() + SETTLED_S
        while (seen := flaws) and time.monotonic() < deadline:
            time.sleep(0.5)
            if not (flaws := self._flaws()):
                for one in seen:
                    _count(self.report.late, one)
        self.report.flaws += [f"{where}: {one}" for one in flaws]
        self._say(where)
        self.ends = self.keyspace.records()
        self.stock.touched.clear()

    def _say(self, where: str) -> None:
        flaws = [*self.report.flaws, *self.stock.flaws]
        print(f"{self.report.kind}: {where}", *flaws[-5:], sep="\n    ", file=sys.stderr)

    def _flaws(self) -> list[str]:
        flaws, records = list(self.keyspace.flaws()), self.keyspace.records()
        stock, last = self.stock, self.keyspace.migration()
        ids = {stock.ids[one] for one in stock.answers}
        changed = {stock.ids[one] for one in stock.touched if one in stock.ids}
        moved = sum(records.get(one, end) != end for one, end in self.ends.items() if one not in changed)
        option, values = OPTIONS[self.report.kind]
        found = self.keyspace.vector()[option]
        wrong = {
            "entries lost": len(ids - records.keys()),
            "entries too many": len(records.keys() - ids),
            "ends moved": moved,
            "migration at work": int(last is not None and last.is_at_work),
            f"index with {option} {found}": int(found != values[self.operator.side]),
        }
        return flaws + [f"{count} {what}" for what, count in wrong.items() if count]


def _count(found: dict[str, int], name: str) -> None:
    found[name] = found.get(name, 0) + 1


def _fared(one: Ended, kind: str) -> str:
    if f"{kind} of generation" in one.said and one.code == 0:
        return "worked"
    if BUSY in one.said and one.code == 1:
        return "refused: busy"
    return "found it done" if one.code == 0 else f"failed: {one.said.strip()}"


# --- all kinds ---


def of_kind(kind: str, options: Options) -> Report:
    """In this process."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        flags = ["--appendfsync", "always"]
        server = stack.enter_context(EmbeddedRedis(folder / "redis", port=free_port(), options=flags))
        api = stack.enter_context(behind(Drawers()))
        operator = stack.enter_context(operating(kind, server.url, folder, api))
        return Kills(operator, options, server).run()


def _process(kind: str, options: Options, output: Path) -> None:
    output.write_bytes(msgspec.json.encode(of_kind(kind, options)))


def reports(kinds: Sequence[str], given: argparse.Namespace, folder: Path) -> list[Report]:
    """Each kind in a process of its own, all at once: nearly all of their time is waiting."""
    processes = []
    for at, kind in enumerate(kinds):
        kills, redis, pairs = (
            len(range(at, one, len(kinds))) for one in (given.kills, given.redis_kills, given.pairs)
        )
        options = Options(kills, redis, pairs, given.entries, given.seed)
        target = (kind, options, folder / kind)
        processes.append(get_context("spawn").Process(target=_process, args=target))
        processes[-1].start()
    for one in processes:
        one.join()
    died = [kind for kind in kinds if not (folder / kind).exists()]
    if died:
        sys.exit(f"{', '.join(died)}: died; see above")
    return [msgspec.json.decode((folder / kind).read_bytes(), type=Report) for kind in kinds]


def lines(found: Sequence[Report]) -> str:
    """By kind and phase, what came of it."""
    ways = [(then, ended) for then in ("up", "rollback") for ended in ("there", "back")]
    head = ("kind", "killed", "in the phase", "times", *(f"{then}: {ended}" for then, ended in ways))
    rows: list[Sequence[str]] = [head]
    for one in found:
        for who, cases in (("migrator", one.kills), ("Redis", one.redis_kills)):
            for phase in sorted({case.phase for case in cases}, key=_order):
                here = [case for case in cases if case.phase == phase]
                counts = [sum(case[1:] == way for case in here) for way in ways]
                rows.append((one.kind, who, phase, str(len(here)), *map(str, counts)))
    return table(rows)


def _order(phase: str) -> int:
    return next((at for at, one in enumerate(PHASES) if phase.startswith(one)), len(PHASES))


def summary(found: Sequence[Report]) -> str:
    head = ("", *(one.kind for one in found))
    rows: list[Sequence[str]] = [head]
    what: dict[str, Callable[[Report], object]] = {
        "migrators' time unkilled, s": lambda one: one.migrator_s,
        "kills of migrators": lambda one: len(one.kills),
        "kills of Redis": lambda one: len(one.redis_kills),
        "ended before the kill": lambda one: one.too_late,
        "pairs": lambda one: "; ".join(f"{count} {name}" for name, count in one.pairs.items()),
        "pairs that both worked": lambda one: one.both_worked,
        "rolled back after the end": lambda one: one.rolled_back,
        "entries changed meanwhile": lambda one: one.changes,
        "polls of a reader": lambda one: one.polled.polls,
        "… that met a publication": lambda one: one.polled.moved,
        "late": lambda one: "; ".join(f"{count} {name}" for name, count in one.late.items()) or 0,
        "flaws": lambda one: len(one.flaws),
    }
    rows += [(name, *(str(value(one)) for one in found)) for name, value in what.items()]
    return table(rows)


def main() -> None:
    given = options()
    with tempfile.TemporaryDirectory() as name:
        found = reports(given.kinds, given, Path(name))
        with EmbeddedRedis(Path(name) / "redis") as server, Redis.from_url(server.url, protocol=2) as redis:
            result = run_of("bench.kills", versions(redis))
    print(lines(found), summary(found), sep="\n\n")
    flaws = [f"{one.kind}: {flaw}" for one in found for flaw in one.flaws]
    print(*flaws[:50], sep="\n", file=sys.stderr)
    write(result | {"entries": given.entries, "kinds": found}, given.output)
    if flaws or any(one.both_worked or one.rolled_back != 1 for one in found):
        sys.exit(f"{len(flaws)} flaws")


def options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--kills", type=int, default=120, help="of migrators, over all kinds")
    arguments.add_argument("--redis-kills", type=int, default=12, help="of Redis, over all kinds")
    arguments.add_argument("--pairs", type=int, default=50, help="of migrators, over all kinds")
    arguments.add_argument("--entries", type=int, default=200)
    arguments.add_argument("--kinds", type=names, default=list(OPTIONS), help="of migrations")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--output", type=Path, default=Path("bench/results/kills.json"))
    return arguments.parse_args()


if __name__ == "__main__":
    main()
