"""Policies: how the questions of an agent_type are answered."""

from service.cache.digests import TenantKeys
from service.model import Policy

DEFAULT = Policy()


class Defaults:
    """Fulfils `cache.ports.Policies` where none can be set."""

    def of(self, keys: TenantKeys, agent_type: str) -> Policy:  # noqa: ARG002 - the port's
        """See `cache.ports.Policies`."""
        return DEFAULT
