"""Every bench runs at a tiny size, so that none rots. Figures come from real runs."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_quality(tmp_path: Path) -> None:
    output = tmp_path / "quality.json"
    done = subprocess.run(
        [sys.executable, "bench/quality.py", "--limit", "300", "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "threshold" in done.stdout
    rows = json.loads(output.read_text())["rows"]
    rates = [row["hit_rate"] for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0] < 1
