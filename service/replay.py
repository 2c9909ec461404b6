"""`semcached calibrate --replay`: what a policy would have made of the decisions that are kept."""

from pathlib import Path

import msgspec

from service.cache.decided import model_of
from service.cache.decisions import Decisions
from service.cache.learning.replay import Replayed, replayed
from service.cache.policy import DEFAULT, check, cut_of, threshold_of
from service.cache.ports import Verifier
from service.errors import InvalidInputError, SettingsError
from service.model import Policy, Tenant
from service.settings import Settings
from service.stats import reading
from service.store.decisions import RedisDecisions
from service.store.outcomes import RedisOutcomes
from service.wiring import now_ms

GONE_BY = {"threshold", "guards", "verifier_cut", "verifier_version", "tiers", "shadow"}
OF_NO_HIT = {"comparison", "decisions_s", "review_sample_rate", "prompt_cache", "max_error_rate"}
"""What doesn't decide what is served."""


def read(path: Path) -> Policy:
    """A policy's JSON.

    Raises:
        SettingsError: it is none.
    """
    try:
        return check(msgspec.json.decode(path.read_bytes(), type=Policy))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, InvalidInputError) as error:
        raise SettingsError(f"{path}: {error}") from None


async def replay(
    settings: Settings,
    url: str,
    tenant: Tenant,
    agent_type: str,
    *,
    policy: Policy,
    verifier: Verifier | None,
) -> Replayed:
    """A tenant's decisions of an agent_type under another policy.

    Raises:
        StoreUnavailableError: Redis does not answer.
        StartupError: it was never set up, or under another secret.
    """
    async with reading(settings, url) as (redis, keys, keyring, responses, generation):
        tenant_keys = keyring.of(tenant)
        decisions = RedisDecisions(redis, keys, responses, Decisions(), clock=now_ms)
        found = [one.decided async for one in decisions.all(tenant_keys) if one.agent_type == agent_type]
        outcomes = RedisOutcomes(redis, keys, responses)
        said = await outcomes.read(tenant_keys, agent_type, model_of(generation))
        if not found:
            raise SettingsError(f"--agent-type: no decision of {agent_type} is kept for tenant {tenant}")
        # A reviewer's word holds over a user's, as everywhere.
        correct = {
            one.outcome.lookup_id: one.outcome.correct for one in sorted(said, key=lambda one: one.weight)
        }
        reads = verifier is not None and policy.guarded("verifier")
        cut = cut_of(policy, verifier) if reads and verifier is not None else None
        threshold = threshold_of(policy, generation, verifier)
        same = [one for one in found if one.model == model_of(generation)]
        return replayed(same, correct, policy, threshold, cut)


def left_out(policy: Policy) -> list[str]:
    """Fields that were set, and might change what is served, which a replay doesn't go by."""
    fields = sorted(set(Policy.__struct_fields__) - GONE_BY - OF_NO_HIT)
    return [name for name in fields if getattr(policy, name) != getattr(DEFAULT, name)]


def table(found: Replayed, policy: Policy) -> str:
    """For people."""
    without = left_out(policy)
    return "\n".join(
        (
            *([f"not gone by  {', '.join(without)}"] if without else []),
            f"decisions   {found.decisions}",
            f"hits        {found.hits_then} then, {found.hits_now} now, {found.unknown} not known",
            f"right       {found.right_then} then, {found.right_now} now, of those with a verdict",
            f"wrong       {found.wrong_then} then, {found.wrong_now} now, of those with a verdict",
        )
    )
