"""`semcached calibrate --replay`: what a policy would have made of the decisions that are kept."""

from pathlib import Path

import msgspec

from service.cache.decided import model_of
from service.cache.decisions import Decisions
from service.cache.learning.replay import Replayed, replayed
from service.cache.policy import check, cut_of
from service.cache.ports import Verifier
from service.errors import InvalidInputError, SettingsError
from service.model import Policy, Tenant
from service.settings import Settings
from service.stats import reading
from service.store.decisions import RedisDecisions
from service.store.outcomes import RedisOutcomes
from service.wiring import now_ms


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
        outcomes = RedisOutcomes(redis, keys, responses, now_ms)
        said = await outcomes.read(tenant_keys, agent_type, model_of(generation))
        correct = {one.outcome.lookup_id: one.outcome.correct for one in said}
        reads = verifier is not None and policy.guarded("verifier")
        cut = cut_of(policy, verifier) if reads and verifier is not None else None
        threshold = generation.threshold if policy.threshold is None else policy.threshold
        same = [one for one in found if one.model == model_of(generation)]
        return replayed(same, correct, policy, threshold, cut)


def table(found: Replayed) -> str:
    """For people."""
    return "\n".join(
        (
            f"decisions   {found.decisions}",
            f"hits        {found.hits_then} then, {found.hits_now} now, {found.unknown} not known",
            f"right       {found.right_then} then, {found.right_now} now, of those with a verdict",
            f"wrong       {found.wrong_then} then, {found.wrong_now} now, of those with a verdict",
        )
    )
