"""A request as its provider caches it: blocks in the order of the prefix, and where it may end."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from msgspec import json

from semcached.prompts.prices import breakpoints_of, minimum_of
from semcached.prompts.tokens import Counter, estimate

Api = Literal["messages", "chat", "responses"]
"""Anthropic's messages, OpenAI's chat completions, OpenAI's responses."""
Section = Literal["tools", "system", "messages"]
Ttl = Literal["5m", "1h", "30m", "12h", "24h"]
Request = Mapping[str, Any]
Path = tuple[str | int, ...]

MARKS_AT_MOST = 4
LOOK_BACK = 20
"""Positions that Anthropic looks at for an entry, the breakpoint's own the first."""
LATEST = 80
"""Breakpoints that OpenAI compares."""
STEP = 128
"""Tokens; OpenAI before gpt-5.6."""

_THINKING = ("thinking", "redacted_thinking")
SYSTEM_ROLES = ("system", "developer")
_MARKS = ("cache_control", "prompt_cache_breakpoint")
_PARTS = ("text", "image_url", "input_audio", "file", "input_text", "input_image", "input_file")

PICTURE = 85
"""Tokens at least: OpenAI's for `detail: low`. Anthropic's are width times height / 750, up to 1,568."""
FILE = 1500
"""Tokens at least: a PDF of one page has 1,500 to 3,000, says Anthropic's documentation."""
_ATTACHED = {
    "image": PICTURE,
    "image_url": PICTURE,
    "input_image": PICTURE,
    "document": FILE,
    "file": FILE,
    "input_file": FILE,
}
_WRITTEN = ("text", "content")  # sources of a document whose words are in the request
_ARGUMENTS = ("input", "arguments")


class _Place(NamedTuple):
    section: Section
    number: int  # of the tool, the system block, the message or the input item
    part: int | None  # of a message's content; None: the whole
    role: str
    path: Path  # in the request


class Block(NamedTuple):
    """A piece that a prefix can end with."""

    section: Section
    number: int
    part: int | None
    role: str
    path: Path
    value: Any  # without marks; a string is the text block that it stands for
    can_mark: bool
    mark: Mapping[str, Any] | None

    @property
    def text(self) -> str:
        """Its words, of a text block."""
        text = self.value.get("text") if isinstance(self.value, Mapping) else None
        return text if isinstance(text, str) else ""

    @property
    def name(self) -> str:
        """As a reader finds it."""
        if self.section == "tools":
            name = tool_name(self.value)
            return f"tool {self.number}" + (f": {name}" if name else "")
        word = "system block" if self.section == "system" else "message"
        part = "" if self.part is None else f", part {self.part}"
        return f"{word} {self.number}{part}"


class Point(NamedTuple):
    """A prefix that the provider writes."""

    at: int  # the block that it ends with
    ttl: Ttl
    automatic: bool = False


class Prefix:
    """What one request brings to its provider's cache."""

    def __init__(
        self,
        request: Request,
        api: Api,
        *,
        model: str | None = None,
        account: str = "",
        count: Counter = estimate,
    ) -> None:
        """`model` where the request doesn't say it; `account`: whose cache; `count` gets a block's JSON."""
        self.request = request
        self.api: Api = api
        self.model = model if model is not None else str(request.get("model") or "")
        self.blocks = list(_blocks(request, api))
        self._account = account
        self._count = count

    @property
    def minimum(self) -> int:
        """Tokens below which nothing is cached."""
        return minimum_of(self.model, self.api)

    @cached_property
    def has_breakpoints(self) -> bool:
        """Whether prefixes end at marks; else at any step (OpenAI before gpt-5.6)."""
        return self.api == "messages" or breakpoints_of(self.model)

    @cached_property
    def first(self) -> int:
        """The block with which a prefix has the minimum; their number, if none has. Counts no further."""
        tokens = 0
        for at, block in enumerate(self.blocks):
            tokens += self._tokens(block)
            if tokens >= self.minimum:
                return at
        return len(self.blocks)

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens up to and with each block."""
        return list(accumulate(map(self._tokens, self.blocks)))

    @cached_property
    def digests(self) -> list[bytes]:
        """Of everything up to and with each block, and of what else the provider compares."""
        layers = settings(self.request, self.api)
        state = hashlib.blake2b(
            canonical([self._account, self.api, self.model, layers["all"]]), digest_size=16
        )
        digests, section = [], ""
        for block in self.blocks:
            if block.section == "messages" != section:
                state.update(canonical(layers["messages"]))
            section = block.section
            state.update(canonical([section, block.role, block.value]))
            digests.append(state.digest())
        return digests

    @cached_property
    def marks(self) -> list[Point]:
        """What the request says itself, wherever it says it."""
        default = default_ttl(self.request, self.api)
        points = [
            Point(at, block.mark.get("ttl") or default)
            for at, block in enumerate(self.blocks)
            if block.mark is not None
        ]
        automatic = self.automatic
        return points if automatic is None else [*points, automatic]

    @property
    def automatic(self) -> Point | None:
        """The one that the provider places: Anthropic's by the request's `cache_control`, OpenAI's newest."""
        if not self.blocks or not self.has_breakpoints:
            return None
        if self.api != "messages":
            last = len(self.blocks) - 1
            ttl = default_ttl(self.request, self.api)
            return Point(last, ttl, automatic=True) if mode_of(self.request) == "implicit" else None
        control = self.request.get("cache_control")
        last = self.last_markable(len(self.blocks) - 1)
        if not isinstance(control, Mapping) or last < 0:
            return None
        return Point(last, control.get("ttl") or "5m", automatic=True)

    @cached_property
    def points(self) -> list[Point]:
        """What it writes, by position; OpenAI writes the latest. Those below the minimum are left out."""
        explicit = [point for point in self.marks if not point.automatic]
        if self.api != "messages":
            explicit = explicit[-(MARKS_AT_MOST - (self.automatic is not None)) :]
        points = {point.at: point for point in explicit}
        if self.automatic is not None:
            points.setdefault(self.automatic.at, self.automatic)
        return [points[at] for at in sorted(points) if at >= self.first]

    @cached_property
    def places(self) -> list[int]:
        """Blocks where the provider looks for what was written before; the longest first."""
        if not self.has_breakpoints:
            found = set(range(len(self.blocks)))
        elif self.api == "messages":
            found = {
                at for point in self.marks for at in range(max(0, point.at - LOOK_BACK + 1), point.at + 1)
            }
        elif not self.marks:
            found = set()
        else:
            explicit = [point.at for point in self.marks]
            found = {*explicit[-LATEST:], *self._message_ends()}  # an implicit one was at a message's end
        return sorted((at for at in found if at >= self.first), reverse=True)

    def last_markable(self, at: int, first: int = 0) -> int:
        """The latest block at or before `at`, from `first` on, that a mark may stand on; -1: none."""
        return next((place for place in range(at, first - 1, -1) if self.blocks[place].can_mark), -1)

    def _tokens(self, block: Block) -> int:
        words = canonical(_without_inline(block.value)).decode()
        return self._count(words) + _attached(block.value)

    def _message_ends(self) -> Iterator[int]:
        for at, block in enumerate(self.blocks):
            after = self.blocks[at + 1] if at + 1 < len(self.blocks) else None
            same = after is not None and after.path[:2] == block.path[:2]
            if block.path[0] != "tools" and not same:
                yield at


def settings(request: Request, api: Api) -> dict[Literal["all", "messages"], dict[str, Any]]:
    """What breaks a prefix though it is no block: of everything, or of the messages alone."""
    if api == "messages":
        choice = {name: request.get(name) for name in ("tool_choice", "thinking")}
        return {"all": {}, "messages": {**choice, "images": _has_images(request.get("messages"))}}
    names = ("prompt_cache_key", "service_tier")
    values = {name: request.get(name) for name in names}
    if api == "chat":
        values |= {
            "text format": request.get("response_format"),
            "reasoning effort": request.get("reasoning_effort"),
            "verbosity": request.get("verbosity"),
        }
    else:
        text, reasoning = _mapping(request.get("text")), _mapping(request.get("reasoning"))
        values |= {
            "text format": text.get("format"),
            "reasoning effort": reasoning.get("effort"),
            "verbosity": text.get("verbosity"),
        }
    return {"all": values, "messages": {}}


def api_of(request: Request, model: str | None = None) -> Api:
    """Which API a request is for, by its model and its shape."""
    name = model if model is not None else str(request.get("model") or "")
    if "claude" in name or "system" in request:
        return "messages"
    return openai_api_of(request)


def openai_api_of(request: Request) -> Literal["chat", "responses"]:
    """Which of OpenAI's, by its shape."""
    return "responses" if "input" in request or "instructions" in request else "chat"


def mode_of(request: Request) -> str:
    """OpenAI's: implicit or explicit."""
    return str(_mapping(request.get("prompt_cache_options")).get("mode") or "implicit")


def default_ttl(request: Request, api: Api) -> Ttl:
    """Of a mark that says none."""
    if api == "messages":
        return "5m"
    return _mapping(request.get("prompt_cache_options")).get("ttl") or "30m"


def tool_name(tool: Any) -> str:
    """Of a tool of any API; empty: it has none."""
    for holder in (tool, _mapping(tool).get("function")):
        name = _mapping(holder).get("name")
        if isinstance(name, str):
            return name
    return ""


def without_marks(value: Any) -> Any:
    """A block, a content list or a tool result without breakpoints; arguments of calls are left alone."""
    if isinstance(value, list):
        return [without_marks(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    bare = {name: one for name, one in value.items() if name not in _MARKS}
    for nested in ("content", "output"):
        if isinstance(bare.get(nested), list):
            bare[nested] = without_marks(bare[nested])
    return bare


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def canonical(value: Any) -> bytes:
    """JSON, its keys in order; of what is no JSON (a half of a surrogate pair, a number as key) its repr."""
    try:
        return json.encode(value, order="sorted", enc_hook=repr)
    except (TypeError, UnicodeEncodeError):
        return repr(value).encode()


def _without_inline(value: Any) -> Any:
    """Without base64, which isn't billed by its length; arguments of calls are, whatever they hold."""
    if isinstance(value, Mapping):
        return {
            key: one if key in _ARGUMENTS else "" if _is_inline(value, key, one) else _without_inline(one)
            for key, one in value.items()
        }
    return [_without_inline(one) for one in value] if isinstance(value, list) else value


def _is_inline(holder: Mapping[str, Any], key: Any, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    coded = holder.get("type") == "base64" or "format" in holder  # OpenAI's `input_audio` has a format
    return key == "file_data" or (key == "data" and coded) or (key != "text" and value.startswith("data:"))


def _attached(value: Any) -> int:
    """Tokens of pictures and files, whose words aren't there to be counted; those of a tool's result, too."""
    if not isinstance(value, Mapping):
        return sum(map(_attached, _sequence(value)))
    kind = value.get("type")
    here = _ATTACHED.get(kind, 0) if isinstance(kind, str) else 0
    if _mapping(value.get("source")).get("type") in _WRITTEN:
        here = 0
    return here + sum(_attached(value.get(name)) for name in ("content", "output"))


def _has_images(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("type") == "image" or _has_images(value.get("content"))
    return any(map(_has_images, _sequence(value)))


def _blocks(request: Request, api: Api) -> Iterator[Block]:
    for field in ("tools", "functions"):
        for index, tool in enumerate(_sequence(request.get(field))):
            yield _block(api, _Place("tools", index, None, "", (field, index)), tool)
    if api == "messages":
        yield from _content(api, _Place("system", 0, None, "", ("system",)), request.get("system"))
        yield from _messages(api, request.get("messages"), "messages")
    elif api == "chat":
        yield from _messages(api, request.get("messages"), "messages")
    else:
        yield from _responses(request)


def _responses(request: Request) -> Iterator[Block]:
    if request.get("instructions"):
        text = {"type": "input_text", "text": request["instructions"]}
        yield _block("responses", _Place("system", 0, None, "developer", ("instructions",)), text)
    given = request.get("input")
    if isinstance(given, str):
        yield from _content("responses", _Place("messages", 0, None, "user", ("input",)), given)
    else:
        yield from _messages("responses", given, "input")


def _messages(api: Api, messages: Any, field: str) -> Iterator[Block]:
    leading = api != "messages"
    for index, message in enumerate(_sequence(messages)):
        role = str(_mapping(message).get("role") or "")
        leading = leading and role in SYSTEM_ROLES
        place = _Place("system" if leading else "messages", index, None, role, (field, index))
        if not isinstance(message, Mapping):
            yield _block(api, place, message)
            continue
        name = "output" if "output" in message else "content"
        blocks = list(_content(api, place._replace(path=(field, index, name)), message.get(name)))
        yield from blocks
        rest = {key: one for key, one in message.items() if key not in ("role", name, *_MARKS)}
        if rest.get("type") == "message":
            del rest["type"]
        if not blocks or (rest and api != "messages"):
            yield _block(api, place, rest)


def _content(api: Api, place: _Place, content: Any) -> Iterator[Block]:
    if isinstance(content, str):
        yield _block(api, place, text_part(api, place.role, content))
        return
    for part, value in enumerate(_sequence(content)):
        number, of = (part, None) if place.path == ("system",) else (place.number, part)
        yield _block(api, place._replace(number=number, part=of, path=(*place.path, part)), value)


def text_part(api: Api, role: str, text: str) -> dict[str, Any]:
    """What a string content stands for."""
    kind = "text" if api != "responses" else "output_text" if role == "assistant" else "input_text"
    return {"type": kind, "text": text}


def _block(api: Api, place: _Place, value: Any) -> Block:
    can_mark = isinstance(value, Mapping) and _takes_mark(api, place, value)
    return Block(*place, value=without_marks(value), can_mark=can_mark, mark=_mark_of(value))


def _takes_mark(api: Api, place: _Place, value: Mapping[str, Any]) -> bool:
    kind = value.get("type")
    if api != "messages":
        return kind in _PARTS and place.role != "assistant" and place.path != ("instructions",)
    if place.section == "tools":
        return not value.get("defer_loading")  # it is no part of the prefix yet
    return isinstance(kind, str) and kind not in _THINKING and not (kind == "text" and not value.get("text"))


def _mark_of(value: Any) -> Mapping[str, Any] | None:
    """Its own, or one inside of a tool's result."""
    if not isinstance(value, Mapping):
        return None
    own = (value[name] for name in _MARKS if isinstance(value.get(name), Mapping))
    nested = (_mark_of(one) for one in _sequence(value.get("content")))
    return next(own, None) or next((mark for mark in nested if mark is not None), None)
