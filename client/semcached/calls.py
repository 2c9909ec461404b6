"""Each call of the service as a value: what is sent, how its answer is read, whether it may be sent twice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from semcached import fields, model
from semcached.errors import Problem

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class Call(NamedTuple, Generic[T]):
    """One request.

    `repeatable`: it may be sent again though it may have been done already. Reads and PUTs are, and stores
    that name their lookup: storing an id again changes nothing but its life, and where something was
    invalidated in between the service refuses it. Other stores would bring back what was invalidated.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    body: bytes | None = None
    query: Mapping[str, str] = {}
    repeatable: bool = False
    wait_s: float = 0.0  # how long the service may wait before it answers
    reads: bool = False  # a lookup
    also: frozenset[int] = frozenset()  # statuses beyond 299 that are answers


def _json(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode


class _Kept(Struct, frozen=True, kw_only=True):
    """Stored, Refused or Failed: told apart by `stored`, which no tag of a Struct can be."""

    stored: bool | None = None
    entry_id: str = ""
    tiers: list[str] = []
    expires_in_s: float | None = None
    exact_only: str | None = None
    reason: str = ""
    error: Problem | UnsetType = UNSET

    def told(self) -> model.Stored | model.Refused | model.Failed:
        if self.error is not UNSET:
            return model.Failed(self.error)
        if not self.stored:
            return model.Refused(reason=self.reason)
        return model.Stored(
            entry_id=self.entry_id,
            tiers=self.tiers,
            expires_in_s=self.expires_in_s,
            exact_only=self.exact_only,
        )


class _Items(Struct, Generic[T], frozen=True):
    items: list[T]


class _Found(Struct, frozen=True):
    embeddings: list[list[float] | None]


class _Count(Struct, frozen=True):
    stored: int


class _Deleted(Struct, frozen=True):
    deleted: dict[str, int]


_answer = _json(model.Hit | model.Miss)
_answers = _json(_Items[model.Hit | model.Miss | model.Failed])
_kept = _json(_Kept)
_all_kept = _json(_Items[_Kept])
_tool = _json(model.ToolHit | model.ToolMiss)
_tool_policies = _json(_Items[model.ToolPolicy])
_tool_policy = _json(model.ToolPolicy)
_entry = _json(model.Entry)
_entries = _json(model.Entries)
_deleted = _json(_Deleted)
_embeddings = _json(model.Embeddings)
_found = _json(_Found)
_count = _json(_Count)
_invalidated = _json(model.Invalidated)
_recorded = _json(model.Recorded)
_rule = _json(model.Rule)
_rules = _json(_Items[model.Rule])
_fired = _json(model.Fired)
_policy = _json(model.Policy)
_stats = _json(model.Stats)
_health = _json(model.Health)


def _part(name: str) -> str:
    """A name as one part of a path: `..` would be taken for the part above."""
    return quote(name, safe="").replace(".", "%2E")


def _nothing(_: bytes) -> None:
    return None


def _stored(body: bytes) -> model.Stored | model.Refused:
    told: model.Stored | model.Refused | model.Failed = _kept(body).told()
    if isinstance(told, model.Failed):
        raise msgspec.ValidationError("an item's error where there is no batch")
    return told


def _asked(path: str, given: Mapping[str, Any], read: Callable[[bytes], T]) -> Call[T]:
    """A lookup. One that waits may have got the lease: sent again it would wait for itself."""
    waits = given.get("wait_s")
    return Call("POST", path, read, _encode(given), repeatable=waits is None, wait_s=waits or 0.0, reads=True)


def lookup(given: fields.Lookup) -> Call[model.Hit | model.Miss]:
    """A question."""
    return _asked("/v1/cache/lookup", given, _answer)


def lookup_batch(items: Sequence[fields.Lookup]) -> Call[list[model.Hit | model.Miss | model.Failed]]:
    """Up to 256 questions."""
    body = _encode({"items": items})
    return Call(
        "POST",
        "/v1/cache/lookup/batch",
        lambda body: list(_answers(body).items),
        body,
        repeatable=True,
        reads=True,
    )


def store(given: fields.Store) -> Call[model.Stored | model.Refused]:
    """An answer."""
    named = given.get("lookup_id") is not None
    return Call("POST", "/v1/cache/store", _stored, _encode(given), repeatable=named)


def store_batch(items: Sequence[fields.Store]) -> Call[list[model.Stored | model.Refused | model.Failed]]:
    """Up to 256 answers."""
    named = all(one.get("lookup_id") is not None for one in items)
    body = _encode({"items": items})
    return Call(
        "POST",
        "/v1/cache/store/batch",
        lambda body: [one.told() for one in _all_kept(body).items],
        body,
        repeatable=named,
    )


def lookup_tool(given: fields.ToolLookup) -> Call[model.ToolHit | model.ToolMiss]:
    """A tool's result."""
    return _asked("/v1/tools/lookup", given, _tool)


def store_tool(given: fields.ToolStore) -> Call[model.Stored | model.Refused]:
    """Keep one."""
    named = given.get("lookup_id") is not None
    return Call("POST", "/v1/tools/store", _stored, _encode(given), repeatable=named)


def tool_policies() -> Call[list[model.ToolPolicy]]:
    """Those that were set."""
    return Call("GET", "/v1/tools/policies", lambda body: list(_tool_policies(body).items), repeatable=True)


def put_tool_policy(policy: model.ToolPolicy) -> Call[model.ToolPolicy]:
    """Set one."""
    return Call("PUT", "/v1/tools/policies", _tool_policy, _encode(policy), repeatable=True)


def entry(entry_id: str) -> Call[model.Entry]:
    """One entry."""
    return Call("GET", f"/v1/cache/entries/{_part(entry_id)}", _entry, repeatable=True)


def delete_entry(entry_id: str) -> Call[None]:
    """Delete it."""
    return Call("DELETE", f"/v1/cache/entries/{_part(entry_id)}", _nothing)


def entries(**query: str | int | None) -> Call[model.Entries]:
    """A page of them."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return Call("GET", "/v1/cache/entries", _entries, query=given, repeatable=True)


def clear(confirm: str) -> Call[model.Cleared]:
    """Everything goes."""
    return Call("DELETE", "/v1/cache", lambda body: _deleted(body).deleted, query={"confirm": confirm})


def embed(texts: Sequence[str], name: str) -> Call[model.Embeddings]:
    """Computed by the service."""
    given = {"input": texts, "model": name}
    return Call("POST", "/v1/embeddings", _embeddings, _encode(given), repeatable=True)


def lookup_embeddings(texts: Sequence[str], name: str) -> Call[list[list[float] | None]]:
    """Kept by the service."""
    given = {"model": name, "texts": texts}
    return Call(
        "POST",
        "/v1/embeddings/lookup",
        lambda body: list(_found(body).embeddings),
        _encode(given),
        repeatable=True,
        reads=True,
    )


def store_embeddings(items: Sequence[fields.GivenEmbedding], name: str, ttl_s: float | None) -> Call[int]:
    """To be kept."""
    given = {"model": name, "items": items} | ({} if ttl_s is None else {"ttl_s": ttl_s})
    return Call("POST", "/v1/embeddings/store", lambda body: int(_count(body).stored), _encode(given))


def feedback(lookup_id: str, note: str | None, *, correct: bool) -> Call[model.Recorded]:
    """Said twice it is counted once."""
    given = {"lookup_id": lookup_id, "correct": correct} | ({} if note is None else {"note": note})
    return Call("POST", "/v1/feedback", _recorded, _encode(given), repeatable=True)


def invalidate(
    where: fields.Where, keyspaces: Sequence[model.Keyspace] | None, *, dry_run: bool
) -> Call[model.Invalidated]:
    """What matches goes."""
    given = {"where": where, "dry_run": dry_run} | ({} if keyspaces is None else {"keyspaces": keyspaces})
    return Call("POST", "/v1/invalidate", _invalidated, _encode(given), repeatable=dry_run)


def rules() -> Call[list[model.Rule]]:
    """All of them."""
    return Call("GET", "/v1/invalidation-rules", lambda body: list(_rules(body).items), repeatable=True)


def put_rule(name: str, event: str, where: fields.Where) -> Call[model.Rule]:
    """Set one."""
    body = _encode({"event": event, "where": where})
    return Call("PUT", f"/v1/invalidation-rules/{_part(name)}", _rule, body, repeatable=True)


def delete_rule(name: str) -> Call[None]:
    """Delete one."""
    return Call("DELETE", f"/v1/invalidation-rules/{_part(name)}", _nothing)


def event(kind: str, data: Mapping[str, Any]) -> Call[model.Fired]:
    """Something happened."""
    return Call("POST", "/v1/events", _fired, _encode({"type": kind, "data": data}))


def policy(agent_type: str) -> Call[model.Policy]:
    """In force."""
    return Call("GET", "/v1/policies", _policy, query={"agent_type": agent_type}, repeatable=True)


def put_policy(agent_type: str, given: model.Policy) -> Call[model.Policy]:
    """Set the whole of it."""
    query = {"agent_type": agent_type}
    return Call("PUT", "/v1/policies", _policy, _encode(given), query=query, repeatable=True)


def stats(agent_type: str | None) -> Call[model.Stats]:
    """Of the tenant, or of one agent_type."""
    query = {} if agent_type is None else {"agent_type": agent_type}
    return Call("GET", "/v1/stats", _stats, query=query, repeatable=True)


def health() -> Call[model.Health]:
    """503 says why not."""
    return Call("GET", "/readyz", _health, repeatable=True, also=frozenset({503}))


def live() -> Call[model.Health]:
    """Whether the process turns."""
    return Call("GET", "/livez", _health, repeatable=True, reads=True)
