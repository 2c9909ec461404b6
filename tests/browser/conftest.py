"""Chromium on /reviews of a real service, in a process of its own, over the run's Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import Served, served
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from tests.browser.chromium import PROGRAM, Page, browser


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("there is no chromium: install Debian's package `chromium`")
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """As it is when nobody has used it."""
    tab.call("Emulation.setDeviceMetricsOverride", width=1200, height=800, deviceScaleFactor=1, mobile=False)
    yield tab
    if tab.js("location.origin") != "null":
        tab.js("sessionStorage.clear()")
    tab.open("about:blank")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that the test may stop."""
    (tmp_path / "redis").mkdir()
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def desk(page: Page, settings: Settings, tmp_path: Path) -> Iterator[Served]:  # noqa: ARG001 - skips first
    """Nobody needs a key."""
    named = {"redis_url": settings.redis_url or "", "key_prefix": settings.key_prefix}
    with served(tmp_path / "desk", secret=settings.secret or "", verifier="off", **named) as service:
        yield service
