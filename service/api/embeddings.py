"""/v1/embeddings: OpenAI's embeddings API through the cache, and a cache for who embeds himself."""

import asyncio
import binascii
import math
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from litestar import Response, post
from litestar.di import NamedDependency
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BATCH_BODY, HttpRequest
from service.api.openai_errors import OpenAIFailure, openai_handle
from service.api.services import Services
from service.api.wire import decoder, documented, encoded
from service.cache.canonical import check_identifier
from service.cache.digests import TenantKeys
from service.cache.embeddings import DEFAULT
from service.cache.ports import Work
from service.errors import InvalidInputError, NotFoundError
from service.model import Identifier

MOST_TEXTS = 2048
MOST_VALUES = 16_384
TURN = 32
"""Vectors that are coded in one go; 32 of 1,536 values take 4 ms."""

T = TypeVar("T")

Encoding = Literal["float", "base64"]
Embedding = list[float] | str
Text = Annotated[str, Meta(min_length=1)]


class EmbeddingsRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What OpenAI's SDK sends."""

    input: Annotated[
        Text | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=MOST_TEXTS)],
        Meta(description="A text, or up to 2,048. Token ids are refused: they are another model's."),
    ]
    model: Annotated[str, Meta(description="The service's embedding model, or `default`.")]
    encoding_format: Annotated[Encoding, Meta(description="`base64`: of little-endian float32.")] = "float"
    dimensions: Annotated[int | None, Meta(description="No other than the model's own.")] = None
    user: Annotated[str | None, Meta(description="Ignored.")] = None


class EmbeddingItem(Struct, frozen=True, tag_field="object", tag="embedding"):
    """One text's vector."""

    index: Annotated[int, Meta(description="Its place in `input`.")]
    embedding: Annotated[Embedding, Meta(description="As the embedder gave it.")]


class EmbeddingsUsage(Struct, frozen=True):
    """Tokens of the texts that were not in the cache."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Struct, frozen=True, tag_field="object", tag="list"):
    """What OpenAI's SDK reads."""

    data: Annotated[list[EmbeddingItem], Meta(description="In the order of `input`.")]
    model: Annotated[str, Meta(description="The model's name.")]
    usage: Annotated[EmbeddingsUsage, Meta(description="What was computed for this call.")]


class EmbeddingsLookup(Struct, forbid_unknown_fields=True, kw_only=True):
    """Texts to look for."""

    model: Annotated[Identifier, Meta(description="Any name; `default` is the service's own model.")]
    texts: Annotated[
        list[Text], Meta(min_length=1, max_length=MOST_TEXTS, description="The texts, byte by byte.")
    ]
    encoding_format: Annotated[Encoding, Meta(description="`base64`: of little-endian float32.")] = "float"


class EmbeddingsFound(Struct, frozen=True):
    """What is kept for each text."""

    embeddings: Annotated[list[Embedding | None], Meta(description="In order; null: there is none.")]


class GivenEmbedding(Struct, forbid_unknown_fields=True):
    """A text and the vector that the caller computed."""

    text: Annotated[Text, Meta(description="The text, byte by byte.")]
    embedding: Annotated[
        Embedding, Meta(description="Numbers, or base64 of little-endian float32; up to 16,384 values.")
    ]


class EmbeddingsStore(Struct, forbid_unknown_fields=True, kw_only=True):
    """Embeddings to keep."""

    model: Annotated[Identifier, Meta(description="Any name; `default` is the service's own model.")]
    items: Annotated[
        list[GivenEmbedding], Meta(min_length=1, max_length=MOST_TEXTS, description="All of one dimension.")
    ]
    ttl_s: Annotated[
        Annotated[float, Meta(ge=1)] | UnsetType,
        Meta(description="Seconds; at most, and by default, SEMCACHED_EMBEDDINGS_TTL_S."),
    ] = UNSET


class EmbeddingsStored(Struct, frozen=True):
    """They are kept."""

    stored: Annotated[int, Meta(description="How many.")]


_encode = msgspec.json.Encoder().encode
_request = decoder(EmbeddingsRequest)
_lookup_request = decoder(EmbeddingsLookup)
_store_request = decoder(EmbeddingsStore)


@post(
    "/v1/embeddings",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BATCH_BODY,
    exception_handlers={Exception: openai_handle},
    operation_class=documented(
        EmbeddingsRequest,
        {200: EmbeddingsAnswer},
        {"model": DEFAULT, "input": ["How do I reset my password?"]},
        failure=OpenAIFailure,
    ),
)
async def embed(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """OpenAI's embeddings API, by the service's own embedder; what is kept isn't computed again."""
    asked, own = _request(await request.body()), services.embeddings
    if asked.model not in {own.model, DEFAULT}:
        raise NotFoundError(
            f"model: `{asked.model[:128]}` is not served here; `{own.model}` is, or `{DEFAULT}`"
        )
    if asked.dimensions not in {None, own.dim}:
        raise InvalidInputError("dimensions", f"the model gives {own.dim} values; leave it out")
    keys, work = services.keyring.of(request.user.tenant), Work()
    computed = await own.embedded(_texts(asked), keys)
    _count(services, keys, computed.hits, computed.misses)
    work.model, work.tokens = own.model, computed.tokens
    services.accounting.spent(keys, None, work)
    items = []
    async for at, raw in _in_turns(computed.raws):
        items.append(msgspec.Raw(_encode(EmbeddingItem(at, _coded(raw, asked.encoding_format)))))
    usage = EmbeddingsUsage(computed.tokens, computed.tokens)
    return encoded({"object": "list", "data": items, "model": own.model, "usage": usage})


@post(
    "/v1/embeddings/lookup",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BATCH_BODY,
    operation_class=documented(
        EmbeddingsLookup, {200: EmbeddingsFound}, {"model": "my-model", "texts": ["A text."]}
    ),
)
async def lookup_embeddings(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """The embeddings that are kept; computes nothing."""
    asked = _lookup_request(await request.body())
    check_identifier("model", asked.model)
    keys = services.keyring.of(request.user.tenant)
    raws = await services.embeddings.find(asked.model, asked.texts, keys)
    there = sum(raw is not None for raw in raws)
    _count(services, keys, there, len(raws) - there)
    found = []
    async for _, raw in _in_turns(raws):
        found.append(msgspec.Raw(_encode(None if raw is None else _coded(raw, asked.encoding_format))))
    return encoded({"embeddings": found})


@post(
    "/v1/embeddings/store",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BATCH_BODY,
    operation_class=documented(
        EmbeddingsStore,
        {200: EmbeddingsStored},
        {"model": "my-model", "items": [{"text": "A text.", "embedding": [0.6, 0.8]}]},
    ),
)
async def store_embeddings(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep embeddings that the caller computed, under any model's name. Cache lookups don't use them."""
    asked, own = _store_request(await request.body()), services.embeddings
    check_identifier("model", asked.model)
    ttl_s = own.ttl_s if asked.ttl_s is UNSET else asked.ttl_s
    if ttl_s > own.ttl_s:
        raise InvalidInputError("ttl_s", f"must be {own.ttl_s} at most, as SEMCACHED_EMBEDDINGS_TTL_S says")
    given, keys = await _given(asked.items), services.keyring.of(request.user.tenant)
    await own.keep(asked.model, given, keys, math.floor(ttl_s * 1000))
    services.accounting.count(keys, None, "embeddings", "stored", times=len(given))
    return encoded(EmbeddingsStored(len(given)))


def _count(services: Services, keys: TenantKeys, hits: int, misses: int) -> None:
    """Texts, of no agent_type."""
    services.accounting.count(keys, None, "embeddings", "hit", "kept", times=hits)
    services.accounting.count(keys, None, "embeddings", "miss", "empty", times=misses)


async def _given(items: Sequence[GivenEmbedding]) -> dict[str, bytes]:
    """Text → vector, all of one dimension; of a text that is given twice, the last."""
    given: dict[str, bytes] = {}
    first = 0
    async for at, item in _in_turns(items):
        given[item.text] = raw = _raw(f"items[{at}].embedding", item.embedding)
        first = first or len(raw)
        if len(raw) != first:
            told = f"has {len(raw) // 4} values, the first item {first // 4}"
            raise InvalidInputError(f"items[{at}].embedding", told)
    return given


async def _in_turns(items: Sequence[T]) -> AsyncIterator[tuple[int, T]]:
    """Each with its number; others have their turn between some of them."""
    for at, item in enumerate(items):
        if at % TURN == TURN - 1:
            await asyncio.sleep(0)
        yield at, item


def _texts(asked: EmbeddingsRequest) -> list[str]:
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    texts: list[str] = []
    for at, one in enumerate(given):
        if not isinstance(one, str):
            raise InvalidInputError("input", "has token ids, which are another model's: send texts")
        if not one:
            raise InvalidInputError(f"input[{at}]", "is empty")
        texts.append(one)
    return texts


def _coded(raw: bytes, encoding: Encoding) -> Embedding:
    if encoding == "base64":
        return b64encode(raw).decode()
    values: list[float] = np.frombuffer(raw, "<f4").tolist()
    return values


def _raw(field: str, given: Embedding) -> bytes:
    """Little-endian float32, as it was given.

    Raises:
        InvalidInputError: names `field`.
    """
    raw = _decoded(field, given) if isinstance(given, str) else _float32(given)
    values: Any = np.frombuffer(raw, "<f4")
    if not 1 <= values.size <= MOST_VALUES:
        raise InvalidInputError(field, f"must have 1 to {MOST_VALUES} values")
    if not (np.isfinite(values).all() and values.any()):
        raise InvalidInputError(field, "must be finite and not zero")
    return raw


def _decoded(field: str, given: str) -> bytes:
    try:
        raw = b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(field, "is no base64") from None
    if len(raw) % 4:
        raise InvalidInputError(field, "is no whole number of float32 values")
    return raw


def _float32(given: list[float]) -> bytes:
    with np.errstate(over="ignore"):  # it is infinite then, and refused
        return np.array(given, np.float64).astype("<f4").tobytes()
