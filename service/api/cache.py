"""/v1/cache: lookup and store, single and in batches."""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from service.api.attending import attended
from service.api.auth import Principal, Role
from service.api.authentication import needs
from service.api.direct import Answered, Call, Coming
from service.api.measuring import WAITED
from service.api.problems import Problem, problem_of
from service.api.services import Services
from service.api.wire import MAX_DEPTH, Each, decoder, documented, encode, encoded
from service.cache.bypass import RULES
from service.cache.digests import TenantKeys
from service.cache.metrics import count, count_store
from service.cache.ports import Work
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

PASSING = frozenset({"invalidated", "admit_after", "error", "refusal", "finish_reason", "min_chars"})
"""Reasons for which a store is refused that say nothing of the next one."""

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
    asked, work = _lookup_request(await request.body()), Work()
    if asked.wait_s is None:
        question = services.lookup.question(asked, keys)
        known = services.lookup.recall(question, keys, work)
        answer = known or await services.lookup.answer_one(question, keys, work)
    else:
        leads = request.user.role >= Role.writer
        waiting = services.lookup.answer_waiting(asked, keys, asked.wait_s, work, leads=leads)
        question, answer = await attended(request.receive, waiting)
        request.scope["state"][WAITED] = work.waited_ms / 1000
    _counted(services, question, answer, keys, work)
    return encoded(answer, headers={"X-Cache": _word(answer)})


def _directly(services: Services, principal: Principal, body: bytes) -> Answered | Coming | None:
    """A lookup that waits for nobody."""
    asked = _lookup_request(body)
    if asked.wait_s is not None:
        return None
    keys, work = services.keyring.of(principal.tenant), Work()
    question = services.lookup.question(asked, keys)
    known = services.lookup.recall(question, keys, work)
    if known is None:
        return _looked_up(services, question, keys, work)
    return _answered(services, question, known, keys, work)


async def _looked_up(services: Services, question: Question, keys: TenantKeys, work: Work) -> Answered:
    answer = await services.lookup.answer_one(question, keys, work)
    return _answered(services, question, answer, keys, work)


def _answered(
    services: Services, question: Question, answer: Hit | Miss, keys: TenantKeys, work: Work
) -> Answered:
    _counted(services, question, answer, keys, work)
    return Answered(encode(answer), _X_CACHE[_word(answer)])


def _counted(
    services: Services, question: Question, answer: Hit | Miss, keys: TenantKeys, work: Work
) -> None:
    count(answer, services.label(keys.tenant))
    services.accounting.looked_up(keys, [question], [answer], work)


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
    waits: dict[int, float] = {}
    for at, item in enumerate(_items(await request.body()).items):
        answers.append(None)
        await asyncio.sleep(0)  # others have their turn between two items
        try:
            asked = _lookup_request(item)
            questions[at] = services.lookup.question(asked, keys)
        except SemcachedError as error:
            answers[at] = Failed(problem_of(error))
        else:
            if asked.wait_s is not None and request.user.role >= Role.writer:
                waits[len(questions) - 1] = asked.wait_s
    all_asked, work = list(questions.values()), Work()
    found = await services.lookup.answer(all_asked, keys, work, waits)
    services.accounting.looked_up(keys, all_asked, found, work)
    for at, answer in zip(questions, found, strict=True):
        count(answer, services.label(request.user.tenant))
        answers[at] = answer
    return encoded({"items": answers}, headers={"X-Cache": x_cache(answers)})


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
    given, work = _store_request(await request.body()), Work()
    accepted = services.store.accept(given, keys)
    answer: Stored | Refused | SemcachedError
    if isinstance(accepted, Refused):
        answer = accepted
    else:
        (answer,) = await _stored(services, [accepted], keys, work)
    if isinstance(answer, Refused):
        await _give_up(services, given, keys, answer)
    count_store(answer, services.label(request.user.tenant))
    services.accounting.stored(keys, given.agent_type, answer)
    services.accounting.spent(keys, given.agent_type, work)
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
            given = _store_request(item)
            one = services.store.accept(given, keys)
        except SemcachedError as error:
            answers[at] = Failed(problem_of(error))
        else:
            if isinstance(one, Refused):
                count_store(one, label)
                services.accounting.stored(keys, given.agent_type, one)
                answers[at] = one
                await _give_up(services, given, keys, one)
            else:
                accepted[at] = one
    kept, work = list(accepted.values()), Work()
    for at, result in zip(accepted, await _stored(services, kept, keys, work), strict=True):
        count_store(result, label)
        services.accounting.stored(keys, accepted[at].request.agent_type, result)
        if isinstance(result, Refused):
            await _give_up(services, accepted[at].request, keys, result)
        answers[at] = Failed(problem_of(result)) if isinstance(result, SemcachedError) else result
    if kept:
        services.accounting.spent(keys, kept[0].request.agent_type, work)
    return encoded({"items": answers})


async def _stored(
    services: Services, accepted: list[Accepted], keys: TenantKeys, work: Work
) -> list[Stored | Refused | SemcachedError]:
    try:
        return await services.store.answer(accepted, keys, work)
    except StoreUnavailableError as error:
        return [error] * len(accepted)


async def _give_up(services: Services, given: StoreRequest, keys: TenantKeys, why: Refused) -> None:
    """An answer was refused: another's would be, too, unless it was for what may be otherwise next time."""
    if given.lookup_id is not None:
        name = services.lookup.name(given, keys)
        await services.leases.release(keys, name, given.lookup_id, refused=why.reason not in PASSING)


def x_cache(answers: list[Any]) -> str:
    """HIT where everything hit, BYPASS where the cache could not, or may not, be asked."""
    words = {_word(answer) for answer in answers}
    return next((word for word in ("BYPASS", "MISS") if word in words), "HIT")


def _word(answer: Any) -> str:
    if isinstance(answer, Hit):
        return "HIT"
    return "BYPASS" if isinstance(answer, Miss) and _bypassed(answer) else "MISS"


def _bypassed(miss: Miss) -> bool:
    kept_away = miss.reason is Reason.POLICY and miss.rule in RULES
    return kept_away or miss.reason is Reason.DEGRADED


_X_CACHE = {word: b"x-cache: %b\r\n" % word.encode() for word in ("HIT", "MISS", "BYPASS")}

DIRECT = {"/v1/cache/lookup": Call("lookup", _directly)}
"""What is answered without the framework's own way (`direct.py`)."""
