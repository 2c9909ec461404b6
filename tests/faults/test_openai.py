"""An embeddings API that is away, slow, full, or answers rubbish."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import msgspec
import numpy as np
import pytest
from redis import Redis

from bench.processes import Served, command
from service.api.auth import operator
from service.app import create_app
from service.cache.digests import TenantKeys
from service.embedders.openai import CHUNK, CHUNK_BYTES, OpenAIEmbedder, provider
from service.errors import EmbedderError, LayoutError
from service.model import Generation, Hit, Miss, Reason
from service.providers.gate import ProviderError
from service.settings import Settings
from service.store.vectors import unpacked
from service.wiring import Parts, opened
from tests.helpers import accepted, asked, keep, look
from tests.stub_openai import (
    BAD,
    DIM,
    Reply,
    Stub,
    failure,
    ok,
    ok_list,
    reversed_with_indexes,
    running,
    unit,
    until,
)

pytestmark = pytest.mark.anyio
log = logging.getLogger(__name__)

LOOKUPS = 150  # of two questions each


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with running(Stub()) as server:
        yield server


@pytest.fixture
def remote(settings: Settings, stub: Stub) -> Settings:
    """Deadlines so long that none passes by itself on a busy machine."""
    return replace(
        settings, embedder="openai", openai_base_url=stub.url, openai_model="m", openai_timeout_s=30
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[Parts, TenantKeys]]:
    async with opened(settings, settings.redis_url or "") as parts:
        await parts.attach(lambda _: None)
        yield parts, parts.keyring.of(operator("acme"))


@asynccontextmanager
async def embedding(settings: Settings) -> AsyncIterator[OpenAIEmbedder]:
    async with provider(settings) as embedder:
        yield embedder


@asynccontextmanager
async def http_service(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """In this loop; Litestar's own client blocks it, and with it the stub."""
    app = create_app(settings, settings.redis_url or "")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type] # both spell ASGI's types, differently
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


async def look_at_pairs(parts: Parts, keys: TenantKeys) -> list[Hit | Miss]:
    """`LOOKUPS` lookups of two new questions each."""
    answers: list[Hit | Miss] = []
    for n in range(LOOKUPS):
        pair = [asked(keys, parts, prompt=f"question {n}{side}") for side in "ab"]
        answers += await parts.lookup.answer(pair, keys)
    return answers


def vectors_in(redis: Redis, prefix: str) -> list[np.ndarray[Any, Any]]:
    """Every vector in Redis; the index has failed on none of them."""
    wanted = f"{prefix}:{{0}}:responses:index:".encode()
    (index,) = [one for one in redis.execute_command("FT._LIST") if one.startswith(wanted)]
    info = redis.execute_command("FT.INFO", index)
    told = dict(zip(info[::2], info[1::2], strict=True))
    assert int(told[b"hash_indexing_failures"]) == 0
    found = [redis.hget(key, "vector") for key in redis.scan_iter(f"{prefix}:*:document:*", count=1000)]
    record = redis.get(f"{prefix}:{{meta}}:responses:generation")
    assert isinstance(record, bytes)
    generation = msgspec.json.decode(record, type=Generation)
    return [unpacked(vector, generation) for vector in found if isinstance(vector, bytes)]


async def hurt(settings: Settings, stub: Stub, redis: Redis) -> int:
    """A fault's effects on lookups and stores; the calls that the API saw under `LOOKUPS` lookups."""
    async with serving(settings) as (parts, keys):
        calls = stub.calls
        answers = await look_at_pairs(parts, keys)
        calls = stub.calls - calls
        assert {answer.reason for answer in answers if isinstance(answer, Miss)} == {Reason.DEGRADED}
        assert len(answers) == 2 * LOOKUPS
        hit = await look(parts, keys, prompt="stored before")
        assert isinstance(hit, Hit)
        pair = [accepted(keys, parts, prompt=f"new {side}") for side in "ab"]
        assert all(isinstance(one, EmbedderError) for one in await parts.store.answer(pair, keys))
    (vector,) = vectors_in(redis, settings.key_prefix)
    assert np.allclose(vector, unit("stored before"), atol=1e-3)
    return calls


async def stored_before(settings: Settings) -> None:
    async with serving(settings) as (parts, keys):
        await keep(parts, keys, prompt="stored before")


@pytest.mark.parametrize("mode", [ok, ok_list, reversed_with_indexes])
async def test_without_a_fault(remote: Settings, stub: Stub, redis: Redis, mode: Any) -> None:
    stub.mode = mode
    async with serving(remote) as (parts, keys):
        pair = [accepted(keys, parts, prompt=prompt, temperature=0.5) for prompt in ("one", "two")]
        assert len(await parts.store.answer(pair, keys)) == 2
        for prompt in ("one", "two"):
            answer = await look(parts, keys, prompt=prompt)
            assert isinstance(answer, Hit)
            assert answer.similarity == pytest.approx(1, abs=2e-4)
        calls = stub.calls
        answers = await look_at_pairs(parts, keys)
        missed = {one.reason for one in answers if isinstance(one, Miss)}
        assert missed <= {Reason.BELOW_THRESHOLD, Reason.GUARD}
        assert stub.calls - calls == LOOKUPS
    found = vectors_in(redis, remote.key_prefix)
    wanted = [unit("one"), unit("two")]
    assert all(any(np.allclose(a, b, atol=1e-3) for b in found) for a in wanted)
    assert all(one[1]["encoding_format"] == "base64" for one in stub.requests)


@pytest.mark.parametrize("mode", BAD)
async def test_a_wrong_answer_gets_nowhere(remote: Settings, stub: Stub, redis: Redis, mode: str) -> None:
    await stored_before(remote)
    stub.mode = BAD[mode]
    calls = await hurt(remote, stub, redis)
    log.info("%s: %d calls where there would be %d", mode, calls, LOOKUPS)
    assert 1 <= calls <= 1.1 * LOOKUPS


async def test_an_api_that_is_away(remote: Settings, stub: Stub, redis: Redis) -> None:
    await stored_before(remote)
    await stub.stop()
    await hurt(remote, stub, redis)


async def test_a_slow_api(remote: Settings, stub: Stub, redis: Redis) -> None:
    await stored_before(remote)
    stub.hold = asyncio.Event()
    with anyio.fail_after(60):  # of 150 lookups that would wait 0.2 s or more each
        assert await hurt(replace(remote, openai_timeout_s=0.2), stub, redis) <= 1.1 * LOOKUPS


async def test_an_api_that_fails_now_and_then_is_asked_again_within_the_budget(
    remote: Settings, stub: Stub
) -> None:
    async with embedding(remote) as embedder:
        await asyncio.gather(*(embedder.embed([f"before {n}"]) for n in range(100)))
        turns = iter(range(10**6))
        stub.mode = lambda texts: failure(500)(texts) if next(turns) % 3 == 0 else ok(texts)
        failed = 0
        for n in range(300):
            try:
                assert np.allclose(await embedder.embed([f"text {n}"]), unit(f"text {n}"), atol=1e-6)
            except EmbedderError:
                failed += 1
        # A third fails; ten retries were saved up, and one more is earned by each ten successes.
        assert 420 < stub.calls <= 1.1 * 400
        assert 60 < failed < 100


@pytest.mark.parametrize("mode", ["429 1e9", "429 date"])
async def test_nobody_calls_before_retry_after(remote: Settings, stub: Stub, mode: str) -> None:
    async with embedding(remote) as embedder:
        stub.mode = BAD[mode]
        with pytest.raises(ProviderError, match="429") as caught:
            await embedder.embed(["a"])
        assert caught.value.retry_after_s == 60
        stub.mode = ok
        for _ in range(20):
            with pytest.raises(ProviderError, match="429") as caught:
                await embedder.embed(["b"])
            assert caught.value.why == "paused"
        assert stub.calls == 1


async def test_a_retry_waits_as_long_as_it_is_told(remote: Settings, stub: Stub) -> None:
    async with embedding(remote) as embedder:
        for n in range(10):
            await embedder.embed([f"before {n}"])
        times: list[float] = []

        def first_full(texts: list[str]) -> Reply:
            times.append(asyncio.get_running_loop().time())
            return failure(429, "1")(texts) if len(times) == 1 else ok(texts)

        stub.mode = first_full
        assert (await embedder.embed(["a"])).shape == (1, DIM)
        assert len(times) == 2
        assert times[1] - times[0] >= 1


async def test_where_the_deadline_comes_first_there_is_no_retry(remote: Settings, stub: Stub) -> None:
    async with embedding(replace(remote, openai_timeout_s=5)) as embedder:
        for n in range(10):
            await embedder.embed([f"before {n}"])
        stub.mode = failure(429, "30")
        with anyio.fail_after(20), pytest.raises(ProviderError, match="429"):
            await embedder.embed(["a"])
        assert stub.calls == 11


async def test_a_provider_that_is_down_is_left_alone_and_found_again(remote: Settings, stub: Stub) -> None:
    async with embedding(remote) as embedder:
        stub.mode = failure(500)
        for n in range(50):
            with pytest.raises(ProviderError):
                await embedder.embed([f"text {n}"])
        assert 5 <= stub.calls < 20  # 5, and a probe for each second that this took
        stub.mode = ok
        with anyio.fail_after(10):
            while True:
                try:
                    assert (await embedder.embed(["back"])).shape == (1, DIM)
                    break
                except ProviderError:
                    await anyio.sleep(0.05)


async def test_requests_at_a_time_are_bounded(remote: Settings, stub: Stub) -> None:
    stub.hold = asyncio.Event()
    async with embedding(replace(remote, openai_concurrency=3)) as embedder:
        calls = [asyncio.create_task(embedder.embed([f"text {n}"])) for n in range(40)]
        await until(lambda: stub.inside == 3)
        await anyio.sleep(0.1)
        stub.hold.set()
        await asyncio.gather(*calls)
        assert stub.most_inside == 3
        assert stub.calls == 40


async def test_waiting_for_a_slot_counts(remote: Settings, stub: Stub) -> None:
    stub.hold = asyncio.Event()
    async with embedding(replace(remote, openai_concurrency=1, openai_timeout_s=0.3)) as embedder:
        with anyio.fail_after(10):
            outcomes = await asyncio.gather(
                *(embedder.embed([f"text {n}"]) for n in range(10)), return_exceptions=True
            )
        assert {one.why for one in outcomes if isinstance(one, ProviderError)} <= {"slow", "busy"}
        assert stub.calls < 10


async def test_a_large_call_goes_in_several_requests_in_order(remote: Settings, stub: Stub) -> None:
    texts = [f"{n} " + "x" * (7000 if n % 7 == 0 else 3) for n in range(2 * CHUNK + 10)]
    async with embedding(remote) as embedder:
        rows = await embedder.embed(texts)
    assert all(np.allclose(row, unit(text), atol=1e-6) for row, text in zip(rows, texts, strict=True))
    inputs = [body["input"] for _, body in stub.requests]
    assert max(map(len, inputs)) <= CHUNK
    assert max(sum(len(text) for text in one) for one in inputs) <= CHUNK_BYTES
    assert sorted(text for one in inputs for text in one) == sorted(texts)


async def test_one_failed_request_fails_its_call_only(remote: Settings, stub: Stub) -> None:
    stub.mode = lambda texts: failure(400)(texts) if "bad" in texts else ok(texts)
    async with embedding(remote) as embedder:
        many = [str(n) for n in range(CHUNK)]
        with pytest.raises(ProviderError, match="400"):
            await embedder.embed([*many, "bad"])
        assert (await embedder.embed(many)).shape == (CHUNK, DIM)


async def test_cancelled_callers_harm_nobody(remote: Settings, stub: Stub) -> None:
    rng = random.Random(1)  # noqa: S311 - chance, not a secret
    async with embedding(replace(remote, openai_concurrency=4)) as embedder:
        calls = {n: asyncio.create_task(embedder.embed([f"text {n}"])) for n in range(300)}
        for n in rng.sample(range(300), 150):
            await anyio.sleep(rng.random() * 0.01)
            calls[n].cancel()
        for n, call in calls.items():
            try:
                assert np.allclose(await call, unit(f"text {n}"), atol=1e-6)
            except asyncio.CancelledError:
                assert call.cancelled()
        assert stub.most_inside <= 8  # a cancelled one is gone here before the stub sees it
        stub.hold, stub.most_inside = asyncio.Event(), 0
        after = [asyncio.create_task(embedder.embed([f"after {n}"])) for n in range(8)]
        await until(lambda: stub.inside == 4)
        stub.hold.set()
        await asyncio.gather(*after)
        assert stub.most_inside == 4


async def test_a_cancelled_probe_leaves_room_for_the_next(remote: Settings, stub: Stub) -> None:
    async with embedding(remote) as embedder:
        stub.mode = failure(500)
        for _ in range(5):
            with pytest.raises(ProviderError):
                await embedder.embed(["a"])
        stub.mode, stub.hold = ok, asyncio.Event()
        await anyio.sleep(1.1)
        probe = asyncio.create_task(embedder.embed(["probe"]))
        await until(lambda: stub.inside > 0)
        with pytest.raises(ProviderError) as caught:
            await embedder.embed(["b"])
        assert caught.value.why == "paused"
        probe.cancel()
        await asyncio.wait([probe])
        stub.hold.set()
        assert (await embedder.embed(["b"])).shape == (1, DIM)


async def test_only_its_own_settings_are_sent(
    remote: Settings, stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "BASE_URL"):
        monkeypatch.setenv(f"OPENAI_{name}", f"http://127.0.0.1:1/of-the-environment-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: of-the-environment")
    for key in (None, "sk-test-of-ours"):
        async with embedding(replace(remote, openai_api_key=key, openai_dimensions=DIM)) as embedder:
            await embedder.embed(["a text of a user"])
            stub.mode = failure(401)
            with pytest.raises(ProviderError) as caught:
                await embedder.embed(["a text of a user"])
            assert str(caught.value) == "the embeddings API answered 401"
            stub.mode = ok
        headers, body = stub.requests[-1]
        assert headers.get("authorization") == (None if key is None else f"Bearer {key}")
        assert "of-the-environment" not in str(headers)
        assert body == {
            "model": "m", "input": ["a text of a user"], "dimensions": DIM, "encoding_format": "base64"
        }  # fmt: skip
    assert "sk-te" not in caplog.text
    assert "a text of a user" not in caplog.text


async def test_a_text_that_may_be_cut_is_for_the_exact_tier(remote: Settings, stub: Stub) -> None:
    async with serving(replace(remote, openai_max_bytes=10)) as (parts, keys):
        calls = stub.calls
        for prompt in ("x" * 11, "é" * 6):
            stored = await keep(parts, keys, prompt=prompt)
            assert stored.exact_only == "too_long"
            assert isinstance(await look(parts, keys, prompt=prompt), Hit)
        assert stub.calls == calls
        assert isinstance(await look(parts, keys, prompt="é" * 5), Miss)
        assert stub.calls == calls + 1


async def test_another_dimension_than_the_index_has(remote: Settings) -> None:
    await stored_before(remote)
    with pytest.raises(LayoutError, match=r"vectors of m openai-api \(16\).*\(17\)"):
        async with serving(replace(remote, openai_dimensions=17)):
            pass
    with pytest.raises(LayoutError, match="the embedder is other openai-api"):
        async with serving(replace(remote, openai_model="other")):
            pass


async def test_a_service_starts_while_the_api_is_away(remote: Settings, stub: Stub) -> None:
    await stub.stop()
    async with http_service(remote) as http:
        ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert "the embeddings API can't be reached" in ready.json()["reason"]
        question = {"agent_type": "a", "prompt": "p"}
        assert (await http.post("/v1/cache/lookup", json=question)).json()["reason"] == "degraded"
        await stub.start()
        with anyio.fail_after(20):
            while (await http.get("/readyz")).status_code != 200:
                await anyio.sleep(0.05)
        assert (await http.post("/v1/cache/store", json={**question, "response": "r"})).status_code == 201
        await stub.stop()
        assert (await http.post("/v1/cache/lookup", json=question)).json()["tier"] == "exact"
        failed = await http.post("/v1/cache/store", json={**question, "prompt": "q", "response": "r"})
        assert failed.status_code == 502
    # Redis has an index by now: the exact tier needs nobody.
    async with http_service(remote) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/v1/cache/lookup", json=question)).json()["tier"] == "exact"


async def test_the_commands_with_an_embeddings_api(remote: Settings, stub: Stub, tmp_path: Path) -> None:
    """In processes of their own, which get the settings from their environment."""
    settings = {
        name: str(value)
        for name, value in asdict(remote).items()
        if name in {"redis_url", "key_prefix", "secret", "embedder", "openai_base_url", "openai_model"}
    }
    await stub.stop()
    run = partial(command, tmp_path, **settings)
    failed = await anyio.to_thread.run_sync(partial(run, "migrate", "up"))
    assert failed.returncode == 1
    assert "the embeddings API can't be reached" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "pending" in (await anyio.to_thread.run_sync(partial(run, "migrate", "status"))).stdout
    await stub.start()
    assert (await anyio.to_thread.run_sync(partial(run, "migrate", "up"))).returncode == 0
    await stub.stop()

    def ask(service: Served) -> list[httpx.Response]:
        question = {"agent_type": "a", "prompt": "p"}
        stored = service.http.post("/v1/cache/store", json={**question, "response": "r"})
        return [stored, *(service.http.post("/v1/cache/lookup", json=question) for _ in range(4))]

    service = await anyio.to_thread.run_sync(Served(tmp_path, workers="2", **settings).wait)
    try:
        assert (await anyio.to_thread.run_sync(ask, service))[0].status_code == 502
        await stub.start()
        with anyio.fail_after(20):
            while (answers := await anyio.to_thread.run_sync(ask, service))[0].status_code != 201:
                await anyio.sleep(0.05)
        assert {one.json()["outcome"] for one in answers[1:]} == {"hit"}
    finally:
        output = await anyio.to_thread.run_sync(service.end)
    assert "HTTP Request" not in output


async def test_migrate_asks_a_new_model_for_its_dimension(
    parts: Parts, remote: Settings, stub: Stub, tmp_path: Path
) -> None:
    """The index is another's, and doesn't tell."""
    assert parts.responses.generation is not None
    names = {"redis_url", "key_prefix", "secret", "embedder", "openai_base_url", "openai_model"}
    settings = {name: str(value) for name, value in asdict(remote).items() if name in names}
    run = partial(command, tmp_path, **settings)
    planned = await anyio.to_thread.run_sync(partial(run, "migrate", "plan"))
    assert f"the settings ask for m openai-api ({DIM})" in planned.stdout
    await stub.stop()
    away = await anyio.to_thread.run_sync(partial(run, "migrate", "plan"))
    assert "SEMCACHED_OPENAI_DIMENSIONS" in away.stderr
