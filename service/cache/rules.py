"""Rules for events: what an event of a type invalidates, with templates for the event's data."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from service.cache.invalidation import Where, check
from service.cache.patterns import quoted
from service.errors import InvalidInputError
from service.model import Identifier

LONGEST = 8192  # bytes of a rule's `where`

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class RuleBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What an event invalidates."""

    event: Annotated[Identifier, Meta(description="The event's type.")]
    where: Annotated[
        Where, Meta(description="As of /v1/invalidate; strings may use {field} of the event's data.")
    ]


class Rule(Struct, frozen=True):
    """A rule with its name."""

    name: Annotated[str, Meta(description="Its name.")]
    event: Annotated[str, Meta(description="The event's type.")]
    where: Annotated[Where, Meta(description="What the event invalidates.")]


def check_rule(where: Where) -> None:
    """Whether a rule can fire.

    Raises:
        InvalidInputError: names the field.
    """
    if len(msgspec.json.encode(where)) > LONGEST:
        raise InvalidInputError("where", f"must have {LONGEST} bytes of JSON at most")
    check(_filled(where, lambda _: "x", "where"))


def filled(rule: Rule, data: Mapping[str, Any]) -> Where:
    """What an event of that data invalidates by the rule; fields that it doesn't name may be anything.

    Raises:
        InvalidInputError: names the field that the event lacks, or that is no string and no integer, or the
            rule's that doesn't take its value.
    """

    def value(name: str) -> str:
        if name not in data:
            raise InvalidInputError(f"data.{name}", f"is required by the rule {rule.name!r}")
        found = data[name]
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise InvalidInputError(
                f"data.{name}", f"must be a string or an integer for the rule {rule.name!r}"
            )
        return str(found)

    where = _filled(rule.where, value, f"rules.{rule.name}.where")
    check(where, f"rules.{rule.name}.where")
    return where


def _filled(where: Where, value: Callable[[str], str], field: str) -> Where:
    raw = msgspec.to_builtins(where)
    made = {name: _inner(one, value, f"{field}.{name}", name == "prompt_regex") for name, one in raw.items()}
    try:
        return msgspec.convert(made, Where)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$")
        raise InvalidInputError(field + at.rstrip("`"), text) from None


def _inner(part: Any, value: Callable[[str], str], field: str, is_pattern: bool) -> Any:  # noqa: FBT001 - private
    if isinstance(part, dict):
        return {name: _inner(one, value, f"{field}.{name}", is_pattern) for name, one in part.items()}
    if not isinstance(part, str):
        return part

    def put(found: re.Match[str]) -> str:
        if found[1] is not None:
            return quoted(value(found[1])) if is_pattern else value(found[1])
        if found[0] in ("{{", "}}"):
            return found[0][0]
        raise InvalidInputError(field, "has a lone brace: write {{ or }} for braces, {field} for a field")

    return _PARTS.sub(put, part)
