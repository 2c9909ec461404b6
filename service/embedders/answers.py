"""The body of an embeddings API's answer → vectors. What is no embedding never gets further."""

import binascii
from base64 import b64decode
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from service.cache.ports import Embedded
from service.providers.gate import ProviderError

# Models answer norm 1, or nearly. Far from it, a vector is rubbish, or its digits are lost in float32.
LEAST_NORM, GREATEST_NORM = 0.01, 100.0


class _Item(Struct):
    index: int
    embedding: str | list[float]  # base64 of little-endian float32, or numbers


class _Answer(Struct):
    data: list[_Item]
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Usage(Struct):
    prompt_tokens: Annotated[int, Meta(ge=0, le=2**31)] = 0


_decode = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(_Usage | None).decode


def tokens_of(usage: msgspec.Raw) -> int:
    """How many tokens the API says it read; 0 where it doesn't say, or not in a way that makes sense."""
    try:
        told = _decode_usage(usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return 0 if told is None else told.prompt_tokens


def embedded(body: bytes, count: int) -> Embedded:
    """Rows in the order of the texts, with the bytes that the API gave.

    Raises:
        ProviderError: `rubbish` or `values`.
    """
    try:
        answer = _decode(body)
        items = sorted(answer.data, key=lambda item: item.index)
        rows = [_row(item.embedding) for item in items]
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise ProviderError("rubbish", "the embeddings API answered no embeddings") from None
    if [item.index for item in items] != list(range(count)):
        raise ProviderError("rubbish", f"the embeddings API answered other embeddings than the {count} asked")
    if len({row.size for row in rows}) != 1:
        raise ProviderError("rubbish", "the embeddings API answered vectors of several dimensions")
    stacked = np.stack(rows)
    norms = _norms(stacked)
    if not ((norms >= LEAST_NORM) & (norms <= GREATEST_NORM)).all():  # false for NaN
        raise ProviderError("values", "the embeddings API answered values that are no embedding")
    return Embedded(stacked, tokens_of(answer.usage))


def normed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row of norm 1."""
    return (rows / _norms(rows)).astype(np.float32)


def _row(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(b64decode(embedding, validate=True), "<f4")
    with np.errstate(all="ignore"):  # the check of norms sees what overflows
        return np.array(embedding, np.float64).astype("<f4")


def _norms(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):  # a signalling NaN; the check of norms sees it
        norms: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return norms
