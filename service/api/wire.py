"""Bytes to Structs and back, and what /docs says about them.

Litestar would decode to dicts first, which loses the answer's own bytes and msgspec's field paths.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from litestar import Response
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, Operation, Parameter, RequestBody

from service.api.problems import Problem
from service.errors import InvalidInputError

T = TypeVar("T")

MAX_DEPTH = 64
PIECE = 2**16
LONGEST_NAME = 128  # of a field, in an error


class Each:
    """A batch's answers, for /docs: `items`, each of one of these kinds."""

    def __init__(self, *kinds: Any) -> None:
        self.kinds = kinds


_NAMED = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)
encode = msgspec.json.Encoder().encode
"""A Struct's JSON."""


def decoder(kind: type[T], max_depth: int = MAX_DEPTH) -> Callable[[bytes | msgspec.Raw], T]:
    """A function from JSON to `kind` that raises InvalidInputError naming the field."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(body: bytes | msgspec.Raw) -> T:
        if not body:
            raise InvalidInputError("body", "is empty")
        _check_depth(bytes(body), max_depth)
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidInputError("body", f"is no JSON: {error}") from None

    return decoded


def _check_depth(body: bytes, max_depth: int) -> None:
    """Bounded before decoding, so that nothing further in ever runs out of stack."""
    if is_too_deep(body, max_depth):
        raise InvalidInputError("body", f"is nested deeper than {max_depth}")


def is_too_deep(body: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Whether a JSON text is nested deeper than that."""
    return body.count(b"[") + body.count(b"{") > max_depth < _depth(body)


def _depth(body: bytes) -> int:
    """How deep a JSON text is nested; in arrays, because a body has up to 16 MiB, and piece by piece."""
    unescaped = np.frombuffer(body.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    deepest = depth = quotes = 0
    for at in range(0, len(unescaped), PIECE):
        chars = unescaped[at : at + PIECE]
        seen = quotes + np.cumsum(chars == ord('"'), dtype=np.int32)
        opened = (chars == ord("[")) | (chars == ord("{"))
        closed = (chars == ord("]")) | (chars == ord("}"))
        steps = (opened.astype(np.int8) - closed)[seen & 1 == 0]  # outside of strings
        depths = depth + np.cumsum(steps, dtype=np.int32)
        deepest = max(deepest, int(depths.max(initial=0)))
        depth, quotes = int(depths[-1]) if len(depths) else depth, int(seen[-1])
    return deepest


def _invalid(message: str) -> InvalidInputError:
    """Msgspec's words, as in "Expected `str`, got `int` - at `$.prompt`", taken apart."""
    text, _, at = message.rpartition(" - at `")
    if not text or not at.endswith("`"):
        text, at = message, ""
    path = at.removesuffix("`").removeprefix("key` in `").removeprefix("$").removeprefix(".")
    path = path.replace("[...]", "")  # msgspec doesn't say which key of a map
    named = _NAMED.match(text)
    if named:
        path = f"{path}.{named['name'][:LONGEST_NAME]}".lstrip(".")
        text = "is unknown" if "contains unknown" in text[:LONGEST_NAME] else "is required"
    return InvalidInputError(path[:LONGEST_NAME] or "body", text[:LONGEST_NAME])


def parameters(query_string: bytes, *names: str) -> dict[str, str]:
    """A request's query parameters, each given once at most; exact bytes, no replacement characters.

    Raises:
        InvalidInputError: one is none of `names`, is given twice, or is no UTF-8.
    """
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInputError("query", "must be percent-encoded UTF-8") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names or name in found:
            raise InvalidInputError(
                name[:LONGEST_NAME] or "query", "is given twice" if name in found else "is unknown"
            )
        found[name] = value
    return found


def encoded(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A JSON answer."""
    return Response(encode(content), status_code=status, headers=headers, media_type="application/json")


def documented(
    request: Any,
    answers: dict[int, Any],
    example: Any = None,
    parameters: Sequence[Parameter] = (),
    failure: Any = None,
) -> type[Operation]:
    """An OpenAPI operation with the schemas of msgspec types: the request's, and per status the answer's."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            self.parameters = list(parameters) or None
            if request is not None:
                body = OpenAPIMediaType(schema=_schema(request), example=example)
                self.request_body = RequestBody(content={"application/json": body}, required=True)
            answered = {
                str(status): OpenAPIResponse(description=_summary(kind), content=_content(kind))
                for status, kind in answers.items()
            }
            problem = {"application/problem+json": OpenAPIMediaType(schema=_schema(Problem))}
            failed = OpenAPIResponse(
                _summary(failure or Problem), content=_content(failure) if failure else problem
            )
            self.responses = {**answered, "default": failed}

    return Documented


def _content(kind: Any) -> dict[str, OpenAPIMediaType]:
    return {"application/json": OpenAPIMediaType(schema=_schema(kind))}


def _summary(kind: Any) -> str:
    """The first line of each type's docstring."""
    kinds = get_args(kind) or (kind.kinds if isinstance(kind, Each) else [kind])
    return " Or: ".join((one.__doc__ or "").split("\n")[0] for one in kinds)


def _schema(kind: Any) -> Any:
    """JSON Schema with its references put in place; OpenAPI 3.1 takes it as it is."""
    if isinstance(kind, Each):
        items = {"type": "array", "items": {"anyOf": [_schema(one) for one in kind.kinds]}}
        return {"type": "object", "properties": {"items": items}, "required": ["items"]}
    schema = msgspec.json.schema(kind)
    return _inlined(schema, schema.pop("$defs", {}))


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _inlined(definitions[part["$ref"].rsplit("/", 1)[1]], definitions)
        return {key: _inlined(value, definitions) for key, value in part.items() if key != "discriminator"}
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    return part
