"""Remembers which prefixes were sent, and so what is still warm at the provider. In this process only."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from semcached.prompts.explanation import automatic_ttl
from semcached.prompts.prefix import STEP, Api, Prefix, Request, Ttl, api_of
from semcached.prompts.tokens import Counter, estimate

SECONDS: dict[Ttl, float] = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "12h": 43_200.0, "24h": 86_400.0}


class Warmth(Struct, frozen=True, kw_only=True):
    """The longest prefix of a request that can be read now."""

    segment: str  # that it ends with
    tokens: int
    until: float  # of the registry's clock; reading makes it longer
    ttl: Ttl


class _Entry(Struct):
    until: float
    ttl: Ttl


class Sending:
    """A request on its way."""

    def __init__(self, registry: "Registry", prefix: Prefix) -> None:
        self._registry = registry
        self._prefix = prefix

    def begun(self) -> None:
        """Its response began: from now on, what it wrote can be read, and what it read lives longer."""
        self._registry._begun(self._prefix)  # noqa: SLF001 - its own


class Registry:
    """Digests of prefixes and how long they live; for any threads. Texts aren't kept."""

    def __init__(
        self, limit: int = 10_000, clock: Callable[[], float] = time.time, count: Counter = estimate
    ) -> None:
        """`limit`: prefixes, the longest unused go first; `clock` in seconds."""
        if limit < 1:
            raise ValueError(f"limit: {limit} is less than 1")
        self._limit = limit
        self._clock = clock
        self._count = count
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Prefixes that are remembered."""
        return len(self._entries)

    def sent(self, request: Request, *, api: Api | None = None, account: str = "") -> Sending:
        """A request leaves; nothing is warm by it before `begun()`. A failed one is just forgotten."""
        return Sending(self, self._prefix(request, api, account))

    def warm(self, request: Request, *, api: Api | None = None, account: str = "") -> Warmth | None:
        """What of a request could be read now; None: nothing that was sent from here.

        Args:
            request: with its marks, as it would be sent.
            api: None: by the model and the request's shape.
            account: whose cache it is: a workspace, an organisation.
        """
        prefix = self._prefix(request, api, account)
        with self._lock:
            found = self._find(prefix)
            if found is None:
                return None
            at, entry = found
            tokens = prefix.sizes[at] if prefix.has_breakpoints else prefix.sizes[at] // STEP * STEP
            return Warmth(segment=prefix.blocks[at].name, tokens=tokens, until=entry.until, ttl=entry.ttl)

    def _prefix(self, request: Request, api: Api | None, account: str) -> Prefix:
        return Prefix(request, api or api_of(request), account=account, count=self._count)

    def _begun(self, prefix: Prefix) -> None:
        with self._lock:
            found = self._find(prefix)
            if found is not None:
                self._keep(prefix.digests[found[0]], found[1].ttl)
            for at, ttl in _written(prefix):
                self._keep(prefix.digests[at], ttl)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def _find(self, prefix: Prefix) -> tuple[int, _Entry] | None:
        now = self._clock()
        for at in prefix.places:
            entry = self._entries.get(prefix.digests[at])
            if entry is not None and now < entry.until:
                return at, entry
        return None

    def _keep(self, digest: bytes, ttl: Ttl) -> None:
        """Longer, never shorter."""
        now = self._clock()
        old = self._entries.get(digest)
        if old is not None and now < old.until and SECONDS[old.ttl] > SECONDS[ttl]:
            ttl = old.ttl
        self._entries[digest] = _Entry(now + SECONDS[ttl], ttl)
        self._entries.move_to_end(digest)


def _written(prefix: Prefix) -> list[tuple[int, Ttl]]:
    if prefix.has_breakpoints:
        return [(point.at, point.ttl) for point in prefix.points if point.ttl in SECONDS]
    return [(at, automatic_ttl(prefix.request)) for at in prefix.places]
