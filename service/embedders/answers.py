"""The body of an embeddings API's answer → vectors. What is no embedding never gets further."""

import binascii
from base64 import b64decode
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from service.providers.gate import ProviderError

# Models answer norm 1, or nearly. Far from it, a vector is rubbish, or its digits are lost in float32.
LEAST_NORM, GREATEST_NORM = 0.01, 100.0


class _Item(Struct):
    index: int
    embedding: str | list[float]  # base64 of little-endian float32, or numbers


class _Answer(Struct):
    data: list[_Item]


class _Usage(Struct):
    total_tokens: Annotated[int, Meta(ge=0, le=2**31)] = 0


class _Paid(Struct):
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_paid = msgspec.json.Decoder(_Paid).decode


def paid_tokens(body: bytes) -> int:
    """How many tokens the API says it read; 0 where it doesn't say, or not in a way that makes sense."""
    try:
        usage = _decode_paid(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return 0 if usage is None else usage.total_tokens


def vectors(body: bytes, count: int) -> NDArray[np.float32]:
    """[count, dim], in the order of the texts, each row of norm 1.

    Raises:
        ProviderError: `rubbish` or `values`.
    """
    try:
        items = sorted(_decode(body).data, key=lambda item: item.index)
        rows = [_row(item.embedding) for item in items]
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise ProviderError("rubbish", "the embeddings API answered no embeddings") from None
    if [item.index for item in items] != list(range(count)):
        raise ProviderError("rubbish", f"the embeddings API answered other embeddings than the {count} asked")
    if len({row.size for row in rows}) != 1:
        raise ProviderError("rubbish", "the embeddings API answered vectors of several dimensions")
    return _normed(np.stack(rows))


def _row(embedding: str | list[float]) -> NDArray[np.float64]:
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), "<f4").astype(np.float64)
    return np.array(embedding, np.float64)


def _normed(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):  # the check below sees what overflows
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not ((norms >= LEAST_NORM) & (norms <= GREATEST_NORM)).all():  # false for NaN
        raise ProviderError("values", "the embeddings API answered values that are no embedding")
    unit: NDArray[np.float32] = (rows / norms).astype(np.float32)
    return unit
