"""What the scenarios of bench/faults.py promise, apart from their times."""

import pytest

from bench import faults

pytestmark = pytest.mark.anyio

HITS_AND_BYPASSES = {"200 HIT hit", "200 BYPASS miss"}
FULL = {"lookups": {"200 HIT hit": 100}, "stores": {507: 100}}


async def test_a_hung_redis() -> None:
    figures = await faults.hung(100)
    assert set(figures["outcomes"]) == HITS_AND_BYPASSES


async def test_a_redis_that_is_killed_and_starts_again() -> None:
    figures = await faults.killed(500)
    assert set(figures["outcomes"]) == HITS_AND_BYPASSES


async def test_a_redis_that_comes_late() -> None:
    figures = await faults.late()
    assert figures["lookup, store before"] == ["200 BYPASS", 503]
    assert figures["then"] == "hit"


async def test_a_redis_without_memory() -> None:
    figures = await faults.full_memory(100)
    assert figures == {"while full": FULL, "after": FULL | {"stores": {201: 100}}}


async def test_a_full_disk() -> None:
    try:
        figures = await faults.full_disk(100)
    except PermissionError as error:
        pytest.skip(str(error))
    assert figures["while full"] == FULL
