"""Requests of agents, turn after turn, for the three APIs."""

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st

from semcached.prompts.prefix import Api

Json = dict[str, Any]

MODELS: dict[Api, tuple[str, ...]] = {
    "messages": ("claude-sonnet-5-5", "claude-sonnet-4-5", "claude-opus-4-7", "claude-haiku-4-5"),
    "chat": ("gpt-6-sol", "gpt-5.6", "gpt-6.1-terra", "gpt-4.1", "gpt-5", "gpt-4o"),
    "responses": ("gpt-6-sol", "gpt-5.6-luna", "gpt-4.1"),
}


class Turn(NamedTuple):
    """What one request adds: the user's words, or the results of calls."""

    calls: int
    size: int  # characters of each text
    pause_s: float
    thinks: bool


class Transcript(NamedTuple):
    api: Api
    model: str
    tools: int
    tool_size: int
    system: tuple[int, ...]  # characters
    turns: tuple[Turn, ...]

    def requests(self) -> list[Json]:
        """Each begins with the one before it."""
        history: list[Json] = []
        said = []
        for number, turn in enumerate(self.turns):
            history = [*history, *_added(self.api, number, turn)]
            said.append(self._request(history))
        return said

    def _request(self, history: list[Json]) -> Json:
        tools = [_tool(self.api, number, self.tool_size) for number in reversed(range(self.tools))]
        texts = [words(f"rule {number}", size) for number, size in enumerate(self.system)]
        request: Json = {"model": self.model, **({"tools": tools} if tools else {})}
        if self.api == "messages":
            system = {"system": [{"type": "text", "text": text} for text in texts]} if texts else {}
            return {**request, "max_tokens": 100, **system, "messages": history}
        leading = [{"role": "system", "content": text} for text in texts]
        field = "messages" if self.api == "chat" else "input"
        return {**request, field: [*leading, *history]}


def words(seed: str, size: int) -> str:
    text = f"{seed} the quick brown fox said so, and it was written down. "
    return (text * (size // len(text) + 1))[: max(1, size)]


def _tool(api: Api, number: int, size: int) -> Json:
    name, about = f"tool_{number:02}", words(f"tool {number}", size)
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
    if api == "messages":
        return {"name": name, "description": about, "input_schema": schema}
    function: Json = {"name": name, "description": about, "parameters": schema}
    if api == "chat":
        return {"type": "function", "function": function}
    return {"type": "function", "strict": None, **function}


def _added(api: Api, number: int, turn: Turn) -> list[Json]:
    """An answer to the turn before, but for the first, and what comes back."""
    text = words(f"turn {number}", turn.size)
    if not number:
        return [{"role": "user", "content": text}]
    if not turn.calls:
        return [{"role": "assistant", "content": f"yes {number}"}, {"role": "user", "content": text}]
    ids = [f"call_{number}_{call}" for call in range(turn.calls)]
    if api == "messages":
        return _anthropic_calls(ids, text, thinks=turn.thinks)
    arguments = json.dumps({"a": number})
    if api == "chat":
        function = {"name": "tool_00", "arguments": arguments}
        calls = [{"id": one, "type": "function", "function": function} for one in ids]
        results = [{"role": "tool", "tool_call_id": one, "content": text} for one in ids]
        return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]
    called = [{"type": "function_call", "call_id": i, "name": "tool_00", "arguments": arguments} for i in ids]
    return [*called, *({"type": "function_call_output", "call_id": one, "output": text} for one in ids)]


def _anthropic_calls(ids: list[str], text: str, *, thinks: bool) -> list[Json]:
    thought = [{"type": "thinking", "thinking": "hm", "signature": "s"}] if thinks else []
    calls = [{"type": "tool_use", "id": one, "name": "tool_00", "input": {"a": 1}} for one in ids]
    results = [{"type": "tool_result", "tool_use_id": one, "content": text} for one in ids]
    return [{"role": "assistant", "content": [*thought, *calls]}, {"role": "user", "content": results}]


def counted(text: str) -> int:
    """As the rules count."""
    return -(-len(text) // 4)


TURNS = st.builds(
    Turn,
    calls=st.integers(0, 3) | st.sampled_from([12, 25]),
    size=st.integers(1, 3000),
    pause_s=st.floats(0, 290),
    thinks=st.booleans(),
)


@st.composite
def transcripts(draw: st.DrawFn, *apis: Api) -> Transcript:
    api = draw(st.sampled_from(apis or ("messages", "chat", "responses")))
    return Transcript(
        api=api,
        model=draw(st.sampled_from(MODELS[api])),
        tools=draw(st.integers(0, 5)),
        tool_size=draw(st.integers(10, 3000)),
        system=tuple(draw(st.lists(st.integers(1, 12_000), max_size=3))),
        turns=tuple(draw(st.lists(TURNS, min_size=1, max_size=7))),
    )
