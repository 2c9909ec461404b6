"""Who pays, and whose answers one meets: two tenants, two provider's keys, the settings' key, roles."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from bench.processes import Served, command, served
from tests.provider.rules import PromptCache
from tests.provider.script import Fault, Hold, Script
from tests.provider.server import Provider, threaded, wait_until
from tests.proxy.apis import APIS, CHAT, MESSAGES, Api

KEYS = {"sk-one": "one", "sk-two": "two", "managed": "managed"}


@pytest.fixture(scope="module")
def guarding() -> Iterator[Provider]:
    with threaded(Provider(keys=KEYS)) as one:
        yield one


@pytest.fixture(scope="module")
def keyed(
    guarding: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, dict[str, str]]]:
    """A service with keys of two tenants, and managed keys of the providers'."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = {
        f"{tenant} {role}": command(
            folder, "keys", "create", "--tenant", tenant, "--role", role
        ).stdout.strip()
        for tenant in ("acme", "umbrella")
        for role in ("reader", "writer")
    }
    settings = {
        "openai_upstream": guarding.url,
        "openai_upstream_key": "managed",
        "anthropic_upstream": guarding.root,
        "anthropic_upstream_key": "managed",
        "redis_timeout_s": "5",
    }
    with served(folder, **settings) as service:
        yield service, keys


@pytest.fixture
def provider(guarding: Provider) -> Iterator[Provider]:
    guarding.requests.clear()
    yield guarding
    guarding.say(Script())


def test_nobody_is_served_anothers_answer(
    api: Api, keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    customers = [
        {"X-Semcached-Key": keys[f"{tenant} writer"], "Authorization": f"Bearer {own}"}
        for tenant in ("acme", "umbrella")
        for own in ("sk-one", "sk-two")
    ]
    customers += [{"Authorization": f"Bearer {keys[f'{tenant} writer']}"} for tenant in ("acme", "umbrella")]
    answers = []
    for headers in customers:
        for expected in ("MISS", "HIT"):
            answer = service.http.post(api.path, json=api.asking(question), headers=headers)
            assert (answer.status_code, answer.headers["x-cache"]) == (200, expected)
            answers.append(answer.json()["id"])
    assert len(set(answers)) == len(customers) == provider.calls
    assert [one.account for one in provider.requests] == ["one", "two", "one", "two", "managed", "managed"]
    assert not any(key in str(one.headers) for one in provider.requests for key in keys.values())


def test_other_ways_to_bring_a_key(
    keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    ours = keys["acme writer"]
    ways = [
        ({"X-Api-Key": ours}, "managed"),
        ({"Authorization": f"Bearer {ours}", "X-Api-Key": "sk-two"}, "two"),
        ({"X-Semcached-Key": ours, "X-Api-Key": "sk-one"}, "one"),
        ({"X-Semcached-Key": ours}, "managed"),
    ]
    for headers, account in ways:
        told = headers | {"Cache-Control": "no-store"}
        assert (
            service.http.post(MESSAGES.path, json=MESSAGES.asking(question), headers=told).status_code == 200
        )
        assert provider.requests[-1].account == account
    with MESSAGES.connected(service.port, ours) as claude:
        assert claude.messages.create(**MESSAGES.asking(question)).content
    with CHAT.connected(service.port, "sk-two", default_headers={"X-Semcached-Key": ours}) as gpt:
        assert gpt.chat.completions.create(**CHAT.asking(question)).choices
    assert [one.account for one in provider.requests[-2:]] == ["managed", "two"]


def test_the_accounts_of_one_key_are_apart(
    keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    own = {"X-Semcached-Key": keys["acme writer"], "Authorization": "Bearer sk-one"}
    more = [{}, {"OpenAI-Organization": "org-1"}, {"OpenAI-Organization": "org-1", "OpenAI-Project": "p"}]
    told = [
        service.http.post(CHAT.path, json=CHAT.asking(question), headers=own | one).headers["x-cache"]
        for one in [*more, *more]
    ]
    assert told == ["MISS"] * 3 + ["HIT"] * 3
    assert provider.requests[-1].headers["openai-project"] == "p"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("x-litellm-api-key", "a")], [("x-litellm-api-key", "b")]),
        ([("x-portkey-config", "a")], []),
        ([("cf-aig-authorization", "Bearer a")], [("cf-aig-authorization", "Bearer b")]),
        ([("x-amzn-bedrock-guardrailidentifier", "strict")], []),
        ([("x-forwarded-user", "ann")], [("x-forwarded-user", "bob")]),
        ([("anthropic-beta", "a"), ("anthropic-beta", "b")], [("anthropic-beta", "a")]),
        ([("anthropic-beta", "a"), ("connection", "anthropic-beta")], [("anthropic-beta", "a")]),
    ],
)
def test_what_goes_upstream_counts(
    one: list[tuple[str, str]],
    other: list[tuple[str, str]],
    keyed: tuple[Served, dict[str, str]],
    provider: Provider,
    question: str,
) -> None:
    service, keys = keyed
    ours = [("authorization", f"Bearer {keys['acme writer']}")]
    told = [
        service.http.post(MESSAGES.path, json=MESSAGES.asking(question), headers=ours + more).headers[
            "x-cache"
        ]
        for more in (one, other, one, other)
    ]
    assert told == ["MISS", "MISS", "HIT", "HIT"]
    assert provider.calls == 2


def test_with_the_settings_key_nobody_chooses_who_pays(
    keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    headers = {"Authorization": f"Bearer {keys['acme writer']}", "OpenAI-Organization": "another"}
    service.http.post(CHAT.path, json=CHAT.asking(question), headers=headers)
    assert "openai-organization" not in provider.requests[-1].headers


def test_no_key_of_ours_goes_upstream(
    keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    headers = {
        "X-Semcached-Key": keys["acme writer"],
        "Authorization": f"Bearer {keys['umbrella writer']}",
        "X-Api-Key": keys["acme reader"],
    }
    for api in APIS:
        service.http.post(api.path, json=api.asking(question), headers=headers)
        assert not any(key in str(provider.requests[-1].headers) for key in keys.values())


def test_errors_of_our_own_have_the_providers_form(
    keyed: tuple[Served, dict[str, str]], provider: Provider
) -> None:
    service, _ = keyed
    for api in APIS:
        for headers in ({}, {"Authorization": "Bearer sk-one"}, {"X-Semcached-Key": "nonsense"}):
            answer = service.http.post(api.path, json=api.asking("Hello?"), headers=headers)
            assert answer.status_code == 401
            error = answer.json()["error"]
            assert error.keys() == (
                {"type", "message"} if api is MESSAGES else {"message", "type", "param", "code"}
            )
            assert "X-Semcached-Key" in error["message"] or not headers
    assert provider.requests == []


def test_a_wrong_provider_key_is_the_providers_business(
    api: Api, keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    wrong = {"X-Semcached-Key": keys["acme writer"], "Authorization": "Bearer sk-wrong"}
    answers = [service.http.post(api.path, json=api.asking(question), headers=wrong) for _ in range(2)]
    assert [one.status_code for one in answers] == [401, 401]
    assert "Incorrect API key" in answers[0].text
    assert provider.calls == 2


def test_a_reader_is_served_and_keeps_nothing(
    api: Api, keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed

    def ask(role: str) -> Any:
        headers = {"Authorization": f"Bearer {keys['acme ' + role]}"}
        return service.http.post(api.path, json=api.asking(question), headers=headers).headers["x-cache"]

    assert [ask(role) for role in ("reader", "reader", "writer", "reader")] == ["MISS", "MISS", "MISS", "HIT"]
    assert provider.calls == 3


def test_the_settings_key_opens_no_lists(keyed: tuple[Served, dict[str, str]], provider: Provider) -> None:
    service, keys = keyed
    ours = {"Authorization": f"Bearer {keys['acme writer']}"}
    for path in ("/v1/responses/resp_1", "/v1/chat/completions", "/v1/messages/batches"):
        assert service.http.get(path, headers=ours).status_code == 403
    raw = HTTPConnection("127.0.0.1", service.port, timeout=10)  # httpx would tidy these up
    for path in ("/v1/responses/../models", "/v1/responses/%2E%2e/models"):
        raw.request("GET", path, headers=ours)
        answer = raw.getresponse()
        assert (answer.status, bool(answer.read())) == (404, True)
    raw.close()
    assert provider.requests == []
    assert service.http.get("/v1/models", headers=ours).status_code == 200
    own = {"X-Semcached-Key": keys["acme writer"], "Authorization": "Bearer sk-one"}
    assert service.http.get("/v1/responses/resp_1", headers=own).status_code == 404
    assert [one.path for one in provider.requests] == ["/v1/models", "/v1/responses/resp_1"]


def test_two_keys_at_once_share_no_call(
    keyed: tuple[Served, dict[str, str]], provider: Provider, question: str
) -> None:
    service, keys = keyed
    customers = [
        {"X-Semcached-Key": keys[f"{tenant} writer"], "Authorization": f"Bearer {own}"}
        for tenant in ("acme", "umbrella")
        for own in ("sk-one", "sk-two")
    ]
    hold = Hold(at=0)
    provider.say(Script(fault=Fault(gate=hold)))

    def ask(headers: dict[str, str]) -> str:
        answer = httpx.post(
            f"{service.http.base_url}{CHAT.path}", json=CHAT.asking(question), headers=headers
        )
        return str(answer.json()["id"])

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask, headers) for headers in customers]
        wait_until(lambda: hold.waiting == len(customers))
        hold.release()
        assert len({one.result() for one in asking}) == provider.calls == len(customers)


def test_marks_for_the_providers_prompt_cache(
    tmp_path_factory: pytest.TempPathFactory, question: str
) -> None:
    """Where the policy wants them: the provider reads a long prompt from its cache, and it is counted."""
    system = "You answer questions about one long contract. " + "A clause of it says this and that. " * 800
    with threaded(Provider(prompts=PromptCache(lambda: 0.0))) as provider:
        upstreams = {"openai_upstream": provider.url, "anthropic_upstream": provider.root}
        with served(tmp_path_factory.mktemp("marks"), redis_timeout_s="5", **upstreams) as service:
            asked = {"model": "claude-sonnet-5", "max_tokens": 100, "system": system}
            turns = [asked | {"messages": [{"role": "user", "content": f"{question} {n}"}]} for n in "abc"]
            exact = {"X-Semcached-Tiers": "exact"}
            service.http.post(MESSAGES.path, json=turns[0], headers=exact)
            assert provider.requests[-1].body == turns[0]
            service.http.put("/v1/policies?agent_type=default", json={"prompt_cache": True})
            usage = [
                service.http.post(MESSAGES.path, json=turn, headers=exact).json()["usage"]
                for turn in turns[1:]
            ]
            figures = service.http.get("/v1/stats").json()
    assert "cache_control" in str(provider.requests[-1].body)
    assert usage[1]["cache_read_input_tokens"] > 4000
    assert figures["tokens"]["provider_cached"] == usage[1]["cache_read_input_tokens"]
    assert figures["money"]["provider_saved_usd"] > 0
