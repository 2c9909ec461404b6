"""What the model says, and in which pieces."""

import hashlib
import json
import re
import secrets

from tests.provider.counting import tokens
from tests.provider.script import Asked, Script

_WORD = re.compile(r"\s*\S+\s*|\s+")


def fresh(prefix: str) -> str:
    """An id as providers make them: another one each time."""
    return prefix + secrets.token_hex(12)


def said(asked: Asked, script: Script) -> str:
    """The whole text; the same for the same last message."""
    if script.text is not None:
        return script.text
    if script.calls:
        return ""
    mark = hashlib.sha256(asked.last.encode()).hexdigest()[:8]
    return f"You asked: {asked.last}\nThe answer has the number {mark}."


def pieces(text: str) -> list[str]:
    """Words with their spaces, which joined are the text."""
    return _WORD.findall(text)


def argument_pieces(arguments: object) -> list[str]:
    """JSON in pieces of nine characters."""
    text = json.dumps(arguments)
    return [text[at : at + 9] for at in range(0, len(text), 9)]


def told(asked: Asked, script: Script) -> tuple[str, bool]:
    """As much of the text as the limit of tokens allows; whether that is less than all."""
    text, names = said(asked, script), ("max_completion_tokens", "max_tokens", "max_output_tokens")
    limit = next((asked.body[name] for name in names if asked.body.get(name) is not None), None)
    if limit is None or tokens(text) <= limit:
        return text, False
    return text[: 4 * limit], True


def spoken(asked: Asked, script: Script) -> int:
    """Tokens of an answer."""
    text, _ = told(asked, script)
    calls = sum(tokens(call.name + json.dumps(call.arguments)) for call in script.calls)
    return tokens(text) + calls + tokens(script.thinking or "") + tokens(script.refusal or "")
