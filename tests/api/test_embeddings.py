"""/v1/embeddings, spoken by the unmodified SDK over a real socket, with a stub behind the service."""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx
import numpy as np
import openai
import pytest
import uvicorn
from litestar import Litestar
from litestar.testing import AsyncTestClient
from openai import AsyncOpenAI, OpenAI
from redis import Redis

from service.api.auth import Role, create_key
from service.app import create_app
from service.embedders.local import DIM as LOCAL_DIM
from service.embedders.local import MODEL
from service.settings import Settings
from service.wiring import NOTHING, Loaded
from tests.stub_openai import DIM, Stub, answer, failure, ok, running, unit, until

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]


def raw(text: str) -> bytes:
    """What the stub below answers for a text: of a norm that isn't 1."""
    return (unit(text) * np.float32(1.25)).astype("<f4").tobytes()


def uneven(texts: list[str]) -> Any:
    """Vectors of norm 1.25, in another order; a token per character."""
    data = [
        {"object": "embedding", "index": at, "embedding": base64.b64encode(raw(text)).decode()}
        for at, text in enumerate(texts)
    ]
    reply = answer(data[::-1])
    count = sum(map(len, texts))
    reply.body = json.dumps(
        json.loads(reply.body) | {"usage": {"prompt_tokens": count, "total_tokens": count}}
    ).encode()
    return reply


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with running(Stub()) as server:
        server.mode = uneven
        yield server


@pytest.fixture
def remote(settings: Settings, stub: Stub) -> Settings:
    return replace(
        settings, embedder="openai", openai_base_url=stub.url, openai_model="m", openai_timeout_s=30
    )


@asynccontextmanager
async def serving(settings: Settings, loaded: Loaded = NOTHING) -> AsyncIterator[str]:
    """The service on a real socket; its address."""
    app = create_app(settings, settings.redis_url or "", loaded)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="none"))
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started or task.done())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def sdk(url: str, key: str = "none") -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        yield client


def decoded(found: Any) -> list[bytes]:
    return [base64.b64decode(one.embedding) for one in found.data]


async def test_2000_inputs_half_of_them_kept(remote: Settings, stub: Stub) -> None:
    rng = random.Random(7)  # noqa: S311 - repeatable on purpose
    texts = [f"text {n}" for n in range(1000)]
    inputs = texts + rng.choices(texts, k=1000)
    rng.shuffle(inputs)
    async with serving(remote) as url, sdk(url) as client:
        first = await client.embeddings.create(model="m", input=texts[::2], encoding_format="base64")
        assert decoded(first) == [raw(text) for text in texts[::2]]
        calls = stub.calls
        found = await client.embeddings.create(model="m", input=inputs, encoding_format="base64")
        assert stub.calls - calls == 1
        sent = stub.requests[-1][1]["input"]
        assert sorted(sent) == sorted(texts[1::2])
        assert decoded(found) == [raw(text) for text in inputs]
        assert [one.index for one in found.data] == list(range(2000))
        assert found.usage.prompt_tokens == sum(map(len, sent))
        again = await client.embeddings.create(model="default", input=inputs, encoding_format="float")
        assert stub.calls - calls == 1
        assert [np.array(one.embedding, "<f4").tobytes() for one in again.data] == decoded(found)
        assert (again.usage.total_tokens, again.model, again.object) == (0, "m", "list")


async def test_the_synchronous_sdk_and_its_default_encoding(remote: Settings, stub: Stub) -> None:
    def ask(url: str) -> list[list[float]]:
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            found = client.embeddings.create(model="default", input=["a", "b", "a"], dimensions=DIM, user="u")
            one = client.embeddings.create(model="default", input="b")
            return [item.embedding for item in [*found.data, *one.data]]

    async with serving(remote) as url:
        calls = stub.calls
        rows = await anyio.to_thread.run_sync(partial(ask, url))
        assert [np.array(row, "<f4").tobytes() for row in rows] == [raw(text) for text in "abab"]
        assert stub.calls - calls == 1


async def test_the_sdk_raises_its_own_errors(remote: Settings, stub: Stub) -> None:
    async with serving(replace(remote, admin_key="the first admin key")) as url:
        async with sdk(url) as stranger:
            with pytest.raises(openai.AuthenticationError) as unknown:
                await stranger.embeddings.create(model="m", input="a")
            assert unknown.value.body == {
                "message": "unknown key; beside a provider's key, send yours as X-Semcached-Key",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        async with sdk(url, "the first admin key") as client:
            create: Any = client.embeddings.create
            with pytest.raises(openai.NotFoundError) as missing:
                await create(model="other", input="a")
            assert missing.value.code == "model_not_found"
            for field, wrong in {
                "input": [1, 2],
                "input[1]": ["a", ""],
                "input[0]": ["x" * 9000],
                "dimensions": DIM + 1,
                "encoding_format": "hex",
                "model": None,
                "dimension": 3,
            }.items():
                given = {"model": "m", "input": "a", "extra_body": {field.partition("[")[0]: wrong}}
                with pytest.raises(openai.BadRequestError) as bad:
                    await create(**given)
                assert bad.value.param == field
            for many in ([], ["a"] * 2049, [[1], [2]], ""):
                with pytest.raises(openai.BadRequestError) as bad:
                    await create(model="m", input=many)
                assert bad.value.param == "input"
            with pytest.raises(openai.APIStatusError) as large:
                await create(model="m", input="x" * (17 * 2**20))
            assert large.value.status_code == 413
            stub.mode = failure(500)
            with pytest.raises(openai.InternalServerError) as failed:
                await create(model="m", input="never seen")
            assert failed.value.status_code == 502
            assert failed.value.type == "server_error"


async def test_without_redis_it_is_computed(remote: Settings, stub: Stub) -> None:
    async with serving(remote) as url, sdk(url) as client:
        await client.embeddings.create(model="m", input="a")
    gone = replace(remote, redis_url="redis://127.0.0.1:1", redis_timeout_s=0.2)
    async with serving(gone) as url, sdk(url) as client:
        calls = stub.calls
        for _ in range(8):  # the breaker opens
            found = await client.embeddings.create(model="m", input="a", encoding_format="base64")
            assert decoded(found) == [raw("a")]
        assert stub.calls - calls == 8
        async with httpx.AsyncClient(base_url=url) as http:
            away = await http.post("/v1/embeddings/lookup", json={"model": "x", "texts": ["a"]})
            assert away.status_code == 503


@pytest.mark.parametrize(("share", "computed"), [("off", 2), ("on", 1)])
async def test_tenants_share_only_where_the_setting_says_so(
    remote: Settings, stub: Stub, share: str, computed: int
) -> None:
    shared = replace(remote, share_embeddings=share)
    keys = [create_key(shared.keys_path, tenant, Role.writer) for tenant in ("acme", "other")]
    async with serving(shared) as url:
        calls = stub.calls
        for key in keys:
            async with sdk(url, key) as client:
                await client.embeddings.create(model="m", input="a text of two tenants")
        assert stub.calls - calls == computed
        # What callers give is never shared: it would be believed by others.
        acme, other = ({"Authorization": f"Bearer {key}"} for key in keys)
        given = {"model": "mine", "items": [{"text": "t", "embedding": [1, 2]}]}
        wanted = {"model": "mine", "texts": ["t"]}
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/v1/embeddings/store", json=given, headers=acme)).json() == {"stored": 1}
            found = [await http.post("/v1/embeddings/lookup", json=wanted, headers=h) for h in (acme, other)]
        assert [one.json()["embeddings"] for one in found] == [[[1, 2]], [None]]


async def test_what_is_spoilt_is_computed_anew(remote: Settings, stub: Stub, redis: Redis) -> None:
    value = f"{remote.key_prefix}:{{0}}:embeddings:value:*"
    async with serving(remote) as url, sdk(url) as client:

        async def ask(*texts: str) -> int:
            """How many texts the upstream was asked for."""
            seen = len(stub.requests)
            found = await client.embeddings.create(model="m", input=list(texts), encoding_format="base64")
            assert decoded(found) == [raw(text) for text in texts]
            return sum(len(body["input"]) for _, body in stub.requests[seen:])

        def kept() -> dict[bytes, bytes]:
            return {key: redis.get(key) for key in redis.scan_iter(value)}  # type: ignore[misc] # sync

        assert await ask("a") == 1
        ((name, blob),) = kept().items()
        assert await ask("a", "b") == 1
        assert await ask("a", "b") == 0
        (other,) = [one for key, one in kept().items() if key != name]
        turned = bytes([blob[0], *blob[1:40], blob[40] ^ 1, *blob[41:]])
        for spoilt in (turned, other, blob[:-4], blob + bytes(4), b"", b"\x02" + blob[1:], bytes(len(blob))):
            redis.set(name, spoilt)
            assert await ask("a", "b") == 1
            assert redis.get(name) == blob
        redis.delete(name)
        redis.rpush(name, "of another type")
        assert await ask("a", "b") == 1
        assert redis.get(name) == blob


async def test_everything_has_an_end(remote: Settings, redis: Redis) -> None:
    short = replace(remote, embeddings_ttl_s=100)
    async with serving(short) as url, sdk(url) as client:
        await client.embeddings.create(model="m", input=["a", "b"])
        names = [*redis.scan_iter(f"{remote.key_prefix}:{{0}}:embeddings:*")]
        assert len(names) == 3
        assert all(90_000 < redis.pttl(name) <= 100_000 for name in names)
        (listed,) = [name for name in names if b":list:" in name]
        listing: Any = redis.zrange(listed, 0, -1)
        members = [member.partition(b":") for member in listing]
        assert {name.rpartition(b":")[2] for name in names if name != listed} == {m[2] for m in members}
        assert len({m[0] for m in members}) == 1
        redis.zadd(listed, {"digest:long gone": 1})
        async with httpx.AsyncClient(base_url=url) as http:
            item = {"text": "c", "embedding": [1]}
            for ttl_s, status in ((7.5, 200), (101, 400), (0.5, 400)):
                given = {"model": "n", "items": [item], "ttl_s": ttl_s}
                assert (await http.post("/v1/embeddings/store", json=given)).status_code == status
        ends = sorted(redis.pttl(name) for name in redis.scan_iter(f"{remote.key_prefix}:{{0}}:embeddings:*"))
        assert 0 < ends[0] <= 7500
        assert redis.zcard(listed) == 3


async def test_the_local_model(client: Http) -> None:
    def ask(**fields: Any) -> Any:
        return client.post("/v1/embeddings", json={"model": MODEL, "encoding_format": "base64"} | fields)

    texts = ["How do I reset my password?", "≠", "How do I reset my password?"]
    body = (await ask(input=texts)).json()
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in body["data"]]
    assert {row.size for row in rows} == {LOCAL_DIM}
    assert (rows[0] == rows[2]).all()
    assert body["usage"] == {"prompt_tokens": 12, "total_tokens": 12}  # 7 words and a mark, "=", four ends
    again = (await ask(input=texts)).json()
    assert (again["data"], again["usage"]["total_tokens"]) == (body["data"], 0)
    long = await ask(input=["short", " ".join(["word"] * 300)])
    assert (long.status_code, long.json()["error"]["param"]) == (400, "input[1]")


async def test_a_callers_own_embeddings(client: Http) -> None:
    numbers = [0.1, -2.5, 3e-8]
    packed = np.array(numbers, "<f4").tobytes()
    items = [
        {"text": "a", "embedding": numbers},
        {"text": "b", "embedding": base64.b64encode(packed).decode()},
    ]
    stored = await client.post("/v1/embeddings/store", json={"model": "mine", "items": items})
    assert (stored.status_code, stored.json()) == (200, {"stored": 2})
    wanted = {"model": "mine", "texts": ["b", "c", "a"], "encoding_format": "base64"}
    found = (await client.post("/v1/embeddings/lookup", json=wanted)).json()["embeddings"]
    assert [one and base64.b64decode(one) for one in found] == [packed, None, packed]
    floats = (await client.post("/v1/embeddings/lookup", json=wanted | {"encoding_format": "float"})).json()
    assert floats["embeddings"][0] == np.array(numbers, "<f4").tolist()
    other = {"model": "another", "texts": ["a"]}
    assert (await client.post("/v1/embeddings/lookup", json=other)).json() == {"embeddings": [None]}


async def test_a_caller_does_not_steer_the_services_own_model(client: Http) -> None:
    """Both are found under the model's name; lookups and /v1/embeddings believe the embedder alone."""
    text = "What is the refund policy?"
    false = {"text": text, "embedding": [1.0] + [0.0] * (LOCAL_DIM - 1)}
    for model in (MODEL, "default"):
        stored = await client.post("/v1/embeddings/store", json={"model": model, "items": [false]})
        assert stored.json() == {"stored": 1}
    ask = {"model": MODEL, "texts": [text]}
    given = (await client.post("/v1/embeddings/lookup", json=ask)).json()["embeddings"]
    assert given == [false["embedding"]]
    true = (await client.post("/v1/embeddings", json={"model": MODEL, "input": text})).json()
    assert true["usage"]["total_tokens"] > 0
    assert true["data"][0]["embedding"] != false["embedding"]
    found = (await client.post("/v1/embeddings/lookup", json=ask)).json()["embeddings"]
    assert found == [true["data"][0]["embedding"]]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("lookup", {"texts": ["a"]}, "model"),
        ("lookup", {"model": "", "texts": ["a"]}, "model"),
        ("lookup", {"model": "é" * 300, "texts": ["a"]}, "model"),
        ("lookup", {"model": "m", "texts": []}, "texts"),
        ("lookup", {"model": "m", "texts": ["a"] * 2049}, "texts"),
        ("lookup", {"model": "m", "texts": ["a"], "text": "a"}, "text"),
        ("store", {"model": "m", "items": []}, "items"),
        ("store", {"model": "m", "items": [{"text": "a"}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": []}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": [0, 0]}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": [1e39]}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": "?"}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": "AAAA"}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": "AADAfw=="}]}, "items[0].embedding"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": [1] * 16385}]}, "items[0].embedding"),
        (
            "store",
            {"model": "m", "items": [{"text": t, "embedding": [1] * n} for t, n in (("a", 2), ("b", 3))]},
            "items[1].embedding",
        ),
        (
            "store",
            {"model": "m", "items": [{"text": "a", "embedding": [1] * n} for n in (2, 3)]},
            "items[1].embedding",
        ),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": [1], "x": 1}]}, "items[0].x"),
        ("store", {"model": "m", "items": [{"text": "a", "embedding": [1]}], "ttl_s": None}, "ttl_s"),
    ],
)
async def test_bad_input_names_its_field(client: Http, path: str, body: Any, field: str) -> None:
    refused = await client.post(f"/v1/embeddings/{path}", json=body)
    assert refused.status_code == 400
    assert [one["field"] for one in refused.json()["errors"]] == [field]


async def test_roles(settings: Settings, models: Loaded) -> None:
    reader = create_key(settings.keys_path, "acme", Role.reader)
    headers = {"Authorization": f"Bearer {reader}"}
    calls: dict[str, tuple[dict[str, Any], int]] = {
        "": ({"model": "default", "input": "a"}, 200),
        "/lookup": ({"model": "m", "texts": ["a"]}, 200),
        "/store": ({"model": "m", "items": [{"text": "a", "embedding": [1]}]}, 403),
    }
    async with AsyncTestClient(create_app(settings, settings.redis_url or "", models)) as http:
        for path, (body, status) in calls.items():
            answered = await http.post(f"/v1/embeddings{path}", json=body, headers=headers)
            assert answered.status_code == status


async def test_a_stub_of_norm_1_is_kept_as_it_is(remote: Settings, stub: Stub) -> None:
    stub.mode = ok
    async with serving(remote) as url, sdk(url) as client:
        for _ in range(2):
            found = await client.embeddings.create(model="m", input="a", encoding_format="base64")
            assert decoded(found) == [unit("a").astype("<f4").tobytes()]
