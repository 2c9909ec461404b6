"""Start, stop and kill: nothing acknowledged is lost, nothing stays behind."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from bench.processes import Served, command, free_port, gone, redis_servers, served
from tests.acl import acl_options, as_service

LOOKUP, STORE = "/v1/cache/lookup", "/v1/cache/store"
SERVING = "INFO service.app: serving from Redis"


def entry(n: int) -> dict[str, object]:
    return {"agent_type": "a", "prompt": f"question number {n}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_acknowledged_is_lost_and_nothing_stays_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    service = Served(tmp_path).wait()
    acknowledged: list[int] = []

    def store() -> None:
        for n in range(10_000):
            try:
                answer = service.http.post(STORE, json=entry(n) | {"response": n})
            except httpx.TransportError:
                return
            assert answer.status_code == 201
            acknowledged.append(n)

    writer = threading.Thread(target=store)
    writer.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < 50 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(redis_servers(tmp_path)) == 1
    service.process.send_signal(number)
    writer.join(30)
    assert not writer.is_alive()
    service.process.wait(30)
    service.end()
    assert len(acknowledged) >= 50
    assert gone(tmp_path)
    assert service.process.returncode == (-9 if number is signal.SIGKILL else 0)
    with served(tmp_path) as again:
        for tiers in (["exact"], ["semantic"]):
            for at in range(0, len(acknowledged), 200):
                items = [entry(n) | {"tiers": tiers} for n in acknowledged[at : at + 200]]
                answers = again.http.post(LOOKUP + "/batch", json={"items": items}).json()["items"]
                assert [one.get("response") for one in answers] == acknowledged[at : at + 200]


def test_requests_in_flight_finish_before_the_end(tmp_path: Path) -> None:
    service = Served(tmp_path).wait()
    texts = [{"agent_type": "a", "prompt": f"{n} " + "and so on " * 80, "response": n} for n in range(256)]
    answers: list[httpx.Response] = []

    def slow() -> None:
        answers.append(service.http.post(STORE + "/batch", json={"items": texts}))

    request = threading.Thread(target=slow)
    request.start()
    time.sleep(0.5)
    assert request.is_alive()  # seconds of work for the model
    service.process.send_signal(signal.SIGTERM)
    request.join(60)
    assert service.process.wait(60) == 0
    assert all(one["stored"] for one in answers[0].json()["items"])
    service.end()
    assert gone(tmp_path)


def test_two_services_do_not_share_a_folder(tmp_path: Path) -> None:
    with served(tmp_path):
        second = command(tmp_path, "serve", port=str(free_port()))
        assert second.returncode == 1
        assert "SEMCACHED_DATA_DIR" in second.stderr
        assert len(redis_servers(tmp_path)) == 1
    assert gone(tmp_path)


def test_a_service_with_another_secret_does_not_start(tmp_path: Path) -> None:
    with served(tmp_path, secret="the first secret of this test") as service:
        assert service.http.post(STORE, json=entry(1) | {"response": 1}).status_code == 201
    refused = command(tmp_path, "serve", port=str(free_port()), secret="another secret of this test")
    assert refused.returncode == 1
    assert "another secret" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert gone(tmp_path)
    both = {"secret": "another secret of this test", "previous_secret": "the first secret of this test"}
    with served(tmp_path, **both) as service:
        assert service.http.post(LOOKUP, json=entry(1)).json()["response"] == 1


def test_without_keys_only_loopback_is_served(tmp_path: Path) -> None:
    refused = command(tmp_path, "serve", host="0.0.0.0")  # noqa: S104 - that is what is refused
    assert refused.returncode == 2
    assert "SEMCACHED_HOST" in refused.stderr
    with served(tmp_path, host="0.0.0.0", admin_key="an admin's key") as service:  # noqa: S104
        assert service.http.post(LOOKUP, json=entry(1)).status_code == 401
        admitted = service.http.post(
            LOOKUP, json=entry(1), headers={"Authorization": "Bearer an admin's key"}
        )
        assert admitted.status_code == 200


def test_keys_by_command(tmp_path: Path) -> None:
    made = command(tmp_path, "keys", "create", "--tenant", "acme", "--role", "writer")
    assert made.returncode == 0
    key = made.stdout.strip()
    assert made.stdout == key + "\n"
    with served(tmp_path) as service:
        headers = {"Authorization": f"Bearer {key}"}
        assert service.http.post(STORE, json=entry(1) | {"response": 1}, headers=headers).status_code == 201
        listed = command(tmp_path, "keys", "list").stdout
        assert "acme" in listed
        assert key not in listed
        assert command(tmp_path, "keys", "revoke", listed.split()[0]).returncode == 0
        assert service.http.post(LOOKUP, json=entry(1), headers=headers).status_code == 401
    assert command(tmp_path, "keys", "revoke", "none").returncode == 1
    assert command(tmp_path, "keys", "create", "--tenant", "acme", "--role", "king").returncode == 2


def test_workers_share_the_work_and_die_with_their_parent(tmp_path: Path) -> None:
    service = Served(tmp_path, workers="2").wait()
    for n in range(20):
        assert service.http.post(STORE, json=entry(n) | {"response": n}).status_code == 201
    attached = time.monotonic() + 20
    while "".join(service.said).count(SERVING) < 2 and time.monotonic() < attached:
        time.sleep(0.05)  # one worker may be ready before the other
    service.process.kill()
    service.process.wait(10)
    assert gone(tmp_path)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{service.port}/livez", timeout=1)
        except httpx.TransportError:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a worker outlived the service")
    assert service.end().count(SERVING) == 2
    with served(tmp_path) as again:
        assert again.http.post(LOOKUP, json=entry(7)).json()["response"] == 7


def test_redis_away_at_start_and_later(tmp_path: Path) -> None:
    """Lookups miss, stores say so, and the service serves once Redis is there."""
    from service.store.embedded import EmbeddedRedis  # noqa: PLC0415 - only here

    port = free_port()
    service = Served(tmp_path / "service", redis_url=as_service(f"redis://127.0.0.1:{port}"))
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                assert service.http.get("/readyz").status_code == 503
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert service.http.get("/livez").status_code == 200
        miss = service.http.post(LOOKUP, json=entry(1))
        assert (miss.status_code, miss.headers["x-cache"], miss.json()["reason"]) == (
            200,
            "BYPASS",
            "degraded",
        )
        store = service.http.post(STORE, json=entry(1) | {"response": 1})
        assert (store.status_code, store.headers["retry-after"]) == (503, "1")
        (tmp_path / "redis").mkdir()
        with EmbeddedRedis(tmp_path / "redis", port=port, options=acl_options(tmp_path / "redis")) as redis:
            assert redis.pid
            service.wait()
            assert service.http.post(STORE, json=entry(1) | {"response": 1}).status_code == 201
            assert service.http.post(LOOKUP, json=entry(1)).json()["response"] == 1
        away = service.http.post(LOOKUP, json=entry(1))
        assert (away.status_code, away.json()["reason"]) == (200, "degraded")
    finally:
        service.end()


def test_a_full_redis_still_serves(tmp_path: Path) -> None:
    from redis import Redis  # noqa: PLC0415 - only here

    with served(tmp_path) as service:
        assert service.http.post(STORE, json=entry(1) | {"response": 1}).status_code == 201
        with Redis.from_url((tmp_path / "redis.url").read_text().strip()) as redis:
            redis.config_set("maxmemory", "1")
        full = service.http.post(STORE, json=entry(2) | {"response": 2})
        assert full.status_code == 507
        assert service.http.post(LOOKUP, json=entry(1)).json()["response"] == 1
        again = {"agent_type": "a", "prompt": "question number 1", "tiers": ["semantic"]}
        assert service.http.post(LOOKUP, json=again).json()["response"] == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_ends_when_its_redis_does(tmp_path: Path, workers: str) -> None:
    service = Served(tmp_path, workers=workers).wait()
    (pid,) = redis_servers(tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert service.process.wait(60) == 1
    assert "ended by itself" in service.end()
    with served(tmp_path) as again:
        assert again.http.get("/readyz").status_code == 200


def test_settings_that_cannot_work_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cases: list[tuple[dict[str, str], int]] = [
        ({"redis_url": "redis://127.0.0.1:1/?foo=1"}, 2),
        ({"redis_url": "http://127.0.0.1"}, 2),
        ({"keys_file": str(tmp_path)}, 2),
        ({"schema_dir": str(tmp_path)}, 1),
    ]
    for settings, code in cases:
        refused = command(tmp_path / "data", "serve", port=str(free_port()), **settings)
        assert refused.returncode == code, settings
        assert "Traceback" not in refused.stderr, settings
    no_folder = command(tmp_path / "file", "serve")
    assert no_folder.returncode == 1
    assert "SEMCACHED_DATA_DIR" in no_folder.stderr
    with served(tmp_path / "one") as service:
        taken = command(tmp_path / "two", "serve", port=str(service.port))
        assert taken.returncode == 1
    assert gone(tmp_path / "two")


def test_wrong_usage(tmp_path: Path) -> None:
    assert command(tmp_path).returncode == 2
    assert command(tmp_path, "serve", "--port", "x").returncode == 2
    assert command(tmp_path, "serve", treshold="1").returncode == 2
    unreachable = command(tmp_path, "migrate", "status", redis_url="redis://127.0.0.1:1")
    assert unreachable.returncode == 1
    assert "Traceback" not in unreachable.stderr
    assert "semcached" in command(tmp_path, "serve", "--help").stdout


def test_migrate_reaches_the_running_service(tmp_path: Path) -> None:
    with served(tmp_path):
        status = command(tmp_path, "migrate", "status")
        assert "0001_responses" in status.stdout
        assert "pending" not in status.stdout
        assert command(tmp_path, "migrate", "plan").stdout == "nothing to do\n"
        assert len(redis_servers(tmp_path)) == 1
    stopped = command(tmp_path, "migrate", "status")  # starts the folder's Redis for as long as it needs it
    assert "0001_responses" in stopped.stdout
    assert gone(tmp_path)


def test_who_waits_does_not_hold_up_the_end(tmp_path: Path) -> None:
    service = Served(tmp_path).wait()
    told: list[str] = []
    leader = service.http.post(LOOKUP, json=entry(1) | {"wait_s": 60}).json()
    assert leader["lease"] is True

    def wait() -> None:
        answer = httpx.post(f"{service.http.base_url}{LOOKUP}", json=entry(1) | {"wait_s": 60}, timeout=60)
        told.append(answer.json()["outcome"])

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)  # nothing outside tells that it waits
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(20)  # less than the lease, and than uvicorn's 30 s
    waiting.join(10)
    service.end()
    assert told == ["miss"]
