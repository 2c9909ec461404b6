"""Where the helpers put what."""

import subprocess
import sys
import threading
from typing import Any

import anthropic as anthropic_sdk
import msgspec
import openai as openai_sdk
import pytest

from semcached import prompts
from semcached.prompts import Registry, anthropic, estimate, explain, openai, price, price_file, savings
from semcached.prompts.prefix import Prefix
from semcached.prompts.volatile import changes_with_calls
from tests.client.transcripts import Json, counted, words
from tests.provider.rules import MINIMUM_OF, PromptCache, has_breakpoints

STATIC, DOCUMENT, TENANT, NOW = (words(name, 6000) for name in ("static", "document", "tenant", "now"))
VOLATILITY: dict[str, prompts.Volatility] = {DOCUMENT: "document", TENANT: "tenant", NOW: "volatile"}
MARK = {"type": "ephemeral"}


def claude(*texts: str, messages: list[Json] | None = None, **fields: Any) -> Json:
    system = [{"type": "text", "text": text} for text in texts]
    said = messages or [{"role": "user", "content": "hi"}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 9, "system": system, "messages": said, **fields}


def test_orders_the_system_prompt_and_marks_where_each_level_ends() -> None:
    request = claude(TENANT, STATIC, DOCUMENT)
    sent = anthropic(request, volatility=VOLATILITY, ttl="1h")
    assert [block["text"] for block in sent["system"]] == [STATIC, DOCUMENT, TENANT]
    assert all(block["cache_control"] == {"type": "ephemeral", "ttl": "1h"} for block in sent["system"])
    assert sent["cache_control"] == MARK
    assert sent["messages"] is request["messages"]


def test_writes_nothing_behind_what_changes_with_every_call() -> None:
    sent = anthropic(claude(NOW, STATIC), volatility=VOLATILITY)
    assert [block["text"] for block in sent["system"]] == [STATIC, NOW]
    assert ["cache_control" in block for block in sent["system"]] == [True, False]
    assert "cache_control" not in sent
    chat: Json = {
        "model": "gpt-6-sol",
        "messages": [{"role": "system", "content": text} for text in (NOW, STATIC)],
    }
    marked = openai(chat, volatility=VOLATILITY)
    assert marked["prompt_cache_options"] == {"mode": "explicit"}
    assert marked["messages"][0]["content"][0]["text"] == STATIC
    assert marked["messages"][1] == chat["messages"][0]


def test_equal_sets_of_tools_become_equal_bytes() -> None:
    tools = [
        {"name": name, "description": "d", "input_schema": {"type": "object", "properties": {}}}
        for name in "cab"
    ]
    one, other = (anthropic(claude(tools=value))["tools"] for value in (tools, [*tools[1:], tools[0]]))
    assert msgspec.json.encode(one) == msgspec.json.encode(other)
    assert [tool["name"] for tool in one] == ["a", "b", "c"]
    assert anthropic(claude(tools=tools), sort_tools=False)["tools"] == tools


def test_inside_of_tools_nothing_moves() -> None:
    properties = {"reasoning": {"type": "string"}, "answer": {"type": "string"}}
    tool = {"name": "grade", "input_schema": {"type": "object", "properties": properties}}
    sent = anthropic(claude(tools=[tool]))["tools"][0]
    assert list(sent["input_schema"]["properties"]) == ["reasoning", "answer"]
    assert list(sent) == list(tool)


def test_tools_may_be_objects_of_an_sdk() -> None:
    tool = openai_sdk.types.chat.ChatCompletionMessage(role="assistant", content="not a dict")
    assert anthropic(claude(tools=[tool]))["tools"] == [tool]


def test_openai_sees_by_the_shape_which_api_it_is() -> None:
    request = {"model": "gpt-6-sol", "instructions": STATIC, "input": "hi"}
    assert openai(request) == openai(request, api="responses")
    assert "prompt_cache_breakpoint" in str(openai(request))


@pytest.mark.parametrize(
    ("source", "tokens"),
    [
        ({"type": "text", "media_type": "text/plain", "data": STATIC}, len(STATIC) // 4),
        ({"type": "content", "content": [{"type": "text", "text": STATIC}]}, len(STATIC) // 4),
        ({"type": "base64", "media_type": "application/pdf", "data": "A" * 90_000}, 1500),
        ({"type": "file", "file_id": "file_1"}, 1500),
    ],
)
def test_documents_count(source: Json, tokens: int) -> None:
    said = [{"role": "user", "content": [{"type": "document", "source": source}]}]
    size = Prefix(claude(messages=said), "messages", count=counted).sizes[-1]
    assert tokens <= size <= tokens + 100
    assert "cache_control" in str(anthropic(claude(messages=said)))


def test_pictures_count_little_and_arguments_whole() -> None:
    def size(*parts: Json) -> int:
        return Prefix(claude(messages=[{"role": "user", "content": list(parts)}]), "messages").sizes[-1]

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 90_000}}
    assert 85 <= size(image) < 150
    assert (
        85 <= size({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 90_000}}) < 150
    )
    assert 85 <= size({"type": "tool_result", "tool_use_id": "t", "content": [image]}) < 200
    assert size({"type": "input_audio", "input_audio": {"data": "A" * 90_000, "format": "wav"}}) < 150
    assert size({"type": "tool_use", "id": "t", "name": "a", "input": {"data": STATIC, "url": STATIC}}) > 2000


@pytest.mark.parametrize("model", ["gpt-35-turbo", "gpt-35-turbo-16k", "gpt-41-mini", "gpt-45-preview"])
def test_azures_names_are_no_new_models(model: str) -> None:
    chat = {"model": model, "messages": [{"role": "system", "content": STATIC}]}
    assert "prompt_cache_breakpoint" not in str(openai(chat))
    assert prompts.marked(chat, "chat") is chat


def test_skips_what_is_below_the_minimum_and_merges_it_into_the_next() -> None:
    short, long = words("short", 1000), words("long", 6000)
    request = claude(short, long)
    sent = anthropic(request, volatility={long: "document"})
    assert ["cache_control" in block for block in sent["system"]] == [False, True]
    assert "cache_control" not in str(anthropic(claude("short")))
    assert "cache_control" not in str(anthropic({**request, "model": "claude-opus-4-6"}))


def calls(number: int, count: int) -> list[Json]:
    ids = [f"t{number}_{call}" for call in range(count)]
    used = [{"type": "tool_use", "id": one, "name": "a", "input": {}} for one in ids]
    results = [{"type": "tool_result", "tool_use_id": one, "content": "x"} for one in ids]
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    return [{"role": "assistant", "content": [*used, thought]}, {"role": "user", "content": results}]


def test_a_long_turn_gets_more_breakpoints_than_its_end() -> None:
    history: list[Json] = [{"role": "user", "content": "go"}, *calls(0, 2)]
    provider = PromptCache(lambda: 0.0)
    provider.usage("messages", anthropic(claude(STATIC, messages=history)), 0)
    sent = anthropic(claude(STATIC, messages=[*history, *calls(1, 30)]))
    points = [point.at for point in Prefix(sent, "messages").points]
    assert points == [0, 6, 52, 67]
    usage = provider.usage("messages", sent, 0)
    assert usage["cache_read_input_tokens"] == Prefix(sent, "messages", count=counted).sizes[6]


def test_thinking_is_never_marked() -> None:
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    history = [*calls(0, 1), {"role": "assistant", "content": [{"type": "text", "text": "so"}, thought]}]
    sent = anthropic(claude(STATIC, messages=[{"role": "user", "content": "go"}, *history]))
    assert sent["messages"][-1]["content"] == [{"type": "text", "text": "so", "cache_control": MARK}, thought]


def test_a_callers_own_breakpoints_count() -> None:
    request = claude(*(words(str(n), 6000) for n in range(3)))
    for block in request["system"]:
        block["cache_control"] = MARK
    sent = anthropic(request, ttl="1h")
    assert sent["system"] == request["system"]
    assert sent["cache_control"] == MARK
    sent["messages"] = [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}]}]
    assert anthropic(sent) == sent


def test_longer_breakpoints_come_first_also_among_ones_that_were_there() -> None:
    request = claude(STATIC, DOCUMENT, TENANT)
    request["system"][1]["cache_control"] = MARK
    sent = anthropic(request, volatility=VOLATILITY, ttl="1h")
    PromptCache(lambda: 0.0).usage("messages", sent, 0)
    assert sent["system"][2]["cache_control"] == MARK
    with pytest.raises(ValueError, match="history_ttl"):
        anthropic(request, history_ttl="1h")
    with pytest.raises(ValueError, match="volatility: 'often'"):
        anthropic(claude(STATIC), volatility={STATIC: "often"})  # type: ignore[dict-item] # on purpose


def test_documents_of_the_first_message_end_with_a_breakpoint() -> None:
    content = [{"type": "text", "text": DOCUMENT}, {"type": "text", "text": "and?"}]
    sent = anthropic(
        claude(messages=[{"role": "user", "content": content}]), volatility=VOLATILITY, continues=False
    )
    assert ["cache_control" in part for part in sent["messages"][0]["content"]] == [True, False]
    chat: Json = {"model": "gpt-5.6-sol", "messages": [{"role": "user", "content": content}]}
    parts = openai(chat, volatility=VOLATILITY, continues=False)["messages"][0]["content"]
    assert ["prompt_cache_breakpoint" in part for part in parts] == [True, False]


def test_instructions_become_a_developer_message() -> None:
    request = {"model": "gpt-6-sol", "instructions": STATIC, "input": "hi"}
    sent = openai(request, api="responses", ttl="12h")
    mark = {"mode": "explicit", "ttl": "12h"}
    assert "instructions" not in sent
    assert [item["role"] for item in sent["input"]] == ["developer", "user"]
    assert sent["input"][0]["content"][0] == {
        "type": "input_text",
        "text": STATIC,
        "prompt_cache_breakpoint": mark,
    }
    chained = {**request, "previous_response_id": "resp_1"}
    assert openai(chained, api="responses")["instructions"] == STATIC
    assert openai({**request, "model": "gpt-5"}, api="responses")["instructions"] == STATIC
    assert prompts.marked(request, "responses")["instructions"] == STATIC
    with pytest.raises(ValueError, match="12h"):
        openai({"model": "gpt-6-sol", "messages": []}, ttl="12h")


def test_another_conversation_reads_the_static_part_of_new_models() -> None:
    def ask(text: str) -> Json:
        said = [{"role": "system", "content": STATIC}, {"role": "user", "content": text}]
        return {"model": "gpt-6-sol", "messages": said}

    def read(requests: list[Json]) -> int:
        provider = PromptCache(lambda: 0.0)
        usages = [provider.usage("chat", one, 0) for one in requests]
        return int(usages[-1]["prompt_tokens_details"]["cached_tokens"])

    asked = [ask("one"), ask("two")]
    assert read(asked) == 0
    assert read([openai(one) for one in asked]) > 1400


def test_in_explicit_mode_the_latest_input_is_marked_too() -> None:
    said = [
        {"role": role, "content": text}
        for role, text in (("system", STATIC), ("user", "hi"), ("assistant", "ho"))
    ]
    request = {"model": "gpt-6-sol", "prompt_cache_options": {"mode": "explicit"}, "messages": said}
    sent = openai(request)
    part = {"type": "text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert sent["messages"][1]["content"] == [part]
    assert sent["messages"][2] == said[2]
    assert openai(sent) == sent
    PromptCache(lambda: 0.0).usage("chat", sent, 0)


def test_no_lifetime_beside_a_retention() -> None:
    said = [{"role": "developer", "content": STATIC}, {"role": "user", "content": "hi"}]
    sent = openai(
        {"model": "gpt-6-sol", "prompt_cache_retention": "24h", "input": said}, api="responses", ttl="12h"
    )
    assert sent["input"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}


def test_the_key_is_of_model_and_static_part() -> None:
    def key(*, model: str = "gpt-6-sol", system: str = STATIC, said: str = "hi", **options: Any) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": said}]
        return str(openai({"model": model, "messages": messages}, **options)["prompt_cache_key"])

    assert key() == key(said="ho")
    assert (
        len({key(), key(model="gpt-5"), key(system=TENANT), key(shard="1"), key(shard="2"), key(version="7")})
        == 6
    )
    assert key(version="7", system=TENANT) == key(version="7")
    assert key(model="gpt-5") == key(model="gpt-5", system=TENANT)
    timed = [f"{STATIC} Current time: 10:00:{second:02}" for second in (1, 2)]
    assert key(system=timed[0]) == key(system=timed[1])
    tenants = [
        {
            "model": "gpt-6-sol",
            "messages": [{"role": "system", "content": STATIC}, {"role": "system", "content": one}],
        }
        for one in ("a", "b")
    ]
    assert (
        len({openai(one, volatility={"a": "tenant", "b": "tenant"})["prompt_cache_key"] for one in tenants})
        == 1
    )


def test_explains_what_is_not_cached_and_why() -> None:
    assert "below the minimum of 1024" in str(explain(claude("short", cache_control=MARK)))
    assert "no breakpoint" in str(explain(claude(STATIC)))
    behind = claude(STATIC, NOW)
    behind["system"][0]["cache_control"] = MARK
    assert "after the last breakpoint" in str(explain(behind))
    dated = explain(anthropic(claude("It is 2026-11-21T10:00:03Z. " + STATIC)))
    assert dated.warnings[0].startswith("system block 0: has a date with a time (2026-11-21T10:00")
    assert "isn't known" in str(explain(claude(STATIC, model="claude-next-9")))
    chat: Json = {"model": "gpt-6-sol", "messages": [{"role": "user", "content": STATIC}]}
    assert "another conversation" in str(explain(chat))
    assert "explicit mode" in str(explain({**chat, "prompt_cache_options": {"mode": "explicit"}}))


def test_savings_of_each_usage() -> None:
    said = savings(
        {
            "input_tokens": 1000,
            "cache_read_input_tokens": 10_000,
            "cache_creation_input_tokens": 3000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
            "output_tokens": 100,
        },
        "claude-opus-5-20260101",
    )
    assert said.full_usd == pytest.approx((14_000 * 5 + 100 * 25) / 1e6)
    assert said.paid_usd == pytest.approx(((1000 + 1000 + 1250 + 4000) * 5 + 100 * 25) / 1e6)
    details = {"cached_tokens": 1024, "cache_write_tokens": 0}
    chat = {"prompt_tokens": 2048, "completion_tokens": 10, "prompt_tokens_details": details}
    assert savings(chat, "gpt-4o").saved_usd == pytest.approx(1024 * 0.5 * 2.5 / 1e6)
    usage = openai_sdk.types.CompletionUsage(prompt_tokens=9, completion_tokens=1, total_tokens=10)
    assert savings(usage, "openai/gpt-4o").saved_usd == 0
    written = anthropic_sdk.types.Usage(input_tokens=0, output_tokens=0, cache_creation_input_tokens=1000)
    assert savings(written, "claude-opus-5").saved_usd == pytest.approx(-0.25 * 1000 * 5 / 1e6)
    with pytest.raises(prompts.UnknownModelError, match="gpt-99"):
        savings(chat, "gpt-99")
    with pytest.raises(ValueError, match="usage"):
        savings({"tokens": 1}, "gpt-4o")


def test_the_price_file_agrees_with_the_rules() -> None:
    for model, cost in price_file().models.items():
        if model.startswith("claude"):
            assert cost.write_5m
            assert cost.write_1h
            assert cost.minimum == MINIMUM_OF[model]
        else:
            assert cost.breakpoints == has_breakpoints(model) == (cost.write_30m is not None)
        assert 0 < cost.read < 1
        assert price(model) is cost


def test_a_prefix_is_warm_from_the_first_byte_until_its_ttl() -> None:
    now = [0.0]
    registry = Registry(clock=lambda: now[0])
    sent = anthropic(claude(STATIC, messages=[{"role": "user", "content": "one"}]), ttl="1h")
    other = anthropic(claude(STATIC, messages=[{"role": "user", "content": "two"}]), ttl="1h")
    sending = registry.sent(sent)
    assert registry.warm(sent) is None
    sending.begun()
    warm, shared = registry.warm(sent), registry.warm(other)
    assert warm is not None
    assert (warm.segment, warm.until, warm.ttl) == ("message 0", 300.0, "5m")
    assert shared is not None
    assert (shared.segment, shared.until) == ("system block 0", 3600.0)
    assert registry.warm(sent, account="another") is None
    now[0] = 3599.0
    registry.sent(other).begun()
    again = registry.warm(sent)
    assert again is not None
    assert again.until == 3599.0 + 3600.0


def test_the_registry_is_bounded_and_for_threads() -> None:
    registry = Registry(limit=20, clock=lambda: 0.0)
    requests = [anthropic(claude(STATIC, messages=[{"role": "user", "content": str(n)}])) for n in range(50)]

    def send() -> None:
        for one in requests:
            registry.sent(one).begun()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(registry) == 20
    assert registry.warm(requests[-1]) is not None
    with pytest.raises(ValueError, match="limit"):
        Registry(limit=0)


def test_a_lone_question_is_not_written_for_a_proxy() -> None:
    alone = prompts.marked(claude(STATIC), "messages")
    assert "cache_control" in str(alone["system"])
    assert "cache_control" not in alone
    chat = [{"role": role, "content": "hi"} for role in ("user", "assistant", "user")]
    assert prompts.marked(claude(STATIC, messages=chat), "messages")["system"] == alone["system"]
    assert "cache_control" not in prompts.marked(claude(STATIC, messages=chat), "messages")
    looped = prompts.marked(claude(STATIC, messages=[chat[0], *calls(0, 1)]), "messages")
    assert looped["messages"][-1]["content"][-1]["cache_control"] == MARK


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("Current time: 2026-11-21T10:00:03Z. Be kind.", True),
        ("It is now 10:00:03 in Berlin", True),
        ("<env>current_time: 2026-11-21 10:00</env> Be kind.", True),
        ('Be kind. {"current_time": "2026-11-21T10:00:03"}', True),
        ("Be kind.\n2026-11-21T10:00:03+00:00\n", True),
        ("[2026-11-21 10:00] Be kind.", True),
        ("Request 0f8e7a52-1111-4222-8333-444455556666: be kind.", True),
        ("Now is 1795255203, be kind.", True),
        ("Today is 2026-11-21. Be kind.", False),
        ('As {"created_at": "2024-05-11T08:28:51", "time": "06:00:00"} and so on. Be kind.', False),
        ("User 0f8e7a52-1111-4222-8333-444455556666 has a gold card. Be kind.", False),
        ("now" + " " * 200_000 + "x", False),
    ],
)
def test_what_says_that_it_changes(text: str, changes: bool) -> None:  # noqa: FBT001 - a case
    assert changes_with_calls(text) == changes


def test_marks_nothing_behind_a_time_and_moves_nothing() -> None:
    sent = prompts.marked(claude(STATIC, f"Current time: 10:00:03. {DOCUMENT}", TENANT), "messages")
    assert ["cache_control" in block for block in sent["system"]] == [True, False, False]
    assert sent["messages"] == claude()["messages"]


def test_estimates_lean_low() -> None:
    assert estimate("") == 0
    assert 80 <= estimate("The quick brown fox jumps over the lazy dog. " * 10) <= 100


def test_imports_neither_httpx_nor_an_sdk() -> None:
    heavy = "('httpx', 'openai', 'anthropic')"
    code = f"import sys, semcached.prompts; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
