"""An LLM's API on a real socket, chat completions or messages, that says what a test wants of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.stub_openai import Mode, Reply, Stub, failure

ENDS = {"openai": "stop", "anthropic": "end_turn"}
CUTS = {"openai": "length", "anthropic": "max_tokens"}
BROKEN = ["429", "500", "400", "401", "redirect", "cut", "html", "no object", "deep", "empty", "nothing"]
BROKEN += ["to no end", "gone"]
"""How an LLM's API may fail, whatever it is asked."""


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

    def instruction(self) -> str:
        """What the last request told it to do."""
        body = self.requests[-1][1]
        told: str = body["messages"][0]["content"] if self.api == "openai" else body["system"]
        return told

    async def broken(self, how: str, said: str) -> None:
        """From now on it fails, where it would have said that."""
        odd = {
            "html": Reply(b"<html>log in</html>", headers={"Content-Type": "text/html"}),
            "no object": Reply(b"[1]"),
            "deep": Reply(b'{"x":' + b"[" * 100_000),
            "empty": Reply(b""),
            "redirect": Reply(b"", 307, {"Location": "/elsewhere"}),
            "cut": replace(self.answer(said), cut=9),
            "nothing": self.answer(None),
            "to no end": self.answer(said, CUTS[self.api]),
        }
        if how == "gone":
            await self.stop()
        else:
            self.mode = failure(int(how)) if how.isdigit() else lambda _: odd[how]

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
