"""Digests and ids never change within a layout version: these vectors are the layout."""

import base64
import hmac
from typing import Any

import msgspec
import numpy as np
import pytest

from service.cache import canonical
from service.cache.canonical import Identity, Query
from service.cache.digests import DigestKey, Keyring, TenantKeys, partition_of
from service.errors import InvalidInputError
from service.model import LookupRequest, Tenant

KEYS = Keyring(b"test vector secret").of(Tenant("acme"))

FULL: dict[str, Any] = {
    "agent_type": "support",
    "prompt": "Where is my parcel?",
    "model": "gpt-6",
    "system": "Be brief.",
    "prompt_version": "v3",
    "temperature": 0.2,
    "attributes": {"lang": "en", "plan": "pro"},
    "params": {"top_p": 0.9, "stop": ["\n"]},
    "tools": [{"name": "track", "parameters": {"id": "string"}}],
    "context": ["doc-1", "doc-2"],
}


def query(fields: dict[str, Any], keys: TenantKeys = KEYS) -> Query:
    return canonical.query(msgspec.convert(fields, LookupRequest), keys, 384)


def identity(**fields: Any) -> Identity:
    return query({"agent_type": "support", **fields}).identities[0]


def messages(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_vectors() -> None:
    assert identity(prompt="hello") == Identity(
        entry_id="f0ca5f2690b301990cd88936fd4408fb",
        tenant="41191a31f0f519d92b7ec57d09ffc12a",
        agent_type="414e0bfca284afef375ced3878db77fa",
        scope="ed37776c8ff2fbff94cbe39fc1db8d44",
        history="c75d87eb6a5ff09ca81289d504f03ac0",
    )
    assert query(FULL).identities[0] == Identity(
        entry_id="ba6f157a08d408ab8165da09fd718cf5",
        tenant="41191a31f0f519d92b7ec57d09ffc12a",
        agent_type="414e0bfca284afef375ced3878db77fa",
        scope="43e16575435de30e2675a7142de2d706",
        history="c75d87eb6a5ff09ca81289d504f03ac0",
    )
    talk = messages(("system", "Be brief."), ("user", "hi"), ("assistant", "Hello!"), ("user", "And now?"))
    assert identity(messages=talk) == Identity(
        entry_id="6e9a34fffcc7bd165691563ac5d8672b",
        tenant="41191a31f0f519d92b7ec57d09ffc12a",
        agent_type="414e0bfca284afef375ced3878db77fa",
        scope="f0efc7c7239ce5e3254efdd1d0c9e73c",
        history="dd6ccb76329126dba996879eba81664b",
    )


def test_a_prompt_is_one_user_message() -> None:
    assert identity(prompt="hello") == identity(messages=messages(("user", "hello")))
    assert identity(prompt="hello") == identity(
        messages=messages(("user", [{"type": "text", "text": "hello"}]))
    )


def test_a_leading_system_message_is_the_system_prompt() -> None:
    talk = messages(("system", "Be brief."), ("user", "hello"))
    assert identity(messages=talk) == identity(system="Be brief.", prompt="hello")
    assert identity(messages=messages(("system", ""), ("user", "hello"))) == identity(
        system="", prompt="hello"
    )
    blocks = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert identity(messages=messages(("system", blocks), ("user", "hello"))) != identity(prompt="hello")


def test_a_system_message_that_is_more_than_text_counts_whole() -> None:
    def led_by(**more: Any) -> Identity:
        return identity(
            messages=[{"role": "system", "content": "s", **more}, {"role": "user", "content": "q"}]
        )

    all_of_them = [led_by(), led_by(name="bob"), led_by(tool_call_id="z"), led_by(tool_calls=[{"a": 1}])]
    assert len({one.entry_id for one in all_of_them}) == 4


@pytest.mark.parametrize(
    "same", [" hello\r\nworld ", "hello\nworld\t", "\u00a0hello\nworld"], ids=["crlf", "tab", "nbsp"]
)
def test_canonical_text_shares_an_id(same: str) -> None:
    assert identity(prompt=same).entry_id == identity(prompt="hello\nworld").entry_id


def test_nfc_and_nfd_share_an_id_as_text_but_not_as_names() -> None:
    assert identity(prompt="caf\u00e9") == identity(prompt="cafe\u0301")
    assert identity(prompt="x", model="caf\u00e9").scope != identity(prompt="x", model="cafe\u0301").scope


def test_inner_white_space_stays() -> None:
    assert identity(prompt="a  b").entry_id != identity(prompt="a b").entry_id


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("agent_type", "Support"),
        ("model", "gpt-6 "),
        ("model", None),
        ("system", "Be brief"),
        ("system", None),
        ("prompt_version", "v4"),
        ("attributes", {"lang": "en"}),
        ("attributes", {"lang": "pro", "plan": "en"}),
        ("params", {"top_p": 0.9}),
        ("params", {"top_p": 0.9, "stop": ["\\n"]}),
        ("tools", []),
        ("context", ["doc-2", "doc-1"]),
        ("context", "doc-1,doc-2"),
    ],
)
def test_every_part_of_the_scope_counts(field: str, other: Any) -> None:
    assert query(FULL | {field: other}).identities[0].scope != query(FULL).identities[0].scope


def test_only_one_text_block_is_its_text() -> None:
    def blocks(*texts: Any) -> Identity:
        return identity(messages=messages(("user", [{"type": "text", "text": text} for text in texts])))

    different = [blocks("room 1 ", "0"), blocks("room 1", "0"), blocks("room 10"), blocks("room 1 0")]
    different += [blocks([{"type": "text", "text": "p"}]), blocks("p", "q")]
    code = [{"type": "code", "text": "  x"}]
    different += [identity(messages=messages(("user", code))), identity(prompt="x"), identity(prompt="p")]
    assert len({one.entry_id for one in different}) == len(different)


def test_a_history_knows_what_came_after_the_question() -> None:
    said = identity(messages=messages(("assistant", "A"), ("user", "Q")))
    since = identity(messages=messages(("user", "Q"), ("assistant", "A")))
    assert said.history != since.history
    assert said.entry_id != since.entry_id


def test_key_order_does_not_count() -> None:
    turned = {name: FULL[name] for name in reversed(FULL)}
    turned["attributes"] = {"plan": "pro", "lang": "en"}
    turned["params"] = {"stop": ["\n"], "top_p": 0.9}
    assert query(turned).identities == query(FULL).identities


def test_temperature_and_history_are_in_the_id_and_not_in_the_scope() -> None:
    plain, warm = identity(prompt="hi"), identity(prompt="hi", temperature=1)
    talk = identity(messages=messages(("user", "a"), ("assistant", "b"), ("user", "hi")))
    assert plain.scope == warm.scope == talk.scope
    assert len({plain.entry_id, warm.entry_id, talk.entry_id}) == 3
    assert plain.history == warm.history != talk.history
    assert identity(prompt="hi", temperature=1.0) == warm


def test_tenants_and_secrets_share_nothing() -> None:
    other = query(FULL, Keyring(b"test vector secret").of(Tenant("Acme"))).identities[0]
    newer = query(FULL, Keyring(b"another vector secret").of(Tenant("acme"))).identities[0]
    ours = query(FULL).identities[0]
    assert not set(ours) & set(other)
    assert not set(ours) & set(newer)


def test_a_previous_secret_gives_a_second_identity() -> None:
    both = query(FULL, Keyring(b"new", b"test vector secret").of(Tenant("acme"))).identities
    assert len(both) == 2
    assert both[1] == query(FULL).identities[0]


def test_only_plain_text_at_the_end_is_embedded() -> None:
    image = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert query({"agent_type": "a", "prompt": " hi "}).text == " hi "
    assert query({"agent_type": "a", "messages": messages(("user", image))}).text is None
    after = messages(("user", "hi"), ("assistant", "calling"), ("tool", "42"))
    assert query({"agent_type": "a", "messages": after}).text is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": messages(("user", "b"))}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": messages(("assistant", "b"))}, "messages"),
        ({"messages": messages(("user", "  "))}, "messages"),
        ({"messages": messages(("user", []))}, "messages"),
        ({"messages": messages(("user", None))}, "messages"),
        ({"system": "a", "messages": messages(("system", "a"), ("user", "b"))}, "system"),
        ({"prompt": "a", "agent_type": "é" * 257}, "agent_type"),
        ({"prompt": "a", "model": "é" * 257}, "model"),
        ({"prompt": "a", "attributes": {"k": "é" * 257}}, "attributes"),
        ({"prompt": "a", "embedding": [0.0] * 384}, "embedding"),
        ({"prompt": "a", "embedding": [1.0] * 383}, "embedding"),
        ({"prompt": "a", "embedding": [1e300] * 384}, "embedding"),
        ({"prompt": "a", "embedding": "###"}, "embedding"),
        ({"prompt": "a", "embedding": base64.b64encode(b"12345").decode()}, "embedding"),
        ({"prompt": "a", "embedding": base64.b64encode(b"\xff" * 1536).decode()}, "embedding"),
    ],
)
def test_bad_input_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        query({"agent_type": "a", **fields})
    assert caught.value.field == field


def test_a_given_vector_is_normalised() -> None:
    values = np.arange(1, 385, dtype="<f4")
    as_list = query({"agent_type": "a", "prompt": "p", "embedding": values.tolist()}).vector
    as_text = query(
        {"agent_type": "a", "prompt": "p", "embedding": base64.b64encode(values.tobytes()).decode()}
    ).vector
    assert as_list is not None
    assert as_text is not None
    assert abs(float(as_list @ as_list) - 1) < 1e-6
    assert (as_list == as_text).all()


def test_partitions_are_spread_and_stable() -> None:
    assert {partition_of(Tenant(str(n)), 4) for n in range(100)} == {0, 1, 2, 3}
    assert partition_of(Tenant("acme"), 1024) == 941


@pytest.mark.parametrize("length", [0, 1, 55, 64, 1000])
def test_digests_are_hmac_sha256(length: int) -> None:
    key, data = DigestKey(b"test vector secret", "acme"), bytes(range(256)) * 4
    own = hmac.digest(b"test vector secret", b"tenant\0acme", "sha256")
    expected = hmac.digest(own, b"mac\0" + data[:length], "sha256")
    assert key.mac(data[:length]) == key.mac(data[: length // 2], data[length // 2 : length]) == expected
    assert key.digest("mac", data[:length]) == expected.hex()[:32]
    assert key.scope(data[:length]) == key.digest("scope", data[:length])
