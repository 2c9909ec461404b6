"""Embedding models behind OpenAI's wire, in a process of their own: for a migration from one to another."""

import base64
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import uvicorn

from bench.corpus import Corpus
from bench.corpus.neighbours import Floats
from bench.processes import free_port
from service.embedders.local import MiniLM

PROJECTED, DIM = "projected", 256
START_S = 30.0


class Model(Protocol):
    """What makes the vectors."""

    def rows(self, texts: Sequence[str], model: str, dim: int) -> Floats:
        """[n, dim], of norm 1; also of one text before it is asked for any."""


def projected(rows: Floats) -> Floats:
    """[n, DIM], of norm 1: in directions by chance, which keep what is near (Johnson, Lindenstrauss)."""
    turned = rows @ _directions(rows.shape[-1])
    return np.asarray(turned / np.linalg.norm(turned, axis=-1, keepdims=True), np.float32)


@cache
def _directions(dim: int) -> Floats:
    """[dim, DIM], orthonormal."""
    drawn = np.random.default_rng(5).normal(size=(dim, DIM))
    return np.linalg.qr(drawn)[0].astype(np.float32)


class Projected(NamedTuple):
    """The local model's vectors, `projected`. Those of a corpus' texts are read from the corpus' own file."""

    row_of: Mapping[str, int]
    file: Path
    width: int

    def rows(self, texts: Sequence[str], model: str, dim: int) -> Floats:  # noqa: ARG002 - a Model
        """See Model."""
        known = np.memmap(self.file, np.float32, "r").reshape(-1, self.width)
        found = [known[self.row_of[one]] if one in self.row_of else _embedded(one) for one in texts]
        return projected(np.stack(found))


def projected_of(corpus: Corpus) -> Projected:
    """That knows the corpus' questions."""
    used = np.unique(corpus.questions).tolist()
    row_of = {corpus.texts.of(row): row for row in used}
    return Projected(row_of, Path(str(getattr(corpus.rows, "filename", ""))), corpus.rows.shape[1])


@cache
def _local() -> MiniLM:
    return MiniLM(1)


def _embedded(text: str) -> Floats:
    found: Floats = _local().run([text])[0]
    return found


@contextmanager
def behind(model: Model) -> Iterator[str]:
    """Such a server; the base URL of its API."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(model, port), daemon=True)
    process.start()
    try:
        _await(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.join()


def _await(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # until it listens
        else:
            return


def _serve(model: Model, port: int) -> None:
    model.rows(["warm up"], "", 1)
    uvicorn.run(_application(model), host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def _application(model: Model) -> Callable[..., Any]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        del scope
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        asked = msgspec.json.decode(body)
        rows = model.rows(asked["input"], asked["model"], asked["dimensions"])
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "http.response.body", "body": msgspec.json.encode(_answer(rows))})

    return application


def _answer(rows: Floats) -> dict[str, Any]:
    """In base64, which is what the service asks for."""
    data = [{"object": "embedding", "index": at, "embedding": _encoded(row)} for at, row in enumerate(rows)]
    usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
    return {"object": "list", "model": "m", "data": data, "usage": usage}


def _encoded(row: Floats) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
