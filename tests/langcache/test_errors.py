"""Every class of error of the unmodified SDK, sync and async, each for a reason of its own."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from bench.processes import served
from langcache import LangCache, errors
from service.api.auth import Role, create_key
from service.app import create_app
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from tests.langcache.conftest import Caller, Service, calling, started
from tests.stub_openai import Stub, failure, running

pytestmark = pytest.mark.anyio

ASKED, ALIKE, SAID = "How do I reset my password?", "How can I reset my password?", "Settings."

BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no life": ("set", {"prompt": "p", "response": "r", "ttl_millis": 0}, "ttlMillis"),
    "an endless life": ("set", {"prompt": "p", "response": "r", "ttl_millis": 10**16}, "ttlMillis"),
    "a blank prompt": ("set", {"prompt": " \n ", "response": "r"}, "prompt"),
    "no prompt": ("search", {"prompt": ""}, "prompt"),
    "a long prompt": ("search", {"prompt": "x" * 131_073}, "prompt"),
    "an answer that says nothing": ("set", {"prompt": "p", "response": " "}, "response"),
    "a threshold above": ("search", {"prompt": "p", "similarity_threshold": 1.01}, "similarityThreshold"),
    "a threshold below": ("search", {"prompt": "p", "similarity_threshold": -0.1}, "similarityThreshold"),
    "no results": ("search", {"prompt": "p", "max_results": 0}, "maxResults"),
    "a nameless attribute": ("search", {"prompt": "p", "attributes": {"": "x"}}, "attributes"),
    "a long value": ("search", {"prompt": "p", "attributes": {"a": "x" * 32_769}}, "attributes"),
    "many attributes": (
        "search",
        {"prompt": "p", "attributes": {str(n): "" for n in range(33)}},
        "attributes",
    ),
    "everything": ("delete_query", {"attributes": {}}, "attributes"),
    "a long context": ("conversational_search", {"prompt": "p", "context": ["x"] * 257}, "context"),
}


@pytest.fixture(params=["sync", "async"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sync")


@pytest.mark.parametrize("name", BAD)
async def test_400_names_the_field(cache: Caller, name: str) -> None:
    method, given, field = BAD[name]
    with pytest.raises(errors.BadRequestErrorResponseContent) as raised:
        await cache(method, **given)
    assert raised.value.status_code == 400
    assert raised.value.data.type.value == "/errors/invalid-data"
    assert [one.field for one in raised.value.data.fields or []] == [field]
    assert "no attributes are configured" not in str(raised.value).lower()


async def test_400_says_how_to_delete_everything(cache: Caller) -> None:
    with pytest.raises(errors.BadRequestErrorResponseContent, match="/flush"):
        await cache("delete_query", attributes={})


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_401(service: Service, key: str | None, *, sync: bool) -> None:
    async with calling(service.url, key, "c", sync=sync) as cache:
        with pytest.raises(errors.AuthenticationErrorResponseContent) as raised:
            await cache("search", prompt=ASKED)
    assert raised.value.status_code == 401


async def test_403_for_whatever_a_reader_must_not(service: Service, *, sync: bool) -> None:
    async with calling(service.url, service.keys["reader"], "c", sync=sync) as cache:
        assert (await cache("search", prompt=ASKED)).data == []
        assert (await cache("conversational_search", prompt=ASKED)).data == []
        for method, given in (
            ("set", {"prompt": ASKED, "response": SAID}),
            ("delete_by_id", {"entry_id": "0" * 32}),
            ("delete_query", {"attributes": {"a": "b"}}),
            ("flush", {}),
        ):
            with pytest.raises(errors.ForbiddenErrorResponseContent):
                await cache(method, **given)


@pytest.mark.parametrize("entry_id", ["0" * 32, "f", "*", "0" * 600, "a/b"])
async def test_404_for_no_entry(cache: Caller, entry_id: str) -> None:
    with pytest.raises(errors.NotFoundErrorResponseContent):
        await cache("delete_by_id", entry_id=entry_id)


async def test_404_without_a_cache_id(service: Service, *, sync: bool) -> None:
    async with calling(service.url, service.keys["writer"], None, sync=sync) as cache:
        with pytest.raises(errors.NotFoundErrorResponseContent, match="cache_id"):
            await cache("search", prompt=ASKED)


async def test_404_and_405_of_routes_are_json_too(service: Service) -> None:
    http, headers = service.served.http, {"Authorization": f"Bearer {service.keys['writer']}"}
    for method, path, status in (
        ("GET", "/v1/caches/c/nothing", 404),
        ("GET", "/v1/caches/a%2Fb/flush", 404),
        ("GET", "/v1/caches/c/flush", 405),
        ("PUT", "/v1/caches/c/entries", 405),
    ):
        answer = http.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
        assert answer.json()["status"] == status
    native = http.get("/v1/cache/nothing", headers=headers)
    assert native.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        ("speakeasy-sdk/python 0.14.0 2.932.9 langcache", "/errors/resource-not-found"),
        ("speakeasy-sdk/python 0.12.0 2.9 langcache", "/errors/resource-not-found"),
        ("curl/8", "/errors/resource-not-found"),
        ("speakeasy-sdk/python 0.11.1 2.7 langcache", "/errors/resource/not-found"),
        ("speakeasy-sdk/python 0.10.0 2.7 langcache", "/errors/resource/not-found"),
        ("speakeasy-sdk/typescript 0.11.1 2.7 @redis-ai/langcache", "/errors/resource/not-found"),
    ],
)
async def test_a_404_is_of_the_type_that_the_callers_version_knows(
    service: Service, agent: str, kind: str
) -> None:
    headers = {"Authorization": f"Bearer {service.keys['writer']}", "user-agent": agent}
    answer = service.served.http.delete(f"/v1/caches/c/entries/{'0' * 32}", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (404, kind)


async def test_cache_ids_are_bytes_not_what_can_be_made_of_them(service: Service) -> None:
    http, headers = service.served.http, {"Authorization": f"Bearer {service.keys['writer']}"}
    entry = {"prompt": ASKED, "response": SAID}
    assert http.post("/v1/caches/%FF/entries", json=entry, headers=headers).status_code == 400
    assert http.post("/v1/caches/%EF%BF%BD/entries", json=entry, headers=headers).status_code == 201
    assert http.post(f"/v1/caches/{'x' * 503}/entries", json=entry, headers=headers).status_code == 400
    for other in ("%FE", "%EF%BF%BE"):
        found = http.post(f"/v1/caches/{other}/entries/search", json={"prompt": ASKED}, headers=headers)
        assert found.status_code == 400 or found.json() == {"data": []}


async def test_413(cache: Caller) -> None:
    with pytest.raises(errors.PayloadTooLargeErrorResponseContent):
        await cache("set", prompt=ASKED, response="x" * 2**20)


async def test_what_is_no_request_is_a_400(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.keys['writer']}"}
    bodies = [
        "",
        "{",
        "[]",
        "null",
        '{"prompt":1}',
        '{"prompt":"\\ud800"}',
        '{"prompt":"p","searchStrategies":["x"]}',
    ]
    for body in bodies:
        answer = service.served.http.post("/v1/caches/c/entries/search", content=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "/errors/invalid-data")


async def test_429_says_when_to_come_again(tmp_path: Path, *, sync: bool) -> None:
    key = create_key(tmp_path / "keys.json", "acme", Role.writer, rate_limit=0.001)
    with served(tmp_path) as one:
        async with calling(f"http://127.0.0.1:{one.port}", key, "c", sync=sync) as cache:
            await cache("search", prompt=ASKED)
            with pytest.raises(errors.TooManyRequestsErrorResponseContent) as raised:
                await cache("search", prompt=ASKED)
    assert int(raised.value.headers["retry-after"]) >= 1


async def test_424_while_redis_is_full_or_away(tmp_path: Path, *, sync: bool) -> None:
    (tmp_path / "redis").mkdir()
    with (
        EmbeddedRedis(tmp_path / "redis", port=0) as redis,
        served(tmp_path / "data", redis_url=redis.url, redis_timeout_s="2") as one,
    ):
        url = f"http://127.0.0.1:{one.port}"
        async with calling(url, "any", "c", sync=sync) as cache:
            await cache("set", prompt=ASKED, response=SAID)
            with Redis.from_url(redis.url) as admin:
                admin.config_set("maxmemory", "1mb")
                with pytest.raises(errors.FailedDependencyErrorResponseContent) as raised:
                    await cache("set", prompt=ALIKE, response=SAID)
                assert "out-of-memory" in str(raised.value.body)
                assert len((await cache("search", prompt=ASKED)).data) == 1
                admin.shutdown(nosave=True)
            for method, given in (
                ("search", {"prompt": ASKED}),
                ("conversational_search", {"prompt": ASKED}),
                ("set", {"prompt": ASKED, "response": SAID}),
                ("delete_query", {"attributes": {"a": "b"}}),
                ("delete_by_id", {"entry_id": "0" * 32}),
                ("flush", {}),
            ):
                with pytest.raises(errors.FailedDependencyErrorResponseContent):
                    await cache(method, **given)
        old = httpx.post(  # noqa: ASYNC210 - nothing else goes on
            f"{url}/v1/caches/c/entries/search",
            json={"prompt": ASKED},
            headers={"user-agent": "speakeasy-sdk/python 0.11.1 2.7 langcache"},
        )
        assert old.json()["type"] == "/errors/database/resource-database-unavailable"
        assert old.headers["x-cache"] == "BYPASS"


async def test_424_while_the_embedder_is_away(tmp_path: Path) -> None:
    """The exact tier goes on."""
    async with running(Stub()) as stub:
        given = {"embedder": "openai", "openai_base_url": stub.url, "openai_model": "m", "verifier": "off"}
        async with (
            started(tmp_path, **given) as one,
            calling(f"http://127.0.0.1:{one.port}", "any", "c", sync=False) as cache,
        ):
            await cache("set", prompt=ASKED, response=SAID)
            stub.mode = failure(500)
            assert len((await cache("search", prompt=ASKED)).data) == 1
            for method, given in (("search", {}), ("set", {"response": SAID})):
                with pytest.raises(errors.FailedDependencyErrorResponseContent):
                    await cache(method, prompt=ALIKE, **given)


async def test_500(settings: Settings) -> None:
    """Of an application that was never started."""
    app = create_app(settings, settings.redis_url or "")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type] # both spell ASGI's types, differently
    async with httpx.AsyncClient(transport=transport) as http:
        sdk = LangCache(server_url="http://here", api_key="k", cache_id="c", async_client=http)
        with pytest.raises(errors.UnexpectedErrorResponseContent):
            await sdk.search_async(prompt=ASKED)
