"""The bench of migrations at a tiny size: under load, and nothing lost. tests/migrate has a reindex."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_migration(tmp_path: Path) -> None:
    output = tmp_path / "migration.json"
    tiny = ["--entries", "200", "--seconds", "1", "--cache", str(tmp_path), "--output", str(output)]
    tiny += ["--kinds", "convert,reembed"]
    subprocess.run(
        [sys.executable, "-m", "bench.migration", *tiny],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,  # it ends with an error where one was lost or wrong
    )
    steps = json.loads(output.read_text())["steps"]
    kinds = [one["name"].partition(":")[0] for one in steps]
    assert kinds == [kind for kind in ("convert", "reembed") for _ in range(2)]
    for one in steps:
        assert all(each["said"] for each in one["done"] if each["what"].startswith("migrate"))
        assert one["entries_after"] >= one["entries_before"] >= 200
        assert one["during"]["asked"] > 0
        assert one["before"]["hits"] > 0
