"""What goes upstream with a request and what doesn't; what a client says in X-Semcached- headers."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.dialects.events import Event, Events, event
from service.errors import InvalidInputError
from service.proxy.account import Account, Provider, account, returned
from service.proxy.call import with_usage
from service.proxy.options import Options, options
from service.settings import Settings

SETTINGS = Settings(openai_upstream="https://openai.example/v1/", anthropic_upstream="https://a.example")
MANAGED = replace(SETTINGS, openai_upstream_key="managed-o", anthropic_upstream_key="managed-a")
TENANT = ("x-semcached-key", "sk-sc-tenant")
OURS, THEIRS = ("authorization", "Bearer sk-sc-tenant"), ("authorization", "Bearer sk-theirs")


def of(
    *headers: tuple[str, str], key: str | None, settings: Settings = SETTINGS, to: Provider = "openai"
) -> Account:
    return account(headers, key, to, settings)


def credentials(one: Account) -> list[tuple[str, str]]:
    return [(name, value) for name, value in one.headers if name in {"authorization", "x-api-key", "api-key"}]


def test_a_tenants_key_never_goes_upstream() -> None:
    cases = [
        of(OURS, key="authorization"),
        of(OURS, key="authorization", to="anthropic"),
        of(("x-api-key", "sk-sc-tenant"), key="x-api-key", to="anthropic"),
        of(TENANT, THEIRS, key="x-semcached-key"),
        of(OURS, ("x-api-key", "sk-sc-tenant"), key="authorization", to="anthropic"),
        of(OURS, ("x-api-key", "sk-sc-tenant"), key="authorization"),
        of(TENANT, OURS, key="x-semcached-key"),
        of(OURS, key="authorization", settings=MANAGED),
    ]
    for one in cases:
        assert not any("sk-sc-tenant" in value for _, value in one.headers)


@pytest.mark.parametrize(
    ("headers", "key", "settings", "to", "goes"),
    [
        ([THEIRS], None, SETTINGS, "openai", [THEIRS]),
        ([("authorization", "Bearer x")], None, MANAGED, "openai", [("authorization", "Bearer managed-o")]),
        ([OURS], "authorization", MANAGED, "openai", [("authorization", "Bearer managed-o")]),
        ([OURS], "authorization", MANAGED, "anthropic", [("x-api-key", "managed-a")]),
        ([TENANT], "x-semcached-key", MANAGED, "anthropic", [("x-api-key", "managed-a")]),
        ([TENANT, THEIRS], "x-semcached-key", MANAGED, "openai", [THEIRS]),
        ([TENANT, THEIRS], "x-semcached-key", SETTINGS, "openai", [THEIRS]),
        ([OURS, ("x-api-key", "p")], "authorization", MANAGED, "anthropic", [("x-api-key", "p")]),
        ([OURS], "authorization", SETTINGS, "openai", []),
    ],
)
def test_the_key_that_a_client_brings_goes_else_that_of_the_settings(
    headers: list[tuple[str, str]], key: str | None, settings: Settings, to: Provider, goes: list[Any]
) -> None:
    assert credentials(of(*headers, key=key, settings=settings, to=to)) == goes


def test_two_customers_of_a_provider_have_two_namespaces() -> None:
    organisation = ("openai-organization", "org")
    spaces = [
        of(TENANT, THEIRS, key="x-semcached-key"),
        of(TENANT, ("authorization", "Bearer sk-other"), key="x-semcached-key"),
        of(TENANT, THEIRS, organisation, key="x-semcached-key"),
        of(OURS, key="authorization", settings=MANAGED),
        of(OURS, key="authorization"),
        of(TENANT, THEIRS, key="x-semcached-key", settings=replace(SETTINGS, openai_upstream="http://b/v1")),
    ]
    digests = [msgspec.json.encode(one.namespace, order="sorted") for one in spaces]
    assert len(set(digests)) == len(digests)
    assert not any(b"sk-" in one for one in digests)


def test_what_is_for_us_or_for_the_connection_stays_here() -> None:
    one = of(
        *(("host", "us"), ("connection", "x-hop, close"), ("x-hop", "1"), ("content-length", "5")),
        *(("x-semcached-ttl", "5"), ("cookie", "a=b"), ("accept-encoding", "gzip"), ("x-stainless-os", "y")),
        key=None,
    )
    assert sorted(one.headers) == [("accept-encoding", "identity"), ("x-stainless-os", "y")]
    back = [("set-cookie", "a"), ("content-length", "5"), ("x-request-id", "r"), ("transfer-encoding", "c")]
    assert returned(back) == [("x-request-id", "r")]


def test_options() -> None:
    given = options(
        [
            ("x-semcached-agent-type", "caf%C3%A9"),
            ("x-semcached-attributes", "user=ann%26co&plan=pro"),
            ("x-semcached-threshold", "0.9"),
            ("x-semcached-tiers", "exact, semantic"),
            ("x-semcached-ttl", "none"),
            ("x-semcached-sources", "a%2Cb, c"),
            ("x-semcached-tags", "t"),
            ("x-semcached-key", "secret"),
        ]
    )
    assert given.agent_type == "café"
    assert given.attributes == {"user": "ann&co", "plan": "pro"}
    assert (given.threshold, given.tiers, given.ttl_s) == (0.9, ["exact", "semantic"], None)
    assert (given.sources, given.tags) == (["a,b", "c"], ["t"])
    assert options([("content-type", "x")]) == Options()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("treshold", "0.9"),
        ("threshold", "2"),
        ("threshold", "nan"),
        ("ttl", "0"),
        ("ttl", "-1"),
        ("ttl", "soon"),
        ("tiers", "memory"),
        ("agent-type", ""),
        ("agent-type", "%ff"),
        ("agent-type", "x" * 513),
        ("attributes", "user"),
        ("attributes", "a=1&a=2"),
        ("attributes", "=1"),
        ("attributes", "&".join(f"a{n}=1" for n in range(33))),
        ("tags", "a,,b"),
        ("sources", ",".join("abcdefgh" for _ in range(257))),
    ],
)
def test_a_wrong_option_names_its_header(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        options([("x-semcached-" + name, value)])
    assert error.value.field == "x-semcached-" + name


def test_usage_is_asked_for_and_all_else_stays_byte_for_byte() -> None:
    body = b'{ "seed":12345678901234567890123,"temperature":1.0e0, "messages":[{"content" :"\\u00e9"}]}'
    asked = with_usage(body)
    assert b'"seed":12345678901234567890123' in asked
    assert b"1.0e0" in asked
    assert b'[{"content" :"\\u00e9"}]' in asked
    assert json.loads(asked)["stream_options"] == {"include_usage": True}
    given = b'{"stream_options":{"include_obfuscation":false,"include_usage":false}}'
    assert json.loads(with_usage(given))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert json.loads(with_usage(b'{"stream_options":null}'))["stream_options"] == {"include_usage": True}


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from(["a", "message_stop"]),
            st.text(st.characters(exclude_categories=("Cs", "Cc"))),
        )
    ),
    st.integers(1, 7),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_events_are_the_same_however_a_stream_is_cut(
    told: list[tuple[str | None, str]], size: int, end: bytes
) -> None:
    raw = b"".join(event(json.dumps(text).encode(), name) for name, text in told).replace(b"\n", end)
    events, found = Events(), list[Event]()
    for at in range(0, len(raw), size):
        found += events.add(raw[at : at + size])
    assert b"".join(one.raw for one in found) + events.rest == raw
    assert [(one.name, json.loads(one.data)) for one in found] == told
    assert events.rest == b""
