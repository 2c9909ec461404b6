"""What does the proxy add to a provider's answer, and what does a hit take, beside the provider itself?

    python -m bench.gateway [--calls N] [--output FILE.json]

The stub provider, the service and this client are three processes. Ways take turns, so that what the machine
does besides meets all of them: `direct` (the stub itself), `bypass` (passed on, `Cache-Control: no-store`),
`miss` (a new question: looked up, passed on, kept), `exact` and `semantic` (hits). Once with a provider that
answers at once, which shows what we add; once with one that takes 200 ms to its first token and 5 ms for
each further one.
"""

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.processes import Served, free_port, served
from bench.raw import Connection, connected

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
QUESTION = "How do I reset the password of my account?"
REWORDED = "How can I reset the password of my account?"
WAYS = ("direct", "bypass", "miss", "exact", "semantic")

_numbers = itertools.count()


def body(api: str, way: str, *, streams: bool) -> bytes:
    text = {"exact": QUESTION, "semantic": REWORDED}.get(way) or _new()
    asked: dict[str, Any] = {"model": "m", "stream": streams}
    if api == "responses":
        # Semantic hits only where the provider keeps nothing (docs/proxy-keys.md).
        return json.dumps(asked | {"input": text, "store": False}).encode()
    return json.dumps(asked | {"max_tokens": 100, "messages": [{"role": "user", "content": text}]}).encode()


def _new() -> str:
    return f"What happened in the year {1000 + next(_numbers)} in the village of {next(_numbers)} houses?"


async def timed(connection: Connection, api: str, way: str, *, streams: bool) -> float:
    """One call, ms."""
    content = body(api, way, streams=streams)
    control = "cache-control: no-store\r\n" if way == "bypass" else ""
    head = f"POST {PATHS[api]} HTTP/1.1\r\nhost: x\r\n{control}content-length: {len(content)}\r\n\r\n"
    begun = time.perf_counter()
    connection.send(head.encode() + content)
    answer = await connection.answer()
    taken = (time.perf_counter() - begun) * 1000
    told = {"direct": None, "bypass": "BYPASS", "miss": "MISS"}.get(way, "HIT")
    if answer.status != 200 or answer.headers.get("x-cache") != told:
        raise SystemExit(
            f"{api} {way}: {answer.status} {answer.headers.get('x-cache')}: {answer.body[:200]!r}"
        )
    return taken


async def run(service: Served, stub: int, calls: int) -> dict[str, dict[str, dict[str, float]]]:
    """Per api and form: per way its percentiles, and its ratio to `direct`."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with connected(service.port) as through, connected(stub) as direct:
        for api, path in PATHS.items():
            for streams in (False, True):
                form = f"{api} {'streamed' if streams else 'whole'}"
                connection_of = {way: direct if way == "direct" else through for way in WAYS}
                await through.post(path, body(api, "exact", streams=False))
                for _ in range(calls):
                    for way in WAYS:
                        taken = await timed(connection_of[way], api, way, streams=streams)
                        found[form][way].append(taken)
    return {
        form: {way: _figures(times, ways["direct"]) for way, times in ways.items()}
        for form, ways in found.items()
    }


def _figures(times: list[float], direct: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return {
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "ratio": round(p50 / statistics.median(direct), 3),
    }


@contextmanager
def provider(first_ms: float, token_ms: float) -> Iterator[int]:
    """The stub in a process of its own; its port."""
    port = free_port()
    told = ["--port", str(port), "--first-ms", str(first_ms), "--token-ms", str(token_ms)]
    with subprocess.Popen([sys.executable, "-m", "tests.provider", *told], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            process.stdout.readline()
            yield port
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=200, help="of each way with an instant provider")
    parser.add_argument("--output", type=Path)
    told = parser.parse_args()
    results: dict[str, Any] = {"machine": platform.platform(), "calls": told.calls}
    for name, first, token, calls in (
        ("instant", 0.0, 0.0, told.calls),
        ("200 ms", 200.0, 5.0, max(told.calls // 20, 3)),
    ):
        with provider(first, token) as stub, tempfile.TemporaryDirectory() as folder:
            upstreams = {
                "openai_upstream": f"http://127.0.0.1:{stub}/v1",
                "anthropic_upstream": f"http://127.0.0.1:{stub}",
            }
            with served(Path(folder), **upstreams) as service:
                results[name] = asyncio.run(run(service, stub, calls))
        _print(name, results[name])
    if told.output:
        told.output.write_text(json.dumps(results, indent=1) + "\n")


def _print(name: str, forms: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"\nprovider: {name}: p50 ms (p99; times direct)")
    print(f"{'':22}" + "".join(f"{way:>24}" for way in WAYS))
    for form, ways in forms.items():
        told = (f"{one['p50_ms']:.2f} ({one['p99_ms']:.1f}; {one['ratio']:.2f})" for one in ways.values())
        print(f"{form:22}" + "".join(f"{one:>24}" for one in told))


if __name__ == "__main__":
    main()
