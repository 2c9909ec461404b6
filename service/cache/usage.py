"""Which entries were used lately, noted in this process until they are written; see `store/bounds.py`."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from service.cache.ports import Clock
from service.model import Record, Tenant

Names = tuple[Tenant, str]
"""Tenant and agent_type."""

MOST = 100_000
"""How many notes are kept while Redis is away; the oldest go first."""

DUE = 200
"""Notes are written at once when the stores among them reach this part of a bound."""


class Use(NamedTuple):
    """An entry's last use."""

    at: int  # ms since 1970
    stored: bool  # else it was there before


class Uses:
    """Fulfils `cache.ports.Uses`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: OrderedDict[tuple[Names, str], Use] = OrderedDict()  # the oldest first
        self._stores: Counter[Names] = Counter()
        self.due = asyncio.Event()
        """Set where they should be written at once."""

    def hit(self, tenant: Tenant, record: Record) -> None:
        """See `cache.ports.Uses`."""
        self._note((tenant, record.agent_type), record.entry_id, stored=False)

    def stored(self, tenant: Tenant, record: Record, bound: int) -> None:
        """See `cache.ports.Uses`."""
        names = tenant, record.agent_type
        self._note(names, record.entry_id, stored=True)
        self._stores[names] += 1
        if self._stores[names] * DUE >= bound:
            self.due.set()

    def take(self) -> dict[Names, dict[str, Use]]:
        """All of them, by entry id; none is left."""
        self.due.clear()
        self._stores.clear()
        taken: dict[Names, dict[str, Use]] = {}
        for (names, entry_id), use in self._notes.items():
            taken.setdefault(names, {})[entry_id] = use
        self._notes.clear()
        return taken

    def put_back(self, names: Names, uses: Mapping[str, Use]) -> None:
        """Those that couldn't be written; they are older than all that was noted since."""
        for entry_id, use in reversed(list(uses.items())):
            later = self._notes.get((names, entry_id))
            if later is not None:
                self._notes[names, entry_id] = Use(later.at, later.stored or use.stored)
            elif len(self._notes) < MOST:
                self._notes[names, entry_id] = use
                self._notes.move_to_end((names, entry_id), last=False)

    def _note(self, names: Names, entry_id: str, *, stored: bool) -> None:
        before = self._notes.pop((names, entry_id), None)
        stored = stored or (before is not None and before.stored)
        self._notes[names, entry_id] = Use(self._clock(), stored)
        if len(self._notes) > MOST:
            self._notes.popitem(last=False)
