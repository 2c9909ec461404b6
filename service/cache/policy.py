"""Policies: how the questions of an agent_type are answered."""

import math
from typing import get_args

import msgspec

from service.cache.patterns import compiled
from service.cache.ports import Verifier
from service.errors import InvalidInputError
from service.model import Comparison, Embedding, Generation, GuardName, OwnPattern, Policy

DEFAULT = Policy()
"""Where none was set."""


UNVERIFIED = 0.95
"""The least default threshold where no verifier reads what is near enough."""

LANGCACHE = "langcache:"
"""Begins the agent_types of LangCache's caches."""

LARGEST = 1500
"""Instructions of all patterns of a policy: what reading a text may cost (`patterns.LARGEST`)."""


def check(policy: Policy) -> Policy:
    """The policy, if its patterns may be used.

    Raises:
        InvalidInputError: names the field, as in `ttl_rules[0].pattern`.
    """
    patterns = [(f"ttl_rules[{at}].pattern", rule.pattern) for at, rule in enumerate(policy.ttl_rules)]
    patterns += [
        (f"bypass[{at}].pattern", one.pattern)
        for at, one in enumerate(policy.bypass)
        if isinstance(one, OwnPattern)
    ]
    size = 0
    for field, pattern in patterns:
        size += compiled(field, pattern).size
        if size > LARGEST:
            raise InvalidInputError(field, "makes the policy's patterns too large together")
    return policy


def agree(policy: Policy, agent_type: str, *, judge: bool) -> None:
    """Check what a policy's fields say together, where one is set.

    Args:
        policy: as it was given.
        agent_type: whose.
        judge: whether there is an LLM that compares answers.

    Raises:
        InvalidInputError: names the field.
    """
    compares = policy.mode == "verified" or policy.shadow
    if compares and not policy.decisions_s:
        raise InvalidInputError(
            "decisions_s", "of 0 keeps nothing to compare: `verified` and `shadow` need it"
        )
    if compares and policy.comparison is Comparison.JUDGE and not judge:
        raise InvalidInputError("comparison", "`judge` needs SEMCACHED_JUDGE, which is off here")
    if policy.mode == "verified" and agent_type.startswith(LANGCACHE):
        raise InvalidInputError(
            "mode", "`verified` learns from stores that name a lookup_id, which LangCache's calls don't"
        )
    low, high = policy.threshold_bounds or (0.0, 1.0)
    if low > high:
        raise InvalidInputError("threshold_bounds", "has the lower one first")


def counting(policy: Policy, chosen_for: Embedding, generation: Generation) -> Policy:
    """A policy as it counts over a generation's similarities.

    A threshold that was chosen for another model's counts only as far as it is stricter than what it would be
    without; a head that weighs those doesn't count, nor the cut that was found with it.

    Args:
        policy: as it was set.
        chosen_for: whose similarities were known then.
        generation: what is searched.
    """
    if chosen_for == generation.embedding:
        return policy
    changes: dict[str, float | None] = {}
    if policy.threshold is not None:
        read = policy.guarded("verifier")
        least = generation.threshold if read else max(generation.threshold, UNVERIFIED)
        changes["threshold"] = max(policy.threshold, least)
    if policy.verifier_head is not None:
        changes |= {"verifier_head": None, "verifier_cut": None, "verifier_version": None}
    return msgspec.structs.replace(policy, **changes) if changes else policy


def threshold_of(policy: Policy, generation: Generation, verifier: Verifier | None) -> float:
    """Where a request names none: stricter where the verifier that it counts on doesn't read."""
    wanted = generation.threshold if policy.threshold is None else policy.threshold
    without = policy.threshold is not None and not policy.guarded("verifier")
    reads = verifier is not None and policy.guarded("verifier")
    return wanted if reads or without else max(wanted, UNVERIFIED)


def cut_of(policy: Policy, verifier: Verifier) -> float:
    """The policy's cut if it has one and that wasn't chosen with other weights, else the shipped one."""
    head = policy.verifier_head
    weights = policy.verifier_version or (None if head is None else head.version)
    own = policy.verifier_cut if weights in {None, verifier.version} else None
    return verifier.cut if own is None else own


def filled(policy: Policy, threshold: float, verifier: Verifier | None) -> Policy:
    """A policy as it is in force: each guard named, the threshold, the verifier's cut and weights."""
    policy = msgspec.structs.replace(
        policy,
        threshold=threshold,
        guards={name: policy.guarded(name) for name in get_args(GuardName)},
    )
    if verifier is None:
        return policy
    return msgspec.structs.replace(
        policy, verifier_cut=cut_of(policy, verifier), verifier_version=verifier.version
    )


def weighed(
    score: float | None, similarity: float, policy: Policy, verifier: Verifier
) -> tuple[float, float]:
    """The score by the policy's head, if that was fitted to these weights, and the cut that belongs to it.

    What the verifier can't read reaches no cut.
    """
    if score is None:
        return 0.0, math.inf
    head = policy.verifier_head
    if head is not None and head.version == verifier.version:
        score = head.score(score, similarity)
    return score, cut_of(policy, verifier)
