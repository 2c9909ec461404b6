"""/v1/cache: lookup and store, single and in batches."""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from service.api.auth import Principal, Role
from service.api.authentication import needs
from service.api.problems import Problem, problem_of
from service.api.services import Services
from service.api.wire import MAX_DEPTH, Each, decoder, documented, encoded
from service.cache.digests import TenantKeys
from service.cache.question import Question
from service.cache.store import Accepted
from service.errors import SemcachedError, StoreUnavailableError
from service.model import (
    MAX_BATCH,
    Hit,
    LookupRequest,
    Miss,
    Reason,
    Refused,
    Stored,
    StoreRequest,
)
from service.telemetry import GUARDED, LOOKUPS, STORES

MAX_BODY = 1024 * 1024
MAX_BATCH_BODY = 16 * 1024 * 1024

QUESTION = {"agent_type": "support", "prompt": "How do I reset my password?"}
ENTRY = QUESTION | {"response": "Settings, Security, Reset password."}

HttpRequest = Request[Principal, None, Any]


class Items(Struct, forbid_unknown_fields=True):
    """A batch as it comes: each item is decoded by itself."""

    items: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BATCH)]


class LookupBatch(Struct, forbid_unknown_fields=True):
    """Up to 256 questions."""

    items: Annotated[
        list[LookupRequest], Meta(min_length=1, max_length=MAX_BATCH, description="The questions.")
    ]


class StoreBatch(Struct, forbid_unknown_fields=True):
    """Up to 256 entries."""

    items: Annotated[list[StoreRequest], Meta(min_length=1, max_length=MAX_BATCH, description="The entries.")]


class Failed(Struct, frozen=True, tag_field="outcome", tag="error"):
    """An item of a batch that failed by itself."""

    error: Annotated[Problem, Meta(description="What the single call would have answered.")]


_lookup_request = decoder(LookupRequest)
_store_request = decoder(StoreRequest)
_items = decoder(Items, max_depth=MAX_DEPTH + 2)


@post(
    "/v1/cache/lookup",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(LookupRequest, {200: Hit | Miss}, QUESTION),
)
async def lookup(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Ask the cache. A hit carries the answer; a miss says why. `X-Cache` is HIT, MISS or BYPASS."""
    keys = services.keyring.of(request.user.tenant)
    question = services.lookup.question(_lookup_request(await request.body()), keys)
    (answer,) = await services.lookup.answer([question], keys)
    _count(answer, services.label(request.user.tenant))
    return encoded(answer, headers={"X-Cache": _x_cache([answer])})


@post(
    "/v1/cache/lookup/batch",
    status_code=200,
    guards=[needs(Role.reader)],
    request_max_body_size=MAX_BATCH_BODY,
    operation_class=documented(LookupBatch, {200: Each(Hit, Miss, Failed)}, {"items": [QUESTION]}),
)
async def lookup_batch(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Ask up to 256 questions at once: one round trip to Redis per stage, answers in order."""
    keys = services.keyring.of(request.user.tenant)
    answers: list[Hit | Miss | Failed | None] = []
    questions: dict[int, Question] = {}
    for at, item in enumerate(_items(await request.body()).items):
        answers.append(None)
        await asyncio.sleep(0)  # others have their turn between two items
        try:
            questions[at] = services.lookup.question(_lookup_request(item), keys)
        except SemcachedError as error:
            answers[at] = Failed(problem_of(error))
    for at, answer in zip(
        questions, await services.lookup.answer(list(questions.values()), keys), strict=True
    ):
        _count(answer, services.label(request.user.tenant))
        answers[at] = answer
    return encoded({"items": answers}, headers={"X-Cache": _x_cache(answers)})


@post(
    "/v1/cache/store",
    status_code=201,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(StoreRequest, {201: Stored, 200: Refused}, ENTRY),
)
async def store(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep an answer. Storing a question again extends its life, or replaces its answer."""
    keys = services.keyring.of(request.user.tenant)
    accepted = services.store.accept(_store_request(await request.body()), keys)
    answer: Stored | Refused | SemcachedError
    if isinstance(accepted, Refused):
        answer = accepted
    else:
        (answer,) = await _stored(services, [accepted], keys)
    _count_store(answer, services.label(request.user.tenant))
    if isinstance(answer, SemcachedError):
        raise answer
    return encoded(answer, status=201 if isinstance(answer, Stored) else 200)


@post(
    "/v1/cache/store/batch",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BATCH_BODY,
    operation_class=documented(StoreBatch, {200: Each(Stored, Refused, Failed)}, {"items": [ENTRY]}),
)
async def store_batch(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Keep up to 256 answers: one round trip to Redis, each entry whole or not at all."""
    keys = services.keyring.of(request.user.tenant)
    label = services.label(request.user.tenant)
    answers: list[Stored | Refused | Failed | None] = []
    accepted: dict[int, Accepted] = {}
    for at, item in enumerate(_items(await request.body()).items):
        answers.append(None)
        await asyncio.sleep(0)  # others have their turn between two items
        try:
            one = services.store.accept(_store_request(item), keys)
        except SemcachedError as error:
            answers[at] = Failed(problem_of(error))
        else:
            if isinstance(one, Refused):
                _count_store(one, label)
                answers[at] = one
            else:
                accepted[at] = one
    for at, result in zip(accepted, await _stored(services, list(accepted.values()), keys), strict=True):
        _count_store(result, label)
        answers[at] = Failed(problem_of(result)) if isinstance(result, SemcachedError) else result
    return encoded({"items": answers})


async def _stored(
    services: Services, accepted: list[Accepted], keys: TenantKeys
) -> list[Stored | Refused | SemcachedError]:
    try:
        return await services.store.answer(accepted, keys)
    except StoreUnavailableError as error:
        return [error] * len(accepted)


def _x_cache(answers: list[Any]) -> str:
    """HIT where everything hit, BYPASS where the cache could not be asked."""
    if all(isinstance(answer, Hit) for answer in answers):
        return "HIT"
    degraded = (isinstance(answer, Miss) and answer.reason is Reason.DEGRADED for answer in answers)
    return "BYPASS" if any(degraded) else "MISS"


def _count(answer: Hit | Miss, tenant: str) -> None:
    detail = answer.tier if isinstance(answer, Hit) else answer.reason
    if isinstance(answer, Miss) and answer.reason is Reason.GUARD and isinstance(answer.rule, str):
        GUARDED.labels(answer.rule).inc()
    LOOKUPS.labels(tenant, "hit" if isinstance(answer, Hit) else "miss", detail.value).inc()


def _count_store(answer: Stored | Refused | SemcachedError, tenant: str) -> None:
    outcome = (
        "stored" if isinstance(answer, Stored) else "refused" if isinstance(answer, Refused) else "failed"
    )
    STORES.labels(tenant, outcome).inc()
