"""One change of a request at a time, over HTTP: whose answer it meets, with the semantic tier on.

The same question with one field changed is as near as a question can be: only the field keeps the two apart.
"""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
import pytest

from tests.parameters import (
    CHAT_PARAMS,
    KEY,
    MESSAGES_BEYOND,
    MESSAGES_PARAMS,
    NEUTRAL,
    RESPONSES_PARAMS,
    Table,
)
from tests.provider.script import Script
from tests.provider.server import Provider
from tests.proxy.apis import APIS, CHAT, MESSAGES, RESPONSES, Api

HEADERS = {"authorization": "Bearer sk-test", "anthropic-version": "2026-10-21"}
ANSWER = Script(text="Yes.")  # below any limit of tokens
BASES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "system", "content": "Be brief."}]},
    "responses": {"instructions": "Be brief.", "store": False},  # with a store the semantic tier isn't asked
    "messages": {"tools": [{"name": "now", "input_schema": {"type": "object"}}]},
}
TABLES: dict[str, Table] = {
    "chat": CHAT_PARAMS,
    "responses": RESPONSES_PARAMS | {"store": [(KEY, True), (NEUTRAL, False)]},  # beside the base above
    "messages": MESSAGES_PARAMS | MESSAGES_BEYOND,
}


class Row(NamedTuple):
    """One change."""

    api: Api
    kind: str
    name: str
    value: Any


ROWS = [
    pytest.param(Row(api, kind, name, value), id=f"{api.name}-{name}-{at}")
    for api in APIS
    for name, cases in TABLES[api.name].items()
    for at, (kind, value) in enumerate(cases)
]


BETAS = "context-1m-2025-08-07", "token-efficient-tools-2025-02-19"


class Around(NamedTuple):
    """What else stands in a request, for these APIs."""

    apis: list[Api]
    kind: str
    query: str
    headers: dict[str, str]


AROUND = [
    Around(APIS, KEY, "?api-version=2026-10-01", {}),
    Around(APIS, KEY, "", {"authorization": "Bearer sk-other"}),
    Around(APIS, KEY, "", {"x-semcached-attributes": "plan=pro"}),
    Around(APIS, KEY, "", {"x-semcached-agent-type": "other"}),
    Around(APIS, "cache_control", "", {"cache-control": "no-cache"}),
    Around(APIS, "cache_control", "", {"cache-control": "no-store"}),
    Around(APIS, NEUTRAL, "", {"user-agent": "another"}),
    Around(APIS, NEUTRAL, "", {"x-stainless-retry-count": "2", "x-stainless-timeout": "600"}),
    Around(APIS, NEUTRAL, "", {"idempotency-key": "stainless-python-retry-1", "x-client-request-id": "1"}),
    Around(APIS, NEUTRAL, "", {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
    Around(APIS, NEUTRAL, "", {"x-semcached-ttl": "60", "x-semcached-tags": "a"}),
    Around([CHAT, RESPONSES], KEY, "", {"openai-organization": "org-1"}),
    Around([CHAT, RESPONSES], KEY, "", {"openai-project": "proj_1"}),
    Around([CHAT, RESPONSES], KEY, "", {"openai-beta": "assistants=v2"}),
    Around([CHAT, RESPONSES], KEY, "", {"api-key": "an Azure key"}),
    Around([MESSAGES], KEY, "?beta=true", {}),
    Around([MESSAGES], KEY, "", {"anthropic-version": "2023-06-01"}),
    Around([MESSAGES], KEY, "", {"anthropic-beta": BETAS[0]}),
    Around([MESSAGES], KEY, "", {"anthropic-beta": ",".join(BETAS)}),
    Around([MESSAGES], KEY, "", {"x-api-key": "sk-ant-other"}),
]


def base(api: Api, question: str) -> dict[str, Any]:
    """A request with a system prompt, or tools, that both tiers may answer."""
    body, more = api.asking(question), BASES[api.name]
    if api is CHAT:
        return body | {"messages": more["messages"] + body["messages"]}
    return body | more


def ask(
    http: httpx.Client, api: Api, body: Any, query: str = "", headers: Mapping[str, str] | None = None
) -> str:
    """What X-Cache says; of a hit whether it is this very request."""
    answer = http.post(api.path + query, json=body, headers=HEADERS | dict(headers or {}))
    said = answer.headers["x-cache"]
    if said == "HIT":
        assert answer.status_code == 200, answer.text
        return said if answer.headers["x-cache-similarity"] == "1.0000" else "SIMILAR"
    assert answer.status_code == 200 or said == "BYPASS", answer.text
    return str(said)


EXPECTED = {NEUTRAL: ["HIT", "HIT"], KEY: ["MISS", "HIT"]}


@pytest.mark.parametrize("row", ROWS)
def test_one_field(http: httpx.Client, provider: Provider, question: str, row: Row) -> None:
    provider.say(ANSWER)
    asked = base(row.api, question)
    changed = asked | {row.name: row.value}
    assert ask(http, row.api, asked) == "MISS"
    said = [ask(http, row.api, changed) for _ in range(2)]
    assert said == EXPECTED.get(row.kind, ["BYPASS"] * 2)
    assert ask(http, row.api, asked) == "HIT"  # as before
    assert provider.calls == 1 + 2 - said.count("HIT")


@pytest.mark.parametrize(
    ("api", "around"),
    [
        pytest.param(api, one, id=f"{api.name}-{'-'.join(one.headers) or one.query}-{at}")
        for at, one in enumerate(AROUND)
        for api in one.apis
    ],
)
def test_what_stands_around_the_body(
    http: httpx.Client, provider: Provider, question: str, api: Api, around: Around
) -> None:
    provider.say(ANSWER)
    asked = base(api, question)
    assert ask(http, api, asked) == "MISS"
    said = [ask(http, api, asked, around.query, around.headers) for _ in range(2)]
    assert said == EXPECTED.get(around.kind, ["BYPASS"] * 2)
    assert ask(http, api, asked) == "HIT"
    assert provider.calls == 1 + 2 - said.count("HIT")


def test_betas_are_a_set(http: httpx.Client, provider: Provider, question: str) -> None:
    provider.say(ANSWER)
    orders = [",".join(BETAS), ", ".join(reversed(BETAS))]
    asked = base(MESSAGES, question)
    said = [ask(http, MESSAGES, asked, headers={"anthropic-beta": one}) for one in orders]
    assert said == ["MISS", "HIT"]


def test_the_semantic_tier_is_on(http: httpx.Client, provider: Provider, api: Api) -> None:
    """Else the rows above would prove nothing of it."""
    provider.say(ANSWER)
    about = secrets.token_hex(4)
    asked, alike = (f"{how} do I reset the password of my {about} account?" for how in ("How", "Now how"))
    assert ask(http, api, base(api, asked)) == "MISS"
    assert ask(http, api, base(api, alike)) == "SIMILAR"
