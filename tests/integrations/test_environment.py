"""The SDKs told by the environment alone, and a request of the kind that Claude Code sends."""

import secrets
from typing import Any

import anthropic
import litellm
import openai
import pytest

from bench.processes import Served
from tests.provider.server import Provider
from tests.proxy.apis import plain

ASKED = "gpt-5.1"


@pytest.fixture(autouse=True)
def environment(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"http://127.0.0.1:{service.port}"
    told = {
        "OPENAI_BASE_URL": f"{root}/v1",
        "OPENAI_API_KEY": "sk-test",
        "ANTHROPIC_BASE_URL": root,
        "ANTHROPIC_AUTH_TOKEN": "sk-test",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def test_openai(provider: Provider, question: str) -> None:
    with openai.OpenAI(max_retries=0) as client:
        answers = [
            client.chat.completions.create(model=ASKED, messages=[{"role": "user", "content": question}])
            for _ in range(2)
        ]
    assert plain(answers[0]) == plain(answers[1])
    assert provider.calls == 1


def test_anthropic_with_what_differs_from_session_to_session(provider: Provider, question: str) -> None:
    """Marks for the prompt cache that move, another user id, another line of the bill: the same entry."""
    beta = ["claude-code-20250219", "interleaved-thinking-2025-05-14"]
    said: list[tuple[str, str]] = []
    with anthropic.Anthropic(max_retries=0) as client:
        for betas in (beta, beta[::-1]):
            text: dict[str, Any] = {"type": "text", "text": question}
            asking: dict[str, Any] = {
                "model": "claude-sonnet-5",
                "max_tokens": 500,
                "system": [
                    {"type": "text", "text": f"x-anthropic-billing-header: cch={secrets.token_hex(3)};"},
                    {"type": "text", "text": "You are an agent."},
                ],
                "messages": [{"role": "user", "content": [text]}],
                "metadata": {"user_id": f"user_1_session_{secrets.token_hex(8)}"},
                "betas": betas,
            }
            marked = asking["system"] if said else asking["messages"][0]["content"]
            marked[-1]["cache_control"] = {"type": "ephemeral"}
            with client.beta.messages.stream(**asking) as stream:
                said.append((stream.get_final_text(), stream.response.headers["x-cache"]))
    assert [x_cache for _, x_cache in said] == ["MISS", "HIT"]
    assert said[0][0] == said[1][0] != ""
    assert provider.calls == 1


def test_litellm_meets_what_the_sdk_asked(provider: Provider, question: str) -> None:
    """The environment tells it, too; and both send the same request."""
    messages: Any = [{"role": "user", "content": question}]
    with openai.OpenAI(max_retries=0) as client:
        made = client.chat.completions.create(model=ASKED, messages=messages)
    again: Any = litellm.completion(model=f"openai/{ASKED}", messages=messages, max_retries=0)
    assert again.choices[0].message.content == made.choices[0].message.content
    assert provider.calls == 1


def test_headers_for_the_cache(provider: Provider, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ANTHROPIC_CUSTOM_HEADERS`, one a line: what one agent_type was told the other isn't."""
    asking: Any = {
        "model": "claude-sonnet-5",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": question}],
    }
    said = []
    for headers in ("", "X-Semcached-Agent-Type: claude-code\nX-Semcached-Tiers: exact"):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", headers)
        with anthropic.Anthropic(max_retries=0) as client:
            raws = [client.messages.with_raw_response.create(**asking) for _ in range(2)]
        said += [raw.headers["x-cache"] for raw in raws]
    assert said == ["MISS", "HIT"] * 2
    assert provider.calls == 2
