"""Several processes: one runs for all; a forked child leaves its parent's connections alone."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from semcached import AsyncClient, Client, Hit, cached_tool

CALLERS = 100
WORKER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from semcached import Client, cached_tool

url, agent, runs = sys.argv[1:]

@cached_tool(client=Client(url, connect_timeout_s=30), agent_type=agent, name=agent, wait=30, timeout_s=30)
def tool(x: int) -> dict[str, int]:
    with Path(runs).open("a") as file:
        file.write("x")
    threading.Event().wait(2)
    return {"x": x}

print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(100) as pool:
    answers = list(pool.map(tool, [1] * 100))
assert answers == [{"x": 1}] * 100
print("done", flush=True)
"""


def test_200_callers_in_two_processes_run_the_tool_once(url: str, agent: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, agent, str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for one in workers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in workers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in workers:
        out, _ = one.communicate(timeout=60)
        assert (one.returncode, out) == (0, "done\n")
    assert runs.read_text() == "x"


def test_a_forked_child_has_its_own_connections(client: Client, agent: str) -> None:
    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    def tool(x: int) -> list[int]:
        return [x, os.getpid()]

    first = tool(1)
    parents = client._by_process[os.getpid()]
    forking = multiprocessing.get_context("fork")
    results = forking.SimpleQueue()

    def child(n: int) -> None:
        kept = [tool(1) for _ in range(20)]
        tool(100 + n)
        results.put((kept == [first] * 20, client._by_process[os.getpid()] is not parents))

    stop = threading.Event()

    def busy() -> int:
        asked = 0
        while not stop.is_set():
            assert tool(1) == first
            asked += 1
        return asked

    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(busy)
        children = [forking.Process(target=child, args=[n]) for n in range(4)]
        for one in children:
            one.start()
        told = [results.get() for _ in children]
        for one in children:
            one.join(30)
        stop.set()
        assert meanwhile.result(30) > 0
    assert told == [(True, True)] * 4
    assert [one.exitcode for one in children] == [0] * 4
    assert client._by_process[os.getpid()] is parents
    for n in range(4):
        assert tool(100 + n)[1] in {one.pid for one in children}
    assert not isinstance(client.lookup(agent_type=agent, prompt="q"), Hit)


def test_a_child_forked_out_of_a_running_loop(url: str, agent: str) -> None:
    client = AsyncClient(url, connect_timeout_s=30)

    @cached_tool(client=client, agent_type=agent, name=agent, timeout_s=30)
    async def tool(x: int) -> list[int]:
        return [x, os.getpid()]

    forking = multiprocessing.get_context("fork")
    results = forking.SimpleQueue()

    def child(n: int) -> None:
        async def several() -> list[list[int]]:
            return [await tool(1), await tool(100 + n)]

        results.put(asyncio.run(several()))

    async def parent() -> None:
        first = await tool(1)
        children = [forking.Process(target=child, args=[n]) for n in range(3)]
        for one in children:
            one.start()
        asked = await asyncio.gather(*(tool(1) for _ in range(20)))
        told = [await asyncio.to_thread(results.get) for _ in children]
        assert asked == [first] * 20
        assert sorted(told) == sorted([first, [100 + n, one.pid]] for n, one in enumerate(children))
        for n, one in enumerate(children):
            assert await tool(100 + n) == [100 + n, one.pid]
            await asyncio.to_thread(one.join, 30)

    asyncio.run(parent())
