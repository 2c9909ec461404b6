"""One call, many readers: each at its own pace, and nobody's leaving ends what others wait for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from service.errors import UpstreamError
from service.proxy.flight import KEPT, Flight, Flights, Head, Piece

pytestmark = pytest.mark.anyio

HEAD = Head(200, [("x", "y")])
PIECES = [bytes([65 + at]) * 10 for at in range(26)]


async def read(flight: Flight) -> bytes:
    place = flight.enter()
    try:
        await flight.started()
        return b"".join([piece.raw async for piece in flight.pieces(place)])
    finally:
        flight.leave(place)


def telling(pieces: list[bytes], between: Callable[[], Coroutine[Any, Any, object]] | None = None) -> Any:
    async def work(flight: Flight) -> None:
        flight.begin(HEAD)
        for piece in pieces:
            await flight.write(Piece(piece))
            await (anyio.lowlevel.checkpoint() if between is None else between())

    return work


async def test_all_read_the_same_from_the_beginning_whenever_they_come() -> None:
    flights = Flights()
    first = flights.start("a", streams=True, work=telling(PIECES, lambda: anyio.sleep(0.001)))
    told: list[bytes] = []

    async def follow(after: int) -> None:
        await anyio.sleep(after / 1000)
        flight = flights.join("a")
        assert flight is first
        told.append(await read(flight))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for after in range(0, 20, 2):
                group.start_soon(follow, after)
    assert told == [b"".join(PIECES)] * 10
    assert flights.join("a") is None


async def test_a_reader_who_leaves_ends_nothing_for_the_others() -> None:
    going = asyncio.Event()
    flight = Flights().start("a", streams=True, work=telling(PIECES, going.wait))
    leaving = flight.enter()
    staying = asyncio.create_task(read(flight))
    await anyio.lowlevel.checkpoint()
    flight.leave(leaving)
    going.set()
    assert await staying == b"".join(PIECES)


async def test_the_last_who_leaves_ends_the_call() -> None:
    ended = asyncio.Event()

    async def work(flight: Flight) -> None:
        try:
            await telling(PIECES, asyncio.Event().wait)(flight)
        finally:
            ended.set()

    flights = Flights()
    flight = flights.start("a", streams=True, work=work)
    places = [flight.enter() for _ in range(3)]
    await flight.started()
    for place in places:
        assert flights.join("a") is flight
        flight.leave(place)
    assert flights.join("a") is None  # nobody joins what is being ended
    with anyio.fail_after(10):
        await ended.wait()


async def test_an_error_reaches_all_after_what_came_before_it() -> None:
    async def work(flight: Flight) -> None:
        await telling(PIECES[:3])(flight)
        raise UpstreamError("broke off")

    flight = Flights().start("a", streams=True, work=work)
    for _ in range(2):
        place = flight.enter()
        pieces = flight.pieces(place)
        assert [(await anext(pieces)).raw for _ in range(3)] == PIECES[:3]
        with pytest.raises(UpstreamError):
            await anext(pieces)


async def test_a_call_that_is_cancelled_is_no_whole_answer() -> None:
    flight = Flights().start("a", streams=True, work=telling(PIECES, asyncio.Event().wait))
    place = flight.enter()
    await flight.started()
    assert flight._task is not None
    flight._task.cancel()
    with pytest.raises(UpstreamError):
        await flight.landed(flight.enter())
    with pytest.raises(UpstreamError):
        [piece async for piece in flight.pieces(place)]


async def test_of_a_long_answer_no_more_is_kept_than_its_slowest_reader_has_to_read() -> None:
    size, count = KEPT // 8, 40
    flights = Flights()
    flight = flights.start("a", streams=False, work=telling([bytes([at]) * size for at in range(count)]))
    slow, quick = flight.enter(), flight.enter()
    most = 0

    async def all_of(place: object, wait_s: float) -> int:
        nonlocal most
        total = 0
        async for piece in flight.pieces(place):
            total += len(piece.raw)
            most = max(most, sum(len(one.raw) for one in flight._pieces))
            await anyio.sleep(wait_s)
        return total

    with anyio.fail_after(30):  # the slow one's call it is
        totals = tuple(await asyncio.gather(all_of(slow, 0.002), all_of(quick, 0)))
    assert totals == (size * count, size * count)
    assert most <= KEPT + size
    assert flights.join("a") is None  # its beginning is gone


async def test_who_joined_a_long_answer_and_reads_too_slowly_is_cut_off() -> None:
    size, count = KEPT // 8, 40
    flight = Flights().start("a", streams=False, work=telling([bytes([at]) * size for at in range(count)]))
    own, joined = flight.enter(), flight.enter()
    slow = flight.pieces(joined)
    await anext(slow)
    with anyio.fail_after(30):
        assert sum([len(piece.raw) async for piece in flight.pieces(own)]) == size * count
    with pytest.raises(UpstreamError):
        [piece async for piece in slow]


async def test_who_waited_for_the_whole_can_read_an_error_from_its_beginning() -> None:
    flight = Flights().start("a", streams=True, work=telling(PIECES))
    place = flight.enter()
    with anyio.fail_after(10):
        await flight.landed(place)
        assert [piece.raw async for piece in flight.pieces(place)] == PIECES


async def test_an_answer_that_is_here_is_kept_though_nobody_waits() -> None:
    storing, stored = asyncio.Event(), asyncio.Event()

    async def work(flight: Flight) -> None:
        flight.complete()
        await storing.wait()
        stored.set()

    flight = Flights().start("a", streams=True, work=work)
    place = flight.enter()
    await anyio.lowlevel.checkpoint()
    flight.leave(place)
    storing.set()
    with anyio.fail_after(10):
        await stored.wait()
