"""The README's commands, as they stand."""

import re
import subprocess
from pathlib import Path

import pytest

from bench.processes import served

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```console\n\$ (.*?)\n(\{.*?)\n```", README, re.DOTALL)


def pattern(shown: str) -> str:
    """What was shown; `…` stands for anything."""
    return ".*".join(re.escape(part) for part in shown.split("…"))


def test_what_is_shown_is_what_happens(tmp_path: Path) -> None:
    assert len(BLOCKS) == 6
    with served(tmp_path) as service:
        for command, shown in BLOCKS:
            here = command.replace("localhost:8080", f"127.0.0.1:{service.port}")
            done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, timeout=60, check=True)
            assert re.fullmatch(pattern(shown), done.stdout), done.stdout


@pytest.mark.parametrize("name", re.findall(r"\]\(([\w/.]+)\)", README))
def test_links_lead_somewhere(name: str) -> None:
    assert (Path(__file__).parents[2] / name).exists()
