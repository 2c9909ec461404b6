"""The code of docs/integrations.md as it stands, each block in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import Served
from tests.provider.server import Provider

PAGE = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8080"
BLOCKS = {
    heading: "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
CALLS = {"LiteLLM": 1, "OpenAI Agents SDK": 1}
"""What asks the provider something; the others make clients, or ask the cache alone."""


@pytest.mark.parametrize("heading", [heading for heading, code in BLOCKS.items() if code])
def test_the_page(service: Served, provider: Provider, heading: str) -> None:
    code = BLOCKS[heading]
    assert URL in code
    keys = {"OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": "sk-test"}
    url = f"http://127.0.0.1:{service.port}"
    done = subprocess.run(
        [sys.executable, "-c", code.replace(URL, url)],
        env=os.environ | keys | {"SEMCACHED_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert provider.calls == CALLS.get(heading.partition(" (")[0], 0)


def test_the_page_has_blocks() -> None:
    assert sum(bool(code) for code in BLOCKS.values()) == 5
