"""Servers that do nothing: what an HTTP answer costs before anything is decided.

    python -m bench.noop {litestar|asgi} PORT ANSWERS.json

ANSWERS: {path: {"size": bytes of the body, "headers": {name: value}}}. A POST to a path reads its body and
gets so many bytes. Server, protocol class and their settings are those that `semcached serve` passes on.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn
from litestar import HttpMethod, Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler

from bench.processes import free_port
from service.server import serve
from service.settings import Settings

Answers = dict[str, dict[str, Any]]
FILE = "BENCH_NOOP_ANSWERS"


def litestar() -> Litestar:
    """An app with one plain handler per path."""
    told: Answers = json.loads(Path(os.environ[FILE]).read_text())
    handlers = [_handler(path, b"x" * one["size"], one["headers"]) for path, one in told.items()]
    return Litestar(handlers, openapi_config=None, logging_config=None)


def _handler(path: str, reply: bytes, headers: dict[str, str]) -> HTTPRouteHandler:
    async def noop(request: Request[Any, Any, Any]) -> Response[bytes]:
        await request.body()
        return Response(reply, media_type="application/json", headers=headers)

    return HTTPRouteHandler(path, http_method=HttpMethod.POST, status_code=200)(noop)


class Bare:
    """The same without a framework."""

    def __init__(self, answers: Answers) -> None:
        self._answers = {}
        for path, one in answers.items():
            fields = {"content-type": "application/json", "content-length": str(one["size"])} | one["headers"]
            start = {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            }
            self._answers[path] = (start, {"type": "http.response.body", "body": b"x" * one["size"]})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        for message in self._answers[scope["path"]]:
            await send(message)


def asgi() -> Bare:
    """See Bare."""
    return Bare(json.loads(Path(os.environ[FILE]).read_text()))


@contextmanager
def doing_nothing(kind: str, answers: Path, workers: int = 1) -> Iterator[tuple[int, int]]:
    """Port and pid of such a server."""
    port = free_port()
    program = [sys.executable, "-m", "bench.noop", kind, str(port), str(answers), str(workers)]
    with subprocess.Popen(program) as process:
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)  # until it listens
            yield port, process.pid
        finally:
            process.terminate()


def main(kind: str, port: str, answers: str, workers: str = "1") -> None:
    os.environ[FILE] = answers
    with patch("uvicorn.run") as run:  # to be told with which settings the service is served
        serve(Settings(port=int(port), workers=int(workers)))
    uvicorn.run(f"bench.noop:{kind}", **run.call_args.kwargs)


if __name__ == "__main__":
    main(*sys.argv[1:])
