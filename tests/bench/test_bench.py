"""Every bench runs at a tiny size, so that none rots. Figures come from real runs."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> str:
    """What it printed."""
    return subprocess.run(
        [sys.executable, f"bench/{script}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def test_quality(tmp_path: Path) -> None:
    output = tmp_path / "quality.json"
    printed = run("quality.py", "--limit", "300", "--output", str(output))
    assert "threshold" in printed
    rows = json.loads(output.read_text())["rows"]
    rates = [row["hit_rate"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0] < 1


def test_sizing(tmp_path: Path) -> None:
    output = tmp_path / "sizing.json"
    run("sizing.py", "--entries", "300", "--answer", "500", "--output", str(output))
    found = json.loads(output.read_text())
    assert found["bytes_per_entry"]["record"] > 500
    assert found["bytes_per_entry"]["document"] > 384 * 4
    assert all(reload["answers_meanwhile"].keys() <= {"degraded", "hit"} for reload in found["reloads"])


def test_eviction() -> None:
    *_, row = run("eviction.py", "volatile-lru", "--entries", "700").splitlines()
    policy, whole, _, _, layout, failed, exact, _ = row.split()
    assert policy == "volatile-lru"
    assert 0 < int(whole) < 700
    assert (int(layout), int(failed)) == (3, 0)
    assert int(exact) > 0
