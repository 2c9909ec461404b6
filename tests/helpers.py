"""What several tests make."""

import base64
from typing import Any

import msgspec
import numpy as np

from service.cache.digests import TenantKeys
from service.cache.question import Question
from service.cache.store import Accepted
from service.model import Hit, LookupRequest, Miss, Policy, Record, Stored, StoreRequest, Tenant, ToolPolicy
from service.wiring import Parts


def record(scope: str = "scope", history: str = "history", expires_at: int | None = 1001) -> Record:
    return Record(
        entry_id="id",
        tenant="tenant",
        scope=scope,
        history=history,
        agent_type="a",
        model=None,
        prompt_version=None,
        temperature=None,
        attributes={},
        text="q",
        messages=None,
        response=b'"r"',
        metadata=b"null",
        sources=[],
        tags=[],
        usage=None,
        embedding=None,
        stored_at=0,
        expires_at=expires_at,
    )


class Same:
    """One policy for all: a test's own `cache.ports.Policies`."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.learning: set[tuple[Tenant, str]] = set()

    def of(self, keys: TenantKeys, agent_type: str) -> Policy:  # noqa: ARG002 - the port's
        return self.policy

    def tool(self, keys: TenantKeys, tool: str) -> ToolPolicy:  # noqa: ARG002 - the port's
        return ToolPolicy(tool=tool)


def chat(*said: str) -> list[dict[str, str]]:
    """User and assistant in turn; the user has the last word."""
    roles = ["user", "assistant"] * len(said)
    return [
        {"role": role, "content": text}
        for role, text in zip(roles[(len(said) + 1) % 2 :], said, strict=False)
    ]


def asked(keys: TenantKeys, parts: Parts, **fields: Any) -> Question:
    """A checked lookup."""
    return parts.lookup.question(msgspec.convert({"agent_type": "a", **fields}, LookupRequest), keys)


async def look(parts: Parts, keys: TenantKeys, **fields: Any) -> Hit | Miss:
    """One lookup's answer."""
    (answer,) = await parts.lookup.answer([asked(keys, parts, **fields)], keys)
    return answer


def accepted(keys: TenantKeys, parts: Parts, response: str = '"r"', **fields: Any) -> Accepted:
    """A checked store."""
    raw = {"agent_type": "a", **fields, "response": msgspec.Raw(response.encode())}
    request = msgspec.json.decode(msgspec.json.encode(raw), type=StoreRequest)
    one = parts.store.accept(request, keys)
    assert isinstance(one, Accepted)
    return one


async def keep(parts: Parts, keys: TenantKeys, **fields: Any) -> Stored:
    """Store one entry."""
    (answer,) = await parts.store.answer([accepted(keys, parts, **fields)], keys)
    assert isinstance(answer, Stored)
    return answer


def vector(seed: int, dim: int = 384) -> str:
    """A unit vector as base64."""
    values = np.random.default_rng(seed).normal(size=dim)
    return base64.b64encode((values / np.linalg.norm(values)).astype("<f4").tobytes()).decode()


def near(seed: int, cosine: float) -> str:
    """A vector at that cosine from `vector(seed)`."""
    base = np.frombuffer(base64.b64decode(vector(seed)), "<f4").astype(float)
    other = np.random.default_rng(seed + 1).normal(size=base.size)
    other -= other @ base * base
    values = cosine * base + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
