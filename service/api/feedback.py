"""/v1/feedback and /v1/reviews: whether answers were right."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Parameter, Schema
from msgspec import Meta, Struct

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest
from service.api.services import Services
from service.api.wire import decoder, documented, encoded, parameters
from service.cache.canonical import check_identifier
from service.cache.decided import UNIT, Review
from service.cache.tickets import ticket
from service.errors import InvalidInputError
from service.model import EntryId, LookupId
from service.store.reviews import Waiting

LIMIT, MOST = 20, 100
ESCAPE = 12
"""Characters of JSON's longest: a surrogate pair."""
Word = Literal["correct", "wrong"]


class Feedback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's verdict."""

    lookup_id: Annotated[str, Meta(min_length=32, max_length=32, description="The hit's.")]
    correct: Annotated[bool, Meta(description="Whether the answer was right.")]
    note: Annotated[
        Annotated[str, Meta(max_length=2000)] | None, Meta(description="Why; shown to who reviews it.")
    ] = None


class Verdict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reviewer's verdict."""

    verdict: Annotated[Word, Meta(description="Whether the answer was right.")]


class Recorded(Struct, frozen=True, kw_only=True):
    """A verdict is kept."""

    recorded: Annotated[Literal[True], Meta(description="True.")]
    entry_id: EntryId
    quarantined: Annotated[bool, Meta(description="Whether the entry was taken out for it.")]


class Reviewed(Struct, frozen=True, kw_only=True):
    """A hit to be judged."""

    id: LookupId
    agent_type: Annotated[str, Meta(description="Which kind of agent asked.")]
    entry_id: EntryId
    asked: Annotated[
        str | None, Meta(description="The question; null: a user complained, and it wasn't kept.")
    ]
    stored: Annotated[
        str | None, Meta(description="The question that the answer was made for; null: it was gone.")
    ]
    response: Annotated[
        msgspec.Raw,
        Meta(description="The answer; a string with its beginning where it is long, null where it was gone."),
    ]
    similarity: Annotated[float, Meta(description="Cosine of the two questions.")]
    threshold: Annotated[float, Meta(description="What was in force.")]
    verifier_score: Annotated[float | None, Meta(description="0 to 1; null: it wasn't asked.")]
    served_at: Annotated[str, Meta(description="RFC 3339.")]
    note: Annotated[str | None, Meta(description="What a user said.")]


class Queue(Struct, frozen=True, kw_only=True):
    """Hits that wait for a verdict, the least certain first."""

    items: Annotated[list[Reviewed], Meta(description="The hits.")]
    pending: Annotated[int, Meta(description="How many wait in all, of the agent_type that was asked for.")]
    cursor: Annotated[str | None, Meta(description="For the next page; null: there is none.")]


_feedback = decoder(Feedback)
_verdict = decoder(Verdict)
ID = Parameter("review_id", "path", description="The lookup's id.", required=True)
TEXT = Schema(type="string")  # type: ignore[arg-type] # its stubs


@post(
    "/v1/feedback",
    status_code=200,
    guards=[needs(Role.writer)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Feedback, {200: Recorded}, {"lookup_id": "0" * 32, "correct": False}),
)
async def feedback(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Say whether a hit's answer was right. A wrong one takes the entry out of the cache."""
    given, keys = _feedback(await request.body()), services.keyring.of(request.user.tenant)
    judged = await services.judging.feedback(keys, given.lookup_id, correct=given.correct, note=given.note)
    return encoded(Recorded(recorded=True, entry_id=judged.entry_id, quarantined=judged.quarantined))


@get(
    "/v1/reviews",
    guards=[needs(Role.admin)],
    operation_class=documented(
        None,
        {200: Queue},
        parameters=[
            Parameter("status", "query", description="`pending`.", schema=TEXT),
            Parameter("agent_type", "query", description="Only of this kind of agent.", schema=TEXT),
            Parameter("limit", "query", description=f"1 to {MOST}, else {LIMIT}.", schema=TEXT),
            Parameter("cursor", "query", description="Of the page before.", schema=TEXT),
        ],
    ),
)
async def list_reviews(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Hits that wait for a verdict: those that a policy's `review_sample_rate` chose, and complaints."""
    given = parameters(request.scope["query_string"], "status", "agent_type", "limit", "cursor")
    if given.get("status", "pending") != "pending":
        raise InvalidInputError("status", "must be pending")
    agent_type = given.get("agent_type")
    if agent_type is not None:
        check_identifier("agent_type", agent_type)
    limit, keys = _limit(given.get("limit")), services.keyring.of(request.user.tenant)
    reviews, after = services.judging.reviews, _rank(given.get("cursor"))
    found, pending = await reviews.pending(keys, limit, agent_type, after)
    cursor = f"{found[-1].rank!r}" if len(found) == limit else None
    return encoded(Queue(items=[_shown(one) for one in found], pending=pending, cursor=cursor))


@post(
    "/v1/reviews/{review_id:str}",
    status_code=200,
    guards=[needs(Role.admin)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Verdict, {200: Recorded}, {"verdict": "correct"}, parameters=[ID]),
)
async def review(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Judge a hit, queued or not, by its lookup's id. A wrong answer takes the entry out of the cache.

    A verdict may be changed; it holds over a user's.
    """
    given, keys = _judged(await request.body()), services.keyring.of(request.user.tenant)
    name = str(request.path_params["review_id"])
    judged = await services.judging.review(keys, name, correct=given.verdict == "correct")
    return encoded(Recorded(recorded=True, entry_id=judged.entry_id, quarantined=judged.quarantined))


def _judged(body: bytes) -> Verdict:
    try:
        return _verdict(body)
    except InvalidInputError as error:
        if error.field != "verdict":
            raise
        raise InvalidInputError(
            "verdict", f"{error.message}; known are {', '.join(get_args(Word))}"
        ) from None


def _limit(given: str | None) -> int:
    if given is None:
        return LIMIT
    if not (given.isdecimal() and 1 <= int(given) <= MOST):
        raise InvalidInputError("limit", f"must be 1 to {MOST}")
    return int(given)


def _rank(given: str | None) -> float:
    try:
        found = -1.0 if given is None else float(given)
    except ValueError:
        found = float("nan")
    if not -1 <= found < 2**32:
        raise InvalidInputError("cursor", "is none of ours")
    return found


def _shown(one: Waiting) -> Reviewed:
    review, decided = one.review, one.review.decided
    return Reviewed(
        id=review.id,
        agent_type=review.agent_type,
        entry_id=(decided.entry_id or b"").hex(),
        asked=review.asked,
        stored=review.stored,
        response=msgspec.Raw(_answer(review)),
        similarity=decided.similarity / UNIT,
        threshold=decided.threshold / UNIT,
        verifier_score=None if decided.score is None else decided.score / UNIT,
        served_at=datetime.fromtimestamp(ticket(review.id).at / 1000, UTC).isoformat(timespec="milliseconds"),
        note=review.note,
    )


def _answer(one: Review) -> bytes:
    """JSON; one that was cut is a string: of a text its beginning."""
    try:
        msgspec.json.decode(one.response)
    except msgspec.DecodeError:
        cut = one.response
        return msgspec.json.encode((_beginning(cut) if cut.startswith('"') else cut) + " …")
    return one.response.encode()


def _beginning(cut: str) -> str:
    """Of a JSON string: what it says up to where it was cut, perhaps within an escape."""
    for end in range(len(cut), len(cut) - ESCAPE, -1):
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(cut[:end] + '"', type=str)
    return cut
