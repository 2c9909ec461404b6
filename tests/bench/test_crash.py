"""The crash loop: half a minute of it, a little with power cuts, and that it finds what is lost."""

import logging
from pathlib import Path

import pytest

from bench.crash import Crash, Options, crash

pytestmark = pytest.mark.anyio

log = logging.getLogger(__name__)


async def test_twenty_seconds_of_crashes() -> None:
    report = await crash(Options(minutes=0.33, seed=20, every_s=3))
    log.info("%s", report)
    assert report.good, report
    assert report.checks > 1


async def test_power_cuts_take_no_more_than_their_second() -> None:
    report = await crash(
        Options(minutes=0.25, seed=3, appendfsync="everysec", power_cuts=True, probability=0.6, every_s=3)
    )
    log.info("%s", report)
    assert report.good, report
    assert report.redis_kills > 0


class Unforgiving(Crash):
    """Holds that what a power cut took must be there."""

    def forgive(self, since: float) -> None:
        del since


async def test_the_loop_finds_what_is_lost(tmp_path: Path) -> None:
    options = Options(minutes=0.1, appendfsync="everysec", power_cuts=True, probability=1, every_s=4)
    report = await Unforgiving(options, tmp_path).run()
    log.info("%s", report)
    assert report.lost + report.wrong > 0
