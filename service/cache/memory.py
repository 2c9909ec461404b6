"""Records of exact hits kept in this process: the tier `memory`.

What is kept here was read over a connection on which Redis also tells what of it has changed since, in the
order in which it happened (`store/tracking.py`). Whenever something that we sent at t0 is answered there, all
changes before t0 have arrived. So nothing is served unless the last such t0 lies `LONGEST_S` back at most: a
change that hasn't arrived, or has and wasn't read yet, came after t0 and is younger than that. A Redis that
hangs, a connection that is lost, an event loop that was held up: all of them let that time run out.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from service.cache.digests import TenantKeys
from service.cache.ports import Coherence, Reading
from service.cache.recent import Recent
from service.model import Record, Tenant
from service.telemetry import MEMORY_BYTES, MEMORY_ENTRIES

LONGEST_S = 0.1
"""How long after a change in another process the answer before it may still be served."""
OVERHEAD = 1500
"""What a record takes in Python beyond its bytes in Redis; measured: 1,000 to 1,400 with its places here."""
SEEN = 10_000
"""Ids among which a second hit is looked for, twice as many at most."""
MOST_READING = 1000

Seconds = Callable[[], float]

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it goes on while the machine sleeps


def seconds() -> float:
    """A clock that never goes back; 0.2 µs."""
    return time.clock_gettime(_CLOCK)


class Kept(NamedTuple):
    """A record that lies here."""

    tenant: Tenant
    record: Record
    number: int  # of the last invalidation when it was read, or an earlier one
    size: int  # bytes


class Memory:
    """Records by entry id, which is a keyed digest of the tenant's; the least recently used go first.

    Without a `coherence` nothing is kept and nothing is served.
    """

    def __init__(self, most: int, clock: Seconds = seconds) -> None:
        """`most` in bytes; 0: off."""
        self._most = most
        self.clock = clock
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._reading: dict[str, Reading] = {}
        self._doubted: dict[Tenant, float] = {}  # since when
        self.recent = Recent(SEEN)
        """Ids of entries that Redis served lately."""
        self._confirmed = float("-inf")
        self.coherence: Coherence | None = None
        self.looks = 0
        """How often it was asked."""
        self.bytes = 0

    @property
    def is_on(self) -> bool:
        """Whether it may keep anything."""
        return self._most > 0

    @property
    def is_confirmed(self) -> bool:
        """Whether all changes older than `LONGEST_S` have arrived."""
        return self.clock() - self._confirmed <= LONGEST_S

    @property
    def entries(self) -> int:
        """How many records lie here."""
        return len(self._kept)

    def get(self, tenant: Tenant, entry_id: str) -> Kept | None:
        """What is kept of a tenant's entry, if all changes older than `LONGEST_S` are known."""
        self.looks += 1
        if not self.is_confirmed:
            if self.coherence is not None:
                self.coherence.wake()
            return None
        kept = self._kept.get(entry_id)
        if kept is None or kept.tenant != tenant or tenant in self._doubted:
            return None
        self._kept.move_to_end(entry_id)
        return kept

    def hit(self, keys: TenantKeys, entry_id: str) -> None:
        """Redis served it. From its second time on it is read to be kept: what comes once costs nothing."""
        known = entry_id in self.recent
        self.recent.add(entry_id)
        if self.coherence is None or entry_id in self._kept or not known:
            return
        if entry_id in self._reading or len(self._reading) >= MOST_READING:
            return
        wanted = Reading(keys, entry_id)
        if self.coherence.read(wanted):
            self._reading[entry_id] = wanted

    def keep(self, wanted: Reading, record: Record | None, number: int, size: int) -> None:
        """What was read; None: it isn't there. `size` is that of its bytes in Redis."""
        if self._reading.get(wanted.entry_id) is not wanted:  # forgotten since it was asked for
            return
        del self._reading[wanted.entry_id]
        size += OVERHEAD
        if record is None or size > self._most:
            return
        self._drop(wanted.entry_id)
        self._kept[wanted.entry_id] = Kept(wanted.keys.tenant, record, number, size)
        self.bytes += size
        while self.bytes > self._most:
            self.bytes -= self._kept.popitem(last=False)[1].size
        self._tell()

    def changed(self, entry_ids: Iterable[str]) -> None:
        """Redis says so, on the connection over which they were read.

        What is being read there may be older: an exchange's replies are handed over at its end, and Redis
        serves others in between. It is read again, another time.
        """
        self.forget(entry_ids)

    def forget(self, entry_ids: Iterable[str]) -> None:
        """This process has changed them: to be called before it says so to whoever asked for it."""
        for entry_id in entry_ids:
            self._reading.pop(entry_id, None)
            self._drop(entry_id)
        self._tell()

    def doubt(self, tenant: Tenant) -> None:
        """The same where nobody knows which, as another process may have been faster.

        Nothing of the tenant's is served until all that was changed so far has arrived, which takes a beat.
        """
        if self.is_on:
            self._doubted[tenant] = self.clock()

    def forget_all(self) -> None:
        """Nothing is known any more of what lies here."""
        self._kept.clear()
        self._reading.clear()
        self.bytes = 0
        self._tell()

    def confirm(self, sent_at: float) -> None:
        """All changes before that moment of `clock` have arrived."""
        self._confirmed = max(self._confirmed, sent_at)
        if self._doubted:
            self._doubted = {tenant: at for tenant, at in self._doubted.items() if at >= sent_at}

    def lapse(self) -> None:
        """No changes are told any more."""
        self._confirmed = float("-inf")
        self._doubted.clear()  # nothing is kept, and what is read from now on is newer
        self.forget_all()

    def _drop(self, entry_id: str) -> None:
        gone = self._kept.pop(entry_id, None)
        if gone is not None:
            self.bytes -= gone.size

    def _tell(self) -> None:
        MEMORY_ENTRIES.set(len(self._kept))
        MEMORY_BYTES.set(self.bytes)
