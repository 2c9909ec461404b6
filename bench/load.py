"""The load generator: a process that asks as cheaply as Python can, over HTTP or in Redis' protocol.

Requests come encoded; of an answer only its length is read, and whether the expected words are in it. Jobs
and samples go over the pipes as MessagePack, each after its length in four bytes.
"""

import asyncio
import faulthandler
import gc
import select
import signal
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, perf_counter_ns, process_time
from typing import Any, Literal, cast

import hiredis
import msgspec
import uvloop
from msgspec import Struct

NUMBER = b"@@@@@@@@@"
"""Where a request has a number of nine digits, another each time it is sent."""


WARM_S = 2.0
"""For so long a caller that begins asks again where its answer is not what is expected: a cache warms up."""


PATIENCE_S = 60.0
"""For the connections, for the first answers, and for the last ones."""


class Job(Struct, kw_only=True, frozen=True):
    """What to ask, of whom, for how long."""

    protocol: Literal["http", "redis"]
    address: str  # host:port, or the path of a unix socket
    requests: list[bytes]  # asked in turn
    expected: list[bytes] = []  # HTTP: all of them are in each answer
    callers: int = 1  # each has one request under way
    joined: bool = False  # Redis: all callers over one connection, what is asked at once in one write
    seconds: float = 1
    rate: float = (
        0  # requests per second, on time whatever the answers do; 0: a caller asks when it is answered
    )
    first: int = 0  # the first request's number
    tolerated: float = 0  # share of answers that may lack the expected words


class Sample(Struct, kw_only=True, frozen=True):
    """What came of it."""

    answers: int
    p50_us: float
    p99_us: float
    wall_s: float
    cpu_s: float  # the generator's own
    sent: int
    unsent: int = 0  # with a rate: no caller was free
    odd: int = 0  # answers without the expected words
    wrong: bytes | None = None  # the first of them


class Run:
    """One job: hands out requests, takes answers."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.took = array("q")
        self.wrong: bytes | None = None
        self.sent = self.unsent = self.odd = 0
        self.over = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._parts = [tuple(one.split(NUMBER, 1)) for one in job.requests]
        self._until = self._warm_until = float("inf")
        self._cold = 0
        self._under_way = 0
        self._idle: list[tuple[Asking, int]] = []

    def next(self) -> bytes:
        """The next request."""
        parts = self._parts[(self.job.first + self.sent) % len(self._parts)]
        self.sent += 1
        if len(parts) == 1:
            return parts[0]
        return b"%s%09d%s" % (parts[0], self.job.first + self.sent, parts[1])

    async def go(self) -> Sample:
        """All of it. Each caller's first answer isn't counted: its connection is new."""
        async with asyncio.timeout(PATIENCE_S):
            asking = await self._connected()
        self._warm_until = perf_counter() + WARM_S
        self._cold = self._under_way = self.job.callers
        for one, width in asking:
            one.ask(width)
        async with asyncio.timeout(PATIENCE_S):
            while self._cold and self.wrong is None:
                await asyncio.sleep(0.001)
        if self.wrong is not None:
            return Sample(
                answers=0, p50_us=0, p99_us=0, wall_s=0, cpu_s=0, sent=self.sent, odd=1, wrong=self.wrong
            )
        self.took = array("q")
        begun, cpu = perf_counter(), process_time()
        self._until = begun + self.job.seconds
        if self.job.rate:
            self._tick(begun)
        else:
            self._under_way = self.job.callers
            for one, width in asking:
                one.ask(width)
        async with asyncio.timeout(self.job.seconds + PATIENCE_S):
            await self.over.wait()
        wall, cpu = perf_counter() - begun, process_time() - cpu
        for one, _ in asking:
            one.transport.abort()
        return Sample(
            answers=len(self.took),
            p50_us=percentile(self.took, 50),
            p99_us=percentile(self.took, 99),
            wall_s=wall,
            cpu_s=cpu,
            sent=self.sent,
            unsent=self.unsent,
            odd=self.odd,
            wrong=self.wrong,
        )

    async def _connected(self) -> list[tuple["Asking", int]]:
        """Connections, each with how many callers share it."""
        made: Callable[[], Asking] = {"http": lambda: OverHttp(self), "redis": lambda: OverRedis(self)}[
            self.job.protocol
        ]
        widths = [self.job.callers] if self.job.joined else [1] * self.job.callers
        asking = []
        for width in widths:
            if self.job.address.startswith("/"):
                _, one = await self.loop.create_unix_connection(made, self.job.address)
            else:
                host, port = self.job.address.rsplit(":", 1)
                _, one = await self.loop.create_connection(made, host, int(port))
            asking.append((one, width))
        return asking

    def answered(self, one: "Asking", wrong: bytes | None) -> bool:
        """Note an answer; whether its caller asks again at once."""
        if wrong is not None:
            if self._cold and perf_counter() < self._warm_until:
                return True
            self.odd += 1
            self.wrong = self.wrong or wrong
            if not self.job.tolerated:
                self.over.set()
                return False
        if self._cold:
            self._cold -= 1
            if self.job.rate:
                self._idle.append((one, 1))
            return False
        if self.job.rate:
            self._idle.append((one, 1))
            return False
        if perf_counter() < self._until:
            return True
        self._under_way -= 1
        if not self._under_way:
            self.over.set()
        return False

    def failed(self, why: bytes) -> None:
        """No answer comes any more."""
        self.odd, self.wrong = 10**9, why
        self.over.set()

    def _tick(self, due: float) -> None:
        """Send what is due, and come again."""
        now = perf_counter()
        while due <= now:
            if self._idle:
                one, width = self._idle.pop()
                one.ask(width)
            else:
                self.unsent += 1
            due += 1 / self.job.rate
        if now < self._until:
            self.loop.call_later(due - now, self._tick, due)
        else:
            self.over.set()


def percentile(took_ns: Sequence[int], percent: int) -> float:
    """In µs; the nearest rank."""
    if not took_ns:
        return 0
    return sorted(took_ns)[(len(took_ns) - 1) * percent // 100] / 1000


class Asking(asyncio.Protocol):
    """A connection."""

    transport: asyncio.Transport

    def __init__(self, run: Run) -> None:
        self.run = run
        self.begun: deque[int] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.run.over.is_set():
            self.run.failed(b"the connection was closed: %r" % exc)

    def ask(self, count: int) -> None:
        """So many requests, in one write."""
        wanted = self.run.next() if count == 1 else b"".join([self.run.next() for _ in range(count)])
        self.begun.extend([perf_counter_ns()] * count)
        self.transport.write(wanted)


class OverHttp(Asking):
    """HTTP/1.1, answers with a Content-Length."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        data = self._rest + data if self._rest else data
        end, at = data.find(b"\r\n\r\n"), data.find(b"content-length: ")
        if end < 0 or len(data) < end + 4 + int(data[at + 16 : data.find(b"\r", at)]):
            self._rest = data
            return
        self._rest = b""
        self.run.took.append(perf_counter_ns() - self.begun.popleft())
        wrong = None
        for words in self.run.job.expected:
            if words not in data:
                wrong = data
        if self.run.answered(self, wrong):
            self.ask(1)


class OverRedis(Asking):
    """RESP2. An answer is wrong where it is an error, nothing, or a search that found nothing."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._reader.feed(data)
        again, now = 0, perf_counter_ns()
        while (reply := self._reader.gets()) is not False:
            self.run.took.append(now - self.begun.popleft())
            first = reply[0] if isinstance(reply, list) and reply else reply
            wrong = b"%r" % reply if not first or isinstance(first, Exception) else None
            again += self.run.answered(self, wrong)
        if again:
            self.ask(again)


class Generator:
    """The process, as its parent sees it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._tolerated = self._patience_s = 0.0
        self.number = 0
        """Of the last request: numbers never come twice."""

    def start(self, job: Job) -> None:
        """Begin, without waiting."""
        self._tolerated, self._patience_s = job.tolerated, job.seconds + 4 * PATIENCE_S
        job = msgspec.structs.replace(job, first=self.number + job.first)
        _write(self._process.stdin, msgspec.msgpack.encode(job))

    def result(self) -> Sample:
        """Wait for the end of the job.

        Raises:
            SystemExit: an answer was not what the job measures.
        """
        ready, _, _ = select.select([cast("Any", self._process.stdout)], [], [], self._patience_s)
        if not ready or not (data := _read(self._process.stdout)):
            self._process.send_signal(signal.SIGABRT)
            sys.exit("the load generator hangs, or ended; its traceback is above")
        sample = msgspec.msgpack.decode(data, type=Sample)
        self.number += sample.sent
        if sample.wrong is not None and sample.odd > self._tolerated * sample.sent:
            said = f"{sample.odd} of {sample.sent} answers: {sample.wrong[:1200].decode('latin-1')}"
            sys.exit(f"an answer that isn't what is measured, {said}")
        return sample

    def run(self, job: Job) -> Sample:
        """Begin, and wait."""
        self.start(job)
        return self.result()


@contextmanager
def generator(first: int = 0) -> Iterator[Generator]:
    """A process that waits for jobs; its requests' numbers begin at `first`."""
    program = [sys.executable, "-m", "bench.load"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        made = Generator(process)
        made.number = first
        try:
            yield made
        finally:
            process.terminate()


def http_requests(path: str, bodies: Sequence[Any], headers: Sequence[str] = ()) -> list[bytes]:
    """POSTs of JSON values, or of bytes as they are."""
    told = "".join(f"{line}\r\n" for line in ("host: x", "content-type: application/json", *headers))
    encoded = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in bodies]
    return [
        f"POST {path} HTTP/1.1\r\n{told}content-length: {len(one)}\r\n\r\n".encode() + one for one in encoded
    ]


def redis_request(command: Sequence[str | bytes | float]) -> bytes:
    """One command in Redis' protocol."""
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type] # a tuple of any length
    return packed


def _write(pipe: Any, data: bytes) -> None:
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def _read(pipe: Any) -> bytes:
    size = int.from_bytes(pipe.read(4), "big")
    found: bytes = pipe.read(size)
    return found


def main() -> None:
    faulthandler.enable()  # SIGABRT says where it is
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (data := _read(sys.stdin.buffer)) != b"":
            job = msgspec.msgpack.decode(data, type=Job)
            _write(sys.stdout.buffer, msgspec.msgpack.encode(runner.run(_measured(job))))
            gc.collect()


async def _measured(job: Job) -> Sample:
    return await Run(job).go()


if __name__ == "__main__":
    main()
