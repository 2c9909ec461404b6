"""The bench of migrations at a tiny size: every kind, under load, and nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_migration(tmp_path: Path) -> None:
    output = tmp_path / "migration.json"
    tiny = ["--entries", "300", "--seconds", "1", "--cache", str(tmp_path), "--output", str(output)]
    subprocess.run(
        [sys.executable, "-m", "bench.migration", *tiny],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,  # it ends with an error where one was lost or wrong
    )
    steps = json.loads(output.read_text())["steps"]
    assert [one["name"].partition(":")[0] for one in steps] == ["reindex", "reindex", "convert", "convert"]
    for one in steps:
        assert one["said"]
        assert one["during"]["asked"] > 0
        assert one["before"]["hits"] > 0
