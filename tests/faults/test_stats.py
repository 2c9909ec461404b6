"""Counts over kill -9, commands, and an embeddings API that is paid."""

import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bench.processes import Served, command, gone, served
from service.app import create_app
from service.settings import Settings
from tests.helpers import vector
from tests.stub_openai import Stub, running

LOOKUP, STORE, STATS = "/v1/cache/lookup", "/v1/cache/store", "/v1/stats"


def entry(n: int) -> dict[str, object]:
    return {"agent_type": "a", "prompt": f"question {n}", "embedding": vector(n)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_kill_costs_no_more_than_the_last_second(tmp_path: Path, workers: str) -> None:
    service = Served(tmp_path, workers=workers).wait()
    for n in range(200):
        service.http.post(STORE, json=entry(n % 20) | {"response": n % 20, "usage": {"cost_usd": 0.25}})
        assert service.http.post(LOOKUP, json=entry(n % 20)).json()["outcome"] == "hit"
    time.sleep(1)  # what is counted so far is written within it
    lost = 7
    for n in range(lost):
        service.http.post(LOOKUP, json=entry(n))
    service.end(signal.SIGKILL)
    assert gone(tmp_path)
    with served(tmp_path, workers=workers) as again:
        before = again.http.get(STATS).json()
        requests = before["requests"]
        assert 200 <= requests <= 200 + lost
        assert before["stores"]["stored"] == 200
        assert before["money"]["saved_usd"] == 0.25 * requests
        for n in range(5):
            again.http.post(LOOKUP, json=entry(n))
    # SIGTERM, and everything is written
    told = command(tmp_path, "stats")
    assert told.returncode == 0, told.stderr
    assert f"{requests + 5}, 100.0% of them hits" in told.stdout
    assert f"{0.25 * (requests + 5):.6f} USD" in told.stdout


def test_the_command_reaches_a_running_service(tmp_path: Path) -> None:
    with served(tmp_path, verifier="off") as service:
        service.http.post(LOOKUP, json=entry(1))
        service.http.get(STATS)
        told = command(tmp_path, "stats")
        assert "1, 0.0% of them hits" in told.stdout
        assert "1 empty" in told.stdout
        assert "agent_type 'a'" in told.stdout
        assert "nothing was counted" in command(tmp_path, "stats", "--tenant", "other").stdout
        other = command(tmp_path, "stats", secret="another secret of the tests")
        assert (other.returncode, other.stdout) == (1, "")
        assert "SEMCACHED_SECRET" in other.stderr
    assert "nothing was set up" in command(tmp_path / "empty", "stats").stderr


def test_a_wrong_price_file_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("{}")
    refused = command(tmp_path, "serve", prices=str(tmp_path / "prices.json"))
    assert refused.returncode == 2
    assert "SEMCACHED_PRICES" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with running(Stub()) as server:
        yield server


@pytest.mark.anyio
async def test_embedding_is_paid_for(settings: Settings, stub: Stub) -> None:
    """The stub says of each request that it read one token."""
    remote = replace(
        settings,
        embedder="openai",
        openai_base_url=stub.url,
        openai_model="text-embedding-3-small",
        openai_timeout_s=30,
    )
    app = create_app(remote, settings.redis_url or "")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type] # both spell ASGI's types, differently
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        calls = stub.calls
        for n in range(3):
            asked = {"agent_type": "a", "prompt": f"question {n}"}
            await http.post(LOOKUP, json=asked)
            await http.post(STORE, json=asked | {"response": n})
            await http.post(LOOKUP, json=asked)  # an exact hit asks nobody
        batch = [{"agent_type": "b", "prompt": f"other {n}"} for n in range(4)]
        await http.post(LOOKUP + "/batch", json={"items": batch})
        found = (await http.get(STATS)).json()
        assert found["tokens"]["embedded"] == stub.calls - calls == 4  # each text once
        assert found["money"]["spent_usd"] == pytest.approx(4 * 0.02 / 1e6)
        assert found["money"]["net_usd"] == -found["money"]["spent_usd"]
        assert found["agent_types"]["b"]["spent_usd"] == pytest.approx(0.02 / 1e6)
        metrics = (await http.get("/metrics")).text
        assert 'semcached_usd_spent_total{tenant="other"}' in metrics
