"""`semcached warm`: idempotent, resumable, and it names what it refused."""

import json
import subprocess
import time
from pathlib import Path

from bench.processes import SEMCACHED, command, environment, served

LINES = [
    {"agent_type": "faq", "prompt": f"How do I do thing {n}?", "response": f"Like {n}"} for n in range(300)
]


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_warm_twice_and_with_wrong_lines(tmp_path: Path) -> None:
    wrong: list[object] = [
        "{\n",
        {"agent_type": "faq"},
        "\n",
        {"agent_type": "faq", "prompt": "p", "response": ""},
    ]
    file = write(tmp_path / "file.jsonl", [*LINES[:5], *wrong, *LINES[5:]])
    with served(tmp_path / "data") as service:
        first = command(tmp_path / "data", "warm", str(file))
        assert first.returncode == 1
        out = first.stdout.splitlines()
        assert out[0] == "stored 300, already there 0, refused 3"
        assert [line.split(":")[0] for line in out[1:]] == ["line 6", "line 7", "line 9"]
        assert "response" in out[2]
        assert "min_chars" in out[3]
        assert "lines/s" in first.stderr
        hit = service.http.post(
            "/v1/cache/lookup", json={"agent_type": "faq", "prompt": "How do I do thing 7?"}
        )
        assert hit.json()["response"] == "Like 7"
        again = command(tmp_path / "data", "warm", str(file))
        assert again.stdout.splitlines()[0] == "stored 0, already there 300, refused 3"
        changed = write(tmp_path / "file.jsonl", [{**LINES[0], "response": "otherwise"}, *LINES[1:]])
        third = command(tmp_path / "data", "warm", str(changed))
        assert (third.returncode, third.stdout) == (0, "stored 1, already there 299, refused 0\n")


def test_of_lines_that_ask_the_same_the_first_counts(tmp_path: Path) -> None:
    twice: list[object] = [{**LINES[0], "response": str(n)} for n in range(2)]
    file = write(tmp_path / "file.jsonl", [*twice, LINES[1]])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    for first in ("stored 2, already there 0", "stored 0, already there 2"):
        done = command(tmp_path / "data", "warm", str(file))
        assert done.stdout == f"{first}, refused 1\nline 2: asks the same as line 1\n"


def test_warm_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    lines: list[object] = [{**LINES[0], "prompt": f"Question {n} " + "and so on " * 20} for n in range(3000)]
    file = write(tmp_path / "file.jsonl", lines)
    data = tmp_path / "data"
    with served(data) as service:
        running = subprocess.Popen(
            [str(SEMCACHED), "warm", str(file)],
            env=environment(data),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        first = {"agent_type": "faq", "prompt": f"Question 0 {'and so on ' * 20}", "tiers": ["exact"]}
        deadline = time.monotonic() + 60
        while service.http.post("/v1/cache/lookup", json=first).json()["outcome"] == "miss":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.kill()
        running.wait()
        rest = command(data, "warm", str(file))
        stored, there = (int(part.split()[-1]) for part in rest.stdout.splitlines()[0].split(", ")[:2])
        assert stored + there == 3000
        assert there >= 64
        assert stored > 0


def test_warm_for_a_tenant_and_without_a_service(tmp_path: Path) -> None:
    file = write(tmp_path / "file.jsonl", list(LINES[:3]))
    assert command(tmp_path / "data", "warm", str(file), "--tenant", "acme").returncode == 0
    made = command(tmp_path / "data", "keys", "create", "--tenant", "acme", "--role", "reader")
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    with served(tmp_path / "data") as service:
        asked = {"agent_type": "faq", "prompt": "How do I do thing 1?"}
        assert (
            service.http.post("/v1/cache/lookup", json=asked, headers=headers).json()["response"] == "Like 1"
        )
    missing = command(tmp_path / "data", "warm", str(tmp_path / "none.jsonl"))
    assert missing.returncode == 2
    assert "none.jsonl" in missing.stderr
