"""What `marked` may cost at most, by the providers' rules, where nothing is gained."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcached.prompts import marked, openai, savings
from semcached.prompts.prefix import Api
from tests.client.transcripts import Json, Transcript, transcripts, words
from tests.provider.rules import PromptCache

LONG, NUMBERS = words("long", 12_000), range(20)
SAID = words("said", 6000)
TOOL: Json = {"name": "extract", "input_schema": {"type": "object"}}
FORCED: Json = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "extract"}}


def paid(api: Api, requests: list[Json], mark: Callable[[Json], Any]) -> float:
    """In dollars for input, a request every 20 seconds."""
    now = [0.0]
    provider = PromptCache(lambda: now[0])
    total = 0.0
    for request in requests:
        total += savings(provider.usage(api, mark(request), 0), request["model"]).paid_usd
        now[0] += 20
    return total


def alternating(*texts: str) -> list[Json]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def claude(messages: list[Json], **fields: Any) -> Json:
    return {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": messages, **fields}


def chat(number: int) -> list[Json]:
    return alternating(*(f"{at} {SAID}" for at in range(2 * number + 1)))


def loop(number: int) -> list[Json]:
    """A call of a tool and its result."""
    used = {"type": "tool_use", "id": f"t{number}", "name": "extract", "input": {}}
    result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": SAID}
    return [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]


def document(text: str) -> Json:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "source": source}


NOTHING_TO_GAIN: dict[str, list[Json]] = {
    "time ends system": [
        claude(chat(n), system=f"{LONG}\nCurrent time: 2026-11-21T10:00:{n:02}") for n in NUMBERS
    ],
    "time begins system": [claude(chat(n), system=f"Now: 10:00:{n:02}\n{LONG}") for n in NUMBERS],
    "forced tool": [claude(alternating(f"{n} {LONG}"), system="Extract.", **FORCED) for n in NUMBERS],
    "any tool": [
        claude(alternating(f"{n} {LONG}"), tools=[TOOL], tool_choice={"type": "any"}) for n in NUMBERS
    ],
    "examples": [claude(alternating("ex", "r", f"{n} {LONG}")) for n in NUMBERS],
    "prefilled": [claude(alternating(f"{n} {LONG}", "{"), tools=[TOOL]) for n in NUMBERS],
    "a document": [
        claude([{"role": "user", "content": [document(f"{n} {LONG}"), {"type": "text", "text": "?"}]}])
        for n in NUMBERS
    ],
    "window": [claude(alternating(*(f"{at} {SAID}" for at in range(2 * n, 2 * n + 7)))) for n in NUMBERS],
}
UNSEEN: dict[str, list[Json]] = {
    "name ends system": [claude(chat(0), system=f"{LONG}\nThe customer is Ann{n}") for n in NUMBERS],
    "loop without its beginning": [
        claude([*chat(0), *loop(n), *loop(n + 1), *loop(n + 2)], tools=[TOOL], system=f"{n}") for n in NUMBERS
    ],
}


@pytest.mark.parametrize("case", NOTHING_TO_GAIN)
def test_costs_nothing_where_nothing_is_gained(case: str) -> None:
    requests = NOTHING_TO_GAIN[case]
    bare = paid("messages", requests, lambda request: request)
    assert paid("messages", requests, lambda request: marked(request, "messages")) == pytest.approx(bare)


@pytest.mark.parametrize("case", UNSEEN)
def test_costs_a_quarter_more_at_most_where_it_cannot_see(case: str) -> None:
    requests = UNSEEN[case]
    bare = paid("messages", requests, lambda request: request)
    assert (
        bare < paid("messages", requests, lambda request: marked(request, "messages")) <= 1.25 * bare + 1e-9
    )


def test_plain_chats_are_read_up_to_their_messages() -> None:
    requests = [claude(chat(n), system=LONG) for n in NUMBERS]
    bare = paid("messages", requests, lambda request: request)
    assert paid("messages", requests, lambda request: marked(request, "messages")) < bare


CHANGING = [
    ["{long}\nCurrent time: 2026-11-21T10:00:{n:02}"],
    ["{long}\nThe customer is Ann{n}"],
    ["{long}", "Current time: 10:00:{n:02}"],
    ["{n}", "{long}"],
]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "gpt-6-sol"])
@pytest.mark.parametrize("texts", CHANGING)
def test_a_key_never_takes_away_what_openai_reads_by_itself(model: str, texts: list[str]) -> None:
    def request(n: int) -> Json:
        system = [{"role": "system", "content": text.format(long=LONG, n=n)} for text in texts]
        return {"model": model, "messages": [*system, {"role": "user", "content": "hi"}]}

    requests = [request(n) for n in NUMBERS]
    bare = paid("chat", requests, lambda request: request)
    assert paid("chat", requests, openai) <= bare + 1e-9
    assert paid("chat", requests, lambda request: marked(request, "chat")) <= bare + 1e-9


def test_a_key_takes_nothing_away_from_instructions_with_a_time() -> None:
    requests: list[Json] = [
        {"model": "gpt-5", "instructions": f"{LONG}\nNow 10:00:{n:02}", "input": "hi"} for n in NUMBERS
    ]
    bare = paid("responses", requests, lambda request: request)
    assert paid("responses", requests, openai) <= bare + 1e-9
    assert paid("responses", requests, lambda request: marked(request, "responses")) <= bare + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_bound_holds_for_any_requests(data: st.DataObject) -> None:
    """Of agents, in any order, their leading messages and tools dropped at random."""
    api: Api = data.draw(st.sampled_from(["messages", "chat", "responses"]))
    transcript: Transcript = data.draw(transcripts(api))
    field = "input" if api == "responses" else "messages"
    order = data.draw(st.lists(st.sampled_from(transcript.requests()), min_size=1, max_size=8))
    requests = [
        {**one, field: one[field][data.draw(st.integers(0, 2)) :][: data.draw(st.integers(1, 9))]}
        for one in order
    ]
    bare = paid(api, requests, lambda request: request)
    most = 1.25 if api == "messages" else 1.0
    assert paid(api, requests, lambda request: marked(request, api)) <= most * bare + 1e-9
