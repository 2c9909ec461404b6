"""Whose turn it is: of callers that miss the same at the same time one leads, the others wait for its store.

After the leases of "Scaling Memcache at Facebook" (NSDI 2013): a token per key with an end, passed on when
its holder is gone. Who waits in this process waits in one room per id, whatever their number; one task looks
after the leases of all rooms.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from service.cache.digests import TenantKeys
from service.cache.ports import Clock, LeaseBook
from service.errors import StoreUnavailableError
from service.telemetry import LEASES

POLL_S = 0.02
PATIENCE = 3
"""Looks in a row that fail, before those who wait are sent on."""
SHARE = 0.8
"""A lease ends when its holder's `wait_s` is so far gone: who waits as long inherits it in time."""
SHORTEST_S, LONGEST_S = 1.0, 30.0
REFRESH_S = 10.0
"""How long somebody may take to refresh a stale result before another is asked."""


_OPEN: "WeakSet[Leases]" = WeakSet()


def end_waits() -> None:
    """The process is ending: everybody goes on alone, or it would wait for them."""
    for one in _OPEN:
        one.end()


class Turn(Enum):
    """What became of who asked for the lease."""

    LEADS = "leads"
    AGAIN = "again"  # the lease ended: look whether there is an answer now
    ALONE = "alone"  # nobody can say when one comes


class Wish(NamedTuple):
    """Who waits for what."""

    keys: TenantKeys
    name: str  # the id of what is missing
    wait_s: float
    leads: bool  # whether it can store what it makes


class Look(Protocol):
    """What a lookup brought."""

    @property
    def missing(self) -> bool:
        """Whether there is none, and one may be stored."""

    def token(self, now: int) -> str:
        """The lookup's id, the same each time; `now` in ms since 1970."""


L = TypeVar("L", bound=Look)


@dataclass(slots=True)
class Room:
    """Who waits for one id."""

    keys: TenantKeys
    name: str
    guests: set[asyncio.Future[Turn]] = field(default_factory=set)

    def wake(self, turn: Turn) -> None:
        """Send everybody on."""
        for guest in self.guests:
            if not guest.done():
                guest.set_result(turn)


def life_s(wait_s: float) -> float:
    """How long a lease lives."""
    return min(LONGEST_S, max(SHORTEST_S, SHARE * wait_s))


class Leases:
    """The rooms of this process, over the leases in Redis."""

    def __init__(self, book: LeaseBook, clock: Clock) -> None:
        self._book = book
        self._clock = clock
        self._rooms: dict[tuple[str, str], Room] = {}
        self._watch: asyncio.Task[None] | None = None
        self._ending = False
        _OPEN.add(self)

    async def led(self, wish: Wish, look: Callable[[], Awaitable[L]]) -> tuple[L, bool, float]:
        """What a lookup brings, now or in time; whether its caller leads; for how long he waited, ms."""
        clock = asyncio.get_running_loop().time
        until, waited_s = clock() + wish.wait_s, 0.0
        found = await look()
        while found.missing:
            begun = clock()
            async with self._given_back_if_left(wish, found):
                turn = await self._turn(wish, found.token(self._clock()), until)
            waited_s += clock() - begun
            if turn is Turn.ALONE:
                break
            if turn is Turn.LEADS:
                async with self._given_back_if_left(wish, found):
                    led = await self._still_missing(wish, found, look)
                return *led, waited_s * 1000
            found = await look()
        return found, False, waited_s * 1000

    @asynccontextmanager
    async def _given_back_if_left(self, wish: Wish, found: L) -> AsyncIterator[None]:
        """Around what may hold a lease: a caller who leaves then would keep it to its end."""
        try:
            yield
        except asyncio.CancelledError:
            if wish.leads:
                await self.release(wish.keys, wish.name, found.token(self._clock()), refused=False)
            raise

    async def _still_missing(self, wish: Wish, found: L, look: Callable[[], Awaitable[L]]) -> tuple[L, bool]:
        """Whoever led before may have stored between our look and our lease."""
        now = await look()
        if now.missing:
            LEASES.labels("led").inc()
            return found, True
        await self.release(wish.keys, wish.name, found.token(self._clock()), refused=False)
        return now, False

    async def take(self, keys: TenantKeys, name: str, token: str, seconds: float) -> bool:
        """The lease, unless somebody has it; none while Redis is away."""
        try:
            return await self._book.take(keys, name, token, round(seconds * 1000))
        except StoreUnavailableError:
            return False

    async def release(self, keys: TenantKeys, name: str, token: str, *, refused: bool) -> None:
        """Its holder won't store. `refused`: nor will others, so that they shall not wait in a row."""
        try:
            await self._book.release(keys, name, token, refused=refused)
        except StoreUnavailableError:
            return  # it ends by itself

    async def _turn(self, wish: Wish, token: str, until: float) -> Turn:
        if self._ending:
            return Turn.ALONE
        place = (wish.keys.current.tenant, wish.name)
        opened = place not in self._rooms
        room = self._rooms.setdefault(place, Room(wish.keys, wish.name))
        guest: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        room.guests.add(guest)
        try:
            turn = await self._first_turn(wish, token) if opened else None
            return turn or await self._waited(guest, until)
        finally:
            room.guests.discard(guest)
            if not room.guests and self._rooms.get(place) is room:
                del self._rooms[place]

    async def _first_turn(self, wish: Wish, token: str) -> Turn | None:
        """Of who opens a room; None: somebody leads already, perhaps elsewhere."""
        try:
            if wish.leads:
                life_ms = round(life_s(wish.wait_s) * 1000)
                taken = await self._book.take(wish.keys, wish.name, token, life_ms)
                return Turn.LEADS if taken else None
            (held,) = await self._book.held([(wish.keys, wish.name)])
        except StoreUnavailableError:
            return Turn.ALONE
        return None if held else Turn.ALONE

    async def _waited(self, guest: asyncio.Future[Turn], until: float) -> Turn:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_after())
        try:
            async with asyncio.timeout_at(until):
                return await guest
        except TimeoutError:
            LEASES.labels("waited_in_vain").inc()
            return Turn.ALONE

    async def _look_after(self) -> None:
        failures = 0
        while self._rooms:
            await asyncio.sleep(POLL_S)
            rooms = list(self._rooms.items())
            try:
                held = await self._book.held([(room.keys, room.name) for _, room in rooms])
                failures = 0
            except StoreUnavailableError:
                failures += 1
                held = [failures < PATIENCE] * len(rooms)
            for (place, room), one in zip(rooms, held, strict=True):
                if one is not True:
                    if self._rooms.get(place) is room:
                        del self._rooms[place]  # who comes now opens another
                    room.wake(Turn.AGAIN if one is None else Turn.ALONE)

    def end(self) -> None:
        """Send everybody on, alone; nobody waits from now on."""
        self._ending = True
        for room in self._rooms.values():
            room.wake(Turn.ALONE)
        self._rooms.clear()

    async def close(self) -> None:
        """Nobody waits from now on."""
        self.end()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])


@asynccontextmanager
async def leases(book: LeaseBook, clock: Clock) -> AsyncIterator[Leases]:
    """Nobody waits any longer at the end."""
    one = Leases(book, clock)
    try:
        yield one
    finally:
        await one.close()
