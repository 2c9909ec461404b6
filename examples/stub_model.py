"""What the stub provider says in the place of a model: from the request alone, as a model would.

It reads the system prompt, the last question and the tools' results after it, and remembers nothing.
"""

import json
import re
from typing import Any

from tests.provider.script import Asked, Call, Script


def model(asked: Asked) -> Script:
    """The next step."""
    if asked.api != "chat":
        return Script()
    messages = asked.body["messages"]
    results = _results(messages)
    return _after(results[-1]) if results else _first(asked.last, str(messages[0]["content"]))


def _results(messages: list[dict[str, Any]]) -> list[Any]:
    """What the tools answered since the last question."""
    last = max(at for at, one in enumerate(messages) if one["role"] == "user")
    return [json.loads(one["content"]) for one in messages[last:] if one["role"] == "tool"]


def _first(question: str, system: str) -> Script:
    """A tool where an order is named, a fact of the system prompt where one is, else the handbook."""
    text = question.lower()
    if number := re.search(r"\b\d{4}\b", text):
        tool = "create_return" if "return" in text else "get_order"
        return Script(calls=(Call(tool, {"number": int(number[0])}),))
    for line in system.splitlines():
        word, _, fact = line.partition(": ")
        if fact and word.lower() in text:
            return Script(text=fact[0].upper() + fact[1:])
    return Script(calls=(Call("search_docs", {"query": question}),))


def _after(result: Any) -> Script:
    """What to do with a result."""
    match result:
        case {"tracking": str(tracking)}:
            return Script(calls=(Call("track_parcel", {"tracking": tracking}),))
        case {"parcel": str(parcel), "place": str(place), "day": str(day)}:
            return Script(text=f"Parcel {parcel}: {place} ({day}).")
        case {"return": str(number), "label": str(label)}:
            return Script(text=f"Your return {number} is open. Here is its label: {label}")
        case [{"text": str(text)}, *_]:
            return Script(text=text)
    return Script(text=f"The tool said: {json.dumps(result)}")
