"""Records to bytes and back: version, MAC, body.

The MAC covers the whole body (scope, id, query, answer, times): a flipped bit, a foreign writer or another
tenant's record copied here makes a miss.
"""

import hmac

import msgspec

from service.cache.digests import MAC_BYTES, DigestKey, TenantKeys
from service.model import Pointer, Record, ToolRecord
from service.telemetry import RECORDS_REFUSED

VERSION = b"\x01"
TEXT = b"text\0" + VERSION
"""Before the body of what is no record, under the MAC: the one can't be taken for the other."""

TOOL = b"tool\0" + VERSION
"""The same for tool results."""

POINTER = b"pointer\0" + VERSION
"""The same for pointers."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_tool_decoder = msgspec.msgpack.Decoder(ToolRecord)
_pointer_decoder = msgspec.msgpack.Decoder(Pointer)
_text_decoder = msgspec.msgpack.Decoder(tuple[str, str])


def seal(record: Record, key: DigestKey) -> bytes:
    """The bytes kept in Redis."""
    body = _encoder.encode(record)
    return VERSION + key.mac(VERSION, body) + body


def unseal(blob: bytes | None, entry_id: str, keys: TenantKeys) -> Record | None:
    """The record, if it is one of ours and the one asked for."""
    if blob is None:
        return None
    record = _opened(blob, entry_id, keys)
    if isinstance(record, str):
        RECORDS_REFUSED.labels(record).inc()
        return None
    return record


def unsealed_unchecked(blob: bytes, entry_id: str) -> Record | None:
    """What a record says, whoever wrote it: for what is checked again before anything is served."""
    try:
        record = _decoder.decode(_parts(blob)[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if blob[:1] == VERSION and record.entry_id == entry_id else None


def seal_text(text: str, name: str, key: DigestKey) -> bytes:
    """A text under a name, as the bytes kept in Redis."""
    body = _encoder.encode((name, text))
    return VERSION + key.mac(TEXT, body) + body


def unseal_text(blob: bytes, name: str, key: DigestKey) -> str | None:
    """The text, if we sealed it under that name."""
    mac, body = _parts(blob)
    if blob[:1] != VERSION or not hmac.compare_digest(mac, key.mac(TEXT, body)):
        RECORDS_REFUSED.labels("mac").inc()
        return None
    found, text = _text_decoder.decode(body)
    if found == name:
        return text
    RECORDS_REFUSED.labels("id").inc()
    return None


def seal_tool(record: ToolRecord, key: DigestKey) -> bytes:
    """The bytes of a tool result kept in Redis."""
    body = _encoder.encode(record)
    return VERSION + key.mac(TOOL, body) + body


def unseal_tool(blob: bytes, entry_id: str, keys: TenantKeys) -> ToolRecord | None:
    """The tool result, if it is one of ours and the one asked for."""
    mac, body = _parts(blob)
    key = next((key for key in keys.keys if hmac.compare_digest(mac, key.mac(TOOL, body))), None)
    if key is None or blob[:1] != VERSION:
        RECORDS_REFUSED.labels("mac").inc()
        return None
    try:
        record = _tool_decoder.decode(body)
    except msgspec.DecodeError:  # written by a newer layout
        RECORDS_REFUSED.labels("form").inc()
        return None
    if record.entry_id == entry_id and record.tenant == key.tenant:
        return record
    RECORDS_REFUSED.labels("id").inc()
    return None


def seal_pointer(pointer: Pointer, key: DigestKey) -> bytes:
    """The bytes of a pointer kept in Redis."""
    body = _encoder.encode(pointer)
    return VERSION + key.mac(POINTER, body) + body


def unseal_pointer(blob: bytes, name: str, key: DigestKey) -> Pointer | None:
    """The pointer, if it is one of ours and that question's."""
    mac, body = _parts(blob)
    if blob[:1] != VERSION or not hmac.compare_digest(mac, key.mac(POINTER, body)):
        RECORDS_REFUSED.labels("mac").inc()
        return None
    try:
        pointer = _pointer_decoder.decode(body)
    except msgspec.DecodeError:  # written by a newer layout
        RECORDS_REFUSED.labels("form").inc()
        return None
    if pointer.name == name:
        return pointer
    RECORDS_REFUSED.labels("id").inc()
    return None


def _parts(blob: bytes) -> tuple[bytes, bytes]:
    return blob[1 : 1 + MAC_BYTES], blob[1 + MAC_BYTES :]


def _opened(blob: bytes, entry_id: str, keys: TenantKeys) -> Record | str:
    """The record, or the word for what is wrong with it."""
    if blob[:1] != VERSION:
        return "form"
    mac, body = _parts(blob)
    key = next((key for key in keys.keys if hmac.compare_digest(mac, key.mac(VERSION, body))), None)
    if key is None:
        return "mac"
    try:
        record = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # written by a newer layout
        return "form"
    return record if record.entry_id == entry_id and record.tenant == key.tenant else "id"
