"""/v1/learning: what is known of an agent_type's answers, and where its threshold went."""

from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from service.api.auth import Role
from service.api.authentication import needs
from service.api.cache import MAX_BODY, HttpRequest
from service.api.policies import AGENT_TYPE, agent_type_of
from service.api.services import Services
from service.api.wire import decoder, documented, encoded
from service.cache.learning.adaptive import Move, State
from service.cache.learning.quality import Quality, Shadowed
from service.model import Mode


class Moved(Struct, frozen=True, kw_only=True):
    """A move of the threshold."""

    number: Annotated[int, Meta(description="Names it.")]
    at: Annotated[str, Meta(description="RFC 3339.")]
    before: Annotated[float, Meta(description="The threshold before.")]
    after: Annotated[float, Meta(description="The threshold since.")]
    why: Annotated[
        str,
        Meta(
            description="`wrong`: too many were; `right`: nearly all; `undone`; `bounds`; `policy`: was PUT."
        ),
    ]
    basis: Annotated[str, Meta(description="What it rests on, as of `quality`.")]
    verdicts: Annotated[int, Meta(description="How many it rests on.")]
    wrong: Annotated[int, Meta(description="Of these.")]
    low: Annotated[float, Meta(description="The wrong share, the interval's lower end.")]
    high: Annotated[float, Meta(description="Its upper end.")]


class Learning(Struct, frozen=True, kw_only=True):
    """What is known of an agent_type."""

    mode: Annotated[Mode, Meta(description="The policy's.")]
    threshold: Annotated[float, Meta(description="In force now.")]
    quality: Annotated[Quality, Meta(description="How often answers were wrong.")]
    shadow: Annotated[Shadowed | None, Meta(description="What `shadow` would have served.")]
    outcomes: Annotated[int, Meta(description="Answers that it is known of whether they were right.")]
    entries: Annotated[int, Meta(description="Entries that these are of.")]
    moves: Annotated[list[Moved], Meta(description="Of mode `adaptive`: the last ones, oldest first.")]


class Undo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which move to take back."""

    number: Annotated[int, Meta(description="The last move's.")]


_undo = decoder(Undo)


@get(
    "/v1/learning",
    guards=[needs(Role.reader)],
    operation_class=documented(None, {200: Learning}, parameters=[AGENT_TYPE]),
)
async def get_learning(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """What verdicts and comparisons say of an agent_type's answers."""
    keys, agent_type = services.keyring.of(request.user.tenant), agent_type_of(request)
    await services.ledger.flush()
    quality, shadow, (outcomes, entries) = await services.learning.told(keys, agent_type)
    state, policy = await services.learning.state(keys, agent_type), services.lookup.policy(keys, agent_type)
    answer = Learning(
        mode=policy.mode,
        threshold=policy.threshold or 0.0,
        quality=quality,
        shadow=shadow,
        outcomes=outcomes,
        entries=entries,
        moves=_moves(state),
    )
    return encoded(answer)


@post(
    "/v1/learning/undo",
    status_code=200,
    guards=[needs(Role.admin)],
    request_max_body_size=MAX_BODY,
    operation_class=documented(Undo, {200: Moved}, {"number": 1}, parameters=[AGENT_TYPE]),
)
async def undo_move(request: HttpRequest, services: NamedDependency[Services]) -> Response[bytes]:
    """Take the last move of the threshold back; it then stays for a while."""
    keys, agent_type = services.keyring.of(request.user.tenant), agent_type_of(request)
    given = _undo(await request.body())
    state = await services.learning.undo(keys, agent_type, given.number)
    return encoded(_moves(state)[-1])


def _moves(state: State | None) -> list[Moved]:
    return [] if state is None else [_moved(one) for one in state.moves]


def _moved(one: Move) -> Moved:
    return Moved(
        number=one.number,
        at=datetime.fromtimestamp(one.at / 1000, UTC).isoformat(timespec="milliseconds"),
        before=one.before,
        after=one.after,
        why=one.why.value,
        basis=one.basis,
        verdicts=one.verdicts,
        wrong=one.wrong,
        low=one.low,
        high=one.high,
    )
