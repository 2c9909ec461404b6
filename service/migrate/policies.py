"""Policies that were chosen by another model's similarities than those of a generation."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from service.migrate.changes import Change
from service.migrate.target import Target
from service.store import chosen
from service.store.layout import read_layout
from service.store.policies import Kept, is_foreign, read_all

NAMED = 5


async def strangers(target: Target, change: Change) -> list[Kept]:
    """Those that count for less once a change is published.

    Raises:
        StoreUnavailableError: Redis does not answer.
    """
    layout = await read_layout(target.redis, target.keys)
    if layout is None or change.kind != "reembed":
        return []
    raw = await target.redis.call("GET", chosen.name(target.keys))
    unmarked = chosen.decoded(raw) or change.before.embedding
    found = await read_all(target.redis, target.keys, target.keyring, layout.partitions)
    return [one for one in found if isinstance(one, Kept) and is_foreign(one, unmarked, change.after)]


def told(some: Sequence[Kept]) -> Iterator[str]:
    """What `plan` says of them."""
    if not some:
        return
    by_tenant: dict[str, list[str]] = defaultdict(list)
    for one in some:
        by_tenant[one.body.tenant].append(one.body.agent_type)
    names = [f"{tenant}: {', '.join(_some(sorted(types)))}" for tenant, types in sorted(by_tenant.items())]
    yield f"  {len(some)} policies have a threshold or verifier_head of their own: {'; '.join(_some(names))}"
    yield "    chosen for the old model, they count only where they are stricter, until they are PUT again"


def _some(names: list[str]) -> list[str]:
    more = len(names) - NAMED
    return names if more <= 0 else [*names[:NAMED], f"and {more} more"]
