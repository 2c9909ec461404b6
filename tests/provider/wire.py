"""HTTP/1.1 on a socket, down to the byte."""

import asyncio
import gzip
import json
from dataclasses import dataclass, field

from tests.provider.script import Fault


class CutError(Exception):
    """The connection ends here, as the script says."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes


@dataclass
class Reply:
    """What goes out, piece by piece."""

    pieces: list[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    streams: bool = False
    first_s: float = 0  # before the head
    each_s: float = 0  # before each piece
    fault: Fault = field(default_factory=Fault)


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def as_event(value: object, name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + as_json(value) + b"\n\n"


async def read(reader: asyncio.StreamReader) -> Request:
    """The next request.

    Raises:
        IncompleteReadError: the client left.
    """
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        raw = await _chunks(reader)
    else:
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target.partition("?")[0], headers, raw)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    raw = b""
    while size := int(await reader.readline(), 16):
        raw += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return raw


async def send(writer: asyncio.StreamWriter, reply: Reply, *, zips: bool) -> bool:
    """The whole reply; whether the connection is to be kept.

    Raises:
        CutError: the script ends it here.
    """
    fault = reply.fault
    framing = fault.framing or ("chunked" if reply.streams else "length")
    pieces = reply.pieces
    if fault.gzip and zips:
        pieces = [gzip.compress(b"".join(pieces), mtime=0)]
        reply.headers["Content-Encoding"] = "gzip"
    await asyncio.sleep(reply.first_s)
    if fault.hang == "head":
        await asyncio.Event().wait()
    if fault.cut is not None and fault.cut < 0:
        raise CutError
    writer.write(_head(reply, framing, sum(map(len, pieces))))
    await writer.drain()
    if fault.hang == "body":
        await asyncio.Event().wait()
    await _body(writer, reply, pieces, chunked=framing == "chunked")
    return framing != "close"


def _head(reply: Reply, framing: str, size: int) -> bytes:
    told = {
        "length": {"Content-Length": str(size)},
        "chunked": {"Transfer-Encoding": "chunked"},
        "close": {"Connection": "close"},
    }[framing]
    version = "1.0" if framing == "close" else "1.1"
    lines = "".join(f"{name}: {value}\r\n" for name, value in (reply.headers | told).items())
    return f"HTTP/{version} {reply.status} Stub\r\n{lines}\r\n".encode("latin-1")


async def _body(writer: asyncio.StreamWriter, reply: Reply, pieces: list[bytes], *, chunked: bool) -> None:
    fault = reply.fault
    left = fault.cut
    if left == 0:
        raise CutError
    for number, piece in enumerate(pieces):
        if fault.gate is not None:
            await fault.gate(number)
        await asyncio.sleep(reply.each_s)
        for part in _parts(piece, fault.drip):
            kept = part if left is None else part[:left]
            writer.write(b"%x\r\n%b\r\n" % (len(kept), kept) if chunked else kept)
            await writer.drain()
            if left is not None and (left := left - len(kept)) == 0:
                raise CutError
            if fault.drip is not None:
                await asyncio.sleep(fault.drip_s)
    if chunked:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def _parts(piece: bytes, size: int | None) -> list[bytes]:
    """Never an empty one, which would end a chunked body."""
    step = size or max(len(piece), 1)
    return [piece[at : at + step] for at in range(0, len(piece), step)]
