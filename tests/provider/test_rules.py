"""The simulator by itself: what the documentation says, case by case."""

from typing import Any

import pytest

from tests.provider.rules import Api, PromptCache, Rejected, has_breakpoints

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
POINT = {"mode": "explicit"}
LONG = "word " * 2000


def text(words: str, mark: Any = None) -> dict[str, Any]:
    return {"type": "text", "text": words, **({} if mark is None else {"cache_control": mark})}


def claude(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "model": "claude-opus-5",
        "system": [],
        "messages": [{"role": "user", "content": list(blocks)}],
        **fields,
    }


@pytest.mark.parametrize(
    ("api", "request_", "said"),
    [
        ("messages", claude(*(text(str(n), MARK) for n in range(5))), "maximum of 4"),
        ("messages", claude(*(text(str(n), MARK) for n in range(4)), cache_control=MARK), "maximum of 4"),
        ("messages", claude(text("a", MARK), text("b", HOUR)), "must not come after"),
        ("messages", claude({"type": "thinking", "thinking": "", "cache_control": MARK}), "thinking"),
        ("messages", claude(text("", MARK)), "empty text"),
        ("messages", claude(text("a", {"type": "ephemeral", "ttl": "2h"})), "not known"),
        ("messages", claude({**text("a"), "prompt_cache_breakpoint": POINT}), "Extra inputs"),
        ("messages", {"messages": [{"role": "user", "content": "a", "cache_control": MARK}]}, "Extra inputs"),
        ("chat", {"model": "gpt-5", "prompt_cache_options": POINT}, "not supported with this model"),
        ("chat", {"model": "gpt-6-sol", "tools": [{"prompt_cache_breakpoint": POINT}]}, "unknown parameter"),
        ("chat", {"model": "gpt-6-sol", "prompt_cache_options": {"ttl": "12h"}}, "unknown value"),
        ("chat", {"model": "gpt-6-sol", "prompt_cache_options": {"mode": "none"}}, "unknown value"),
        ("chat", {"model": "gpt-6-sol", "cache_control": MARK}, "unknown parameter"),
        (
            "chat",
            {
                "model": "gpt-6-sol",
                "messages": [
                    {"role": "assistant", "content": [{**text("a"), "prompt_cache_breakpoint": POINT}]}
                ],
            },
            "not supported on this content",
        ),
        (
            "responses",
            {"model": "gpt-6-sol", "prompt_cache_options": {"ttl": "30m"}, "prompt_cache_retention": "24h"},
            "not together",
        ),
    ],
)
def test_refuses(api: Api, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected, match=said) as refused:
        PromptCache(lambda: 0.0).usage(api, request_, 1)
    assert refused.value.status == 400
    assert refused.value.body["error"]["type"] == "invalid_request_error"


def test_writes_once_reads_for_five_minutes_and_reading_makes_it_longer() -> None:
    now = [0.0]
    cache = PromptCache(lambda: now[0])
    read = []
    for at in (0, 299, 598, 899, 899):
        now[0] = at
        read.append(
            cache.usage("messages", claude(text(LONG, MARK), text("?")), 1)["cache_read_input_tokens"] > 0
        )
    assert read == [False, True, True, False, True]


def test_hours_and_minutes_are_told_apart() -> None:
    usage = PromptCache(lambda: 0.0).usage(
        "messages", claude(text(LONG, HOUR), text(LONG, MARK), text("?")), 7
    )
    written = usage["cache_creation"]
    assert written["ephemeral_1h_input_tokens"] == written["ephemeral_5m_input_tokens"] > 2000
    assert usage["cache_creation_input_tokens"] == sum(written.values())
    assert 0 < usage["input_tokens"] < 20
    assert usage["output_tokens"] == 7


@pytest.mark.parametrize(("between", "reads"), [(18, True), (20, False)])
def test_looks_back_twenty_blocks(between: int, reads: bool) -> None:  # noqa: FBT001 - a case
    cache = PromptCache(lambda: 0.0)
    cache.usage("messages", claude(text(LONG, MARK)), 1)
    more = [text(str(number)) for number in range(between)]
    usage = cache.usage("messages", claude(text(LONG), *more, text("end", MARK)), 1)
    assert (usage["cache_read_input_tokens"] > 0) == reads


@pytest.mark.parametrize(
    ("change", "reads"),
    [
        ({"tools": [{"name": "other"}]}, 0),
        ({"model": "claude-opus-4-8"}, 0),
        ({"system": "other"}, 1),
        ({"tool_choice": {"type": "any"}}, 2),
        ({"thinking": {"type": "adaptive"}}, 2),
        ({"max_tokens": 0}, 3),
    ],
)
def test_what_takes_what_along(change: dict[str, Any], reads: int) -> None:
    cache = PromptCache(lambda: 0.0)
    tools = [{"name": "a", "description": LONG, "cache_control": MARK}]
    request = claude(text(LONG, MARK), tools=tools, system=[text(LONG, MARK)])
    cache.usage("messages", request, 1)
    assert round(cache.usage("messages", {**request, **change}, 1)["cache_read_input_tokens"] / 2500) == reads


def test_accounts_share_nothing() -> None:
    cache = PromptCache(lambda: 0.0)
    cache.usage("messages", claude(text(LONG, MARK)), 1, "one")
    assert cache.usage("messages", claude(text(LONG, MARK)), 1, "other")["cache_read_input_tokens"] == 0
    assert cache.usage("messages", claude(text(LONG, MARK)), 1, "one")["cache_read_input_tokens"] > 0


def chat(model: str, said: str, key: str = "k") -> dict[str, Any]:
    messages = [{"role": "system", "content": LONG}, {"role": "user", "content": said}]
    return {"model": model, "prompt_cache_key": key, "messages": messages}


@pytest.mark.parametrize(("model", "reads"), [("gpt-5.5", True), ("gpt-4o", True), ("gpt-5.6", False)])
def test_only_older_models_read_an_unmarked_beginning(model: str, reads: bool) -> None:  # noqa: FBT001 - a case
    cache = PromptCache(lambda: 0.0)
    cache.usage("chat", chat(model, "one"), 1)
    details = cache.usage("chat", chat(model, "two"), 1)["prompt_tokens_details"]
    assert (details["cached_tokens"] > 0) == reads
    assert reads == (details["cache_write_tokens"] == 0)
    assert not reads or details["cached_tokens"] % 128 == 0
    assert cache.usage("chat", chat(model, "two", "other"), 1)["prompt_tokens_details"]["cached_tokens"] == 0


def test_explicit_mode_without_breakpoints_caches_nothing() -> None:
    cache = PromptCache(lambda: 0.0)
    request = {"model": "gpt-6-sol", "input": LONG, "prompt_cache_options": POINT}
    said = [cache.usage("responses", request, 1)["input_tokens_details"] for _ in range(2)]
    assert [(one["cached_tokens"], one["cache_write_tokens"]) for one in said] == [(0, 0), (0, 0)]


def test_the_latest_breakpoints_are_written() -> None:
    def parts(count: int) -> dict[str, Any]:
        said = [
            {"type": "input_text", "text": LONG + str(n), "prompt_cache_breakpoint": POINT}
            for n in range(count)
        ]
        said.append({"type": "input_text", "text": f"{count}?"})
        return {"model": "gpt-6-sol", "input": [{"role": "user", "content": said}]}

    cache = PromptCache(lambda: 0.0)
    cache.usage("responses", parts(5), 1)
    read = [cache.usage("responses", parts(n), 1)["input_tokens_details"]["cached_tokens"] for n in (2, 3)]
    assert read[0] == 0
    assert read[1] > 7500


@pytest.mark.parametrize(
    ("model", "has"),
    [
        ("gpt-5.6", True),
        ("gpt-6-sol", True),
        ("gpt-35-turbo", False),
        ("gpt-41-mini", False),
        ("gpt-4o", False),
    ],
)
def test_which_models_have_breakpoints(model: str, has: bool) -> None:  # noqa: FBT001 - a case
    assert has_breakpoints(model) == has
