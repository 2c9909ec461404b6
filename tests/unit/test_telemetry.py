"""Metrics of workers that are gone."""

import os
from pathlib import Path

from service.telemetry import forget_the_dead


def test_the_dead_are_forgotten_and_the_living_are_not(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above what Linux gives
    for pid in (gone, os.getpid()):
        for kind in ("gauge_livemax", "gauge_livemostrecent", "counter"):
            (tmp_path / f"{kind}_{pid}.db").touch()
    forget_the_dead(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert {name for name in left if str(gone) in name} == {f"counter_{gone}.db"}
    assert len({name for name in left if str(os.getpid()) in name}) == 3
