"""Policies: how the questions of an agent_type are answered."""

from typing import get_args

import msgspec

from service.model import GuardName, Policy

DEFAULT = Policy()
"""Where none was set."""


def filled(policy: Policy, threshold: float, verifier_cut: float | None) -> Policy:
    """A policy with nothing left open: each guard named, the generation's threshold, the verifier's cut."""
    return msgspec.structs.replace(
        policy,
        threshold=threshold if policy.threshold is None else policy.threshold,
        guards={name: policy.guarded(name) for name in get_args(GuardName)},
        verifier_cut=verifier_cut if policy.verifier_cut is None else policy.verifier_cut,
    )
