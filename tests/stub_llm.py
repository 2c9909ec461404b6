"""An LLM's API on a real socket, chat completions or messages, that says what a test wants of it."""

import json
from collections.abc import Callable
from typing import Any

from tests.stub_openai import Mode, Reply, Stub

ENDS = {"openai": "stop", "anthropic": "end_turn"}
CUTS = {"openai": "length", "anthropic": "max_tokens"}


class LLM(Stub):
    """The server; requests are those of one provider's SDK."""

    def __init__(self, api: str) -> None:
        super().__init__()
        self.api = api
        self.mode = self.saying(lambda asked: f"{asked} (rewritten)")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" + ("/v1" if self.api == "openai" else "")

    def asked(self, body: dict[str, Any]) -> list[str]:
        return [body["messages"][-1]["content"]]

    def saying(self, rewrite: Callable[[str], str | None], end: str | None = None) -> Mode:
        """A rewriting of each last message."""
        return lambda data: self.answer(rewrite(json.loads(data[0])["last_user_message"]), end)

    def answer(self, said: str | None, end: str | None = None) -> Reply:
        end = end or ENDS[self.api]
        body: dict[str, Any]
        if self.api == "openai":
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": end}
            body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        else:
            blocks = [] if said is None else [{"type": "text", "text": said}]
            usage = {"input_tokens": 1, "output_tokens": 1}
            body = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": blocks}
            body |= {"stop_reason": end, "stop_sequence": None, "usage": usage}
        return Reply(json.dumps(body).encode())
