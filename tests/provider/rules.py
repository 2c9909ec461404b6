"""What the providers' prompt caches do to usage, for a stub server. Not from the helpers' code.

A token is four characters of a block's JSON. An entry can be read once `usage` returned: the response began.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Literal, NamedTuple

Api = Literal["chat", "responses", "messages"]
Json = dict[str, Any]

SECONDS = {"5m": 300.0, "1h": 3600.0, "30m": 1800.0, "12h": 43200.0, "24h": 86400.0}
MARKS_AT_MOST = 4
LOOK_BACK = 20  # positions of blocks, a breakpoint's own the first
LATEST = 80  # breakpoints that OpenAI compares
STEP = 128  # tokens, before gpt-5.6
OPENAI_MINIMUM = 1024
UNKNOWN_MINIMUM = 1024
MINIMUMS = {
    512: ("claude-opus-5-5 claude-sonnet-5-5 claude-fable-5-1 claude-opus-5 claude-fable-5 claude-mythos-5 "
          "claude-haiku-5-5"),
    1024: "claude-sonnet-5 claude-opus-4-8 claude-sonnet-4-6 claude-sonnet-4-5",
    2048: "claude-opus-4-7",
    4096: "claude-opus-4-6 claude-opus-4-5 claude-haiku-4-5",
}  # fmt: skip
MINIMUM_OF = {model: tokens for tokens, models in MINIMUMS.items() for model in models.split()}
THINKING = {"thinking", "redacted_thinking"}
CHAT_PARTS = {"text", "image_url", "input_audio", "file"}
RESPONSES_PARTS = {"input_text", "input_image", "input_file"}


class Rejected(Exception):  # noqa: N818 - what the provider did
    """The provider's error: its status and its body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Block(NamedTuple):
    """A piece of the prompt that a prefix can end with."""

    level: str  # tools, system or messages
    role: str
    text: str  # canonical, without marks
    mark: Json | None
    ends_message: bool


class PromptCache:
    """One provider's memory of prefixes, by account."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._until: dict[str, tuple[float, float]] = {}  # prefix → (warm until, seconds of its TTL)

    def usage(self, api: Api, request: Json, output_tokens: int, account: str = "") -> Json:
        """What the answer's `usage` says of a request that is sent now.

        Raises:
            Rejected: a rule of the provider is broken.
        """
        if api == "messages":
            return self._messages(request, output_tokens, account)
        _check_openai(api, request)
        blocks = list(_openai_blocks(api, request))
        total = sum(map(_tokens, blocks))
        if has_breakpoints(str(request.get("model"))):
            cached = self._points(api, request, blocks, account)
        else:
            cached = self._steps(api, request, blocks, account), 0, 0
        return _openai_usage(api, total, output_tokens, cached)

    def _read(self, prefixes: list[tuple[int, str]]) -> int:
        """The longest that is warm, which is thereby kept warm; -1: none."""
        now = self._clock()
        for position, prefix in sorted(prefixes, reverse=True):
            until, ttl = self._until.get(prefix, (0.0, 0.0))
            if now < until:
                self._until[prefix] = (now + ttl, ttl)
                return position
        return -1

    def _write(self, prefix: str, ttl: str) -> None:
        now = self._clock()
        old, seconds = self._until.get(prefix, (0.0, 0.0))
        ttl_s = max(SECONDS[ttl], seconds if now < old else 0.0)
        self._until[prefix] = (now + ttl_s, ttl_s)

    def _messages(self, request: Json, output_tokens: int, account: str) -> Json:
        blocks = list(_anthropic_blocks(request))
        marks = _anthropic_marks(request, blocks)
        sizes = list(accumulate(map(_tokens, blocks)))
        chain = _chain([account, str(request.get("model"))], blocks, _message_level(request))
        minimum = MINIMUM_OF.get(_family(str(request.get("model"))), UNKNOWN_MINIMUM)
        seen = {at for mark in marks for at in range(max(0, mark - LOOK_BACK + 1), mark + 1)}
        hit = self._read([(at, chain[at]) for at in seen if sizes[at] >= minimum])
        kept = {at: ttl for at, ttl in marks.items() if sizes[at] >= minimum}
        for at, ttl in kept.items():
            self._write(chain[at], ttl)
        read = sizes[hit] if hit >= 0 else 0
        hour = max((sizes[at] for at, ttl in kept.items() if ttl == "1h"), default=0)
        last = max([read, *(sizes[at] for at in kept)])
        long = max(0, hour - read)
        total = sizes[-1] if sizes else 0
        return {
            "input_tokens": total - last,
            "cache_creation_input_tokens": last - read,
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": last - read - long,
                "ephemeral_1h_input_tokens": long,
            },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }

    def _points(self, api: Api, request: Json, blocks: list[Block], account: str) -> tuple[int, int, int]:
        """Tokens read, written, and those written for 12 hours: gpt-5.6 and later."""
        options = request.get("prompt_cache_options") or {}
        default = options.get("ttl") or "30m"
        explicit = [at for at, block in enumerate(blocks) if block.mark is not None]
        implicit = options.get("mode", "implicit") == "implicit"
        written = {at: (blocks[at].mark or {}).get("ttl", default) for at in explicit[-4 + implicit :]}
        if implicit and blocks:
            written.setdefault(len(blocks) - 1, default)
        sizes = list(accumulate(map(_tokens, blocks)))
        chain = _chain(_openai_seed(api, request, account), blocks)
        ends = [at for at, block in enumerate(blocks) if block.ends_message]  # where an implicit one was
        places = {*explicit[-LATEST:], *ends}
        asks = bool(explicit or implicit)
        hit = self._read([(at, chain[at]) for at in places if asks and sizes[at] >= OPENAI_MINIMUM])
        kept = {at: ttl for at, ttl in written.items() if sizes[at] >= OPENAI_MINIMUM}
        for at, ttl in kept.items():
            self._write(chain[at], ttl)
        read = sizes[hit] if hit >= 0 else 0
        last = max([read, *(sizes[at] for at in kept)])
        hours = max((sizes[at] for at, ttl in kept.items() if ttl == "12h"), default=0)
        return read, last - read, max(0, hours - read)

    def _steps(self, api: Api, request: Json, blocks: list[Block], account: str) -> int:
        """Tokens read, before gpt-5.6: any equal beginning, in steps of 128."""
        tokens = [
            f"{block.role} {block.text[at : at + 4]}"
            for block in blocks
            for at in range(0, len(block.text), 4)
        ]
        digest = hashlib.sha256(json.dumps(_openai_seed(api, request, account)).encode())
        prefixes = []
        for end in range(STEP, len(tokens) + 1, STEP):
            digest.update("\0".join(tokens[end - STEP : end]).encode())
            if end >= OPENAI_MINIMUM:
                prefixes.append((end, digest.hexdigest()))
        read = max(0, self._read(prefixes))
        for _, prefix in prefixes:
            self._write(prefix, "24h" if request.get("prompt_cache_retention") == "24h" else "5m")
        return read


def has_breakpoints(model: str) -> bool:
    """Whether it is gpt-5.6 or later."""
    version = re.match(r"gpt-(\d)(?:\.(\d+))?(?![\do])", model)
    return version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6)


def _family(model: str) -> str:
    return re.sub(r"-\d{8}$", "", model)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _tokens(block: Block) -> int:
    return -(-len(block.text) // 4)


def _chain(seed: list[str], blocks: list[Block], message_level: str = "") -> list[str]:
    digest = hashlib.sha256(json.dumps(seed).encode())
    chain, level = [], ""
    for block in blocks:
        if block.level == "messages" != level:
            digest.update(message_level.encode())
        level = block.level
        digest.update(f"\0{block.level}\0{block.role}\0{block.text}".encode())
        chain.append(digest.hexdigest())
    return chain


# Anthropic


def _anthropic_blocks(request: Json) -> Iterator[Block]:
    for tool in request.get("tools") or []:
        yield _anthropic_block("tools", "", tool)
    for block in _as_blocks(request.get("system")):
        yield _anthropic_block("system", "", block)
    for number, message in enumerate(request.get("messages") or []):
        if "cache_control" in message:
            raise _bad_anthropic(f"messages.{number}.cache_control: Extra inputs are not permitted")
        for block in _as_blocks(message.get("content")):
            yield _anthropic_block("messages", str(message.get("role")), block)


def _as_blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or [])


def _anthropic_block(level: str, role: str, block: Json) -> Block:
    if "prompt_cache_breakpoint" in block:
        raise _bad_anthropic(f"{level}: prompt_cache_breakpoint: Extra inputs are not permitted")
    mark = block.get("cache_control")
    if mark is not None and block.get("type") in THINKING:
        raise _bad_anthropic("cache_control: thinking blocks can't be marked")
    if mark is not None and block.get("type") == "text" and not block.get("text"):
        raise _bad_anthropic("cache_control cannot be set for empty text blocks")
    if mark is not None and (mark.get("type") != "ephemeral" or mark.get("ttl", "5m") not in ("5m", "1h")):
        raise _bad_anthropic(f"cache_control: {mark} is not known")
    return Block(level, role, _canonical(_bare(block)), mark or _nested(block), ends_message=False)


def _bare(block: Any) -> Any:
    """Without marks, those in a tool's result too."""
    if not isinstance(block, dict):
        return block
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    if isinstance(bare.get("content"), list):
        bare["content"] = [_bare(one) for one in bare["content"]]
    return bare


def _nested(block: Json) -> Json | None:
    content = block.get("content")
    inner = content if isinstance(content, list) else []
    marks = (one["cache_control"] for one in inner if isinstance(one, dict) and "cache_control" in one)
    return next(marks, None)


def _anthropic_marks(request: Json, blocks: list[Block]) -> dict[int, str]:
    marks = {at: block.mark.get("ttl", "5m") for at, block in enumerate(blocks) if block.mark is not None}
    automatic = request.get("cache_control")
    if len(marks) + (automatic is not None) > MARKS_AT_MOST:
        raise _bad_anthropic("A maximum of 4 blocks with cache_control may be provided.")
    if automatic is not None:
        at = max((at for at, block in enumerate(blocks) if _can_mark(block)), default=None)
        if at is not None:
            marks[at] = automatic.get("ttl", "5m")
    ttls = [marks[at] for at in sorted(marks)]
    if ttls != sorted(ttls):  # "1h" < "5m"
        raise _bad_anthropic("a ttl='1h' cache_control block must not come after a ttl='5m' one")
    return marks


def _can_mark(block: Block) -> bool:
    return '"type":"thinking"' not in block.text and '"type":"redacted_thinking"' not in block.text


def _message_level(request: Json) -> str:
    """What the cached messages depend on, but neither tools nor system do."""
    images = '"type":"image"' in _canonical(request.get("messages"))
    return _canonical([request.get("tool_choice"), request.get("thinking"), images])


def _bad_anthropic(message: str) -> Rejected:
    return Rejected(400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}})


# OpenAI


def _openai_blocks(api: Api, request: Json) -> Iterator[Block]:
    for tool in [*(request.get("tools") or []), *(request.get("functions") or [])]:
        yield Block("tools", "", _canonical(tool), None, ends_message=False)
    if api == "chat":
        for message in request.get("messages") or []:
            yield from _openai_message(message, "content", CHAT_PARTS, "text")
        return
    if request.get("instructions"):
        text = {"type": "input_text", "text": request["instructions"]}
        yield Block("messages", "developer", _canonical(text), None, ends_message=True)
    given = request.get("input")
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given or []:
        yield from _openai_message(
            item, "output" if "output" in item else "content", RESPONSES_PARTS, "input_text"
        )


def _openai_message(message: Json, name: str, parts: set[str], text: str) -> Iterator[Block]:
    role = str(message.get("role") or "")
    rest = {field: value for field, value in message.items() if field not in ("role", name)}
    if rest.get("type") == "message":
        del rest["type"]
    content = message.get(name)
    if isinstance(content, str):
        said = "output_text" if (role, text) == ("assistant", "input_text") else text
        content = [{"type": said, "text": content}]
    blocks = [_openai_part(role, part, parts) for part in content or []]
    if rest or not blocks:
        blocks.append(Block("messages", role, _canonical(rest), None, ends_message=False))
    yield from blocks[:-1]
    yield blocks[-1]._replace(ends_message=True)


def _openai_part(role: str, part: Json, parts: set[str]) -> Block:
    mark = part.get("prompt_cache_breakpoint")
    if mark is not None:
        if role == "assistant" or part.get("type") not in parts:
            raise _bad_openai("prompt_cache_breakpoint", "not supported on this content")
        if mark.get("mode") != "explicit" or mark.get("ttl", "30m") not in ("30m", "12h"):
            raise _bad_openai("prompt_cache_breakpoint", f"unknown value {mark}")
    bare = {name: value for name, value in part.items() if name != "prompt_cache_breakpoint"}
    return Block("messages", role, _canonical(bare), mark, ends_message=False)


def _check_openai(api: Api, request: Json) -> None:
    options = request.get("prompt_cache_options")
    new = has_breakpoints(str(request.get("model")))
    text = _canonical([request.get("tools"), request.get("messages"), request.get("input")])
    if not new and (options is not None or '"prompt_cache_breakpoint":' in text):
        raise _bad_openai("prompt_cache_options", "not supported with this model")
    if any("prompt_cache_breakpoint" in tool for tool in request.get("tools") or []):
        raise _bad_openai("tools", "unknown parameter: prompt_cache_breakpoint")
    if "cache_control" in request or '"cache_control":{"type":"ephemeral"' in text:
        raise _bad_openai("cache_control", "unknown parameter")
    if options is not None:
        _check_options(api, request, options)


def _check_options(api: Api, request: Json, options: Json) -> None:
    if options.get("mode", "implicit") not in ("implicit", "explicit"):
        raise _bad_openai("prompt_cache_options.mode", "unknown value")
    if options.get("ttl", "30m") not in (("30m",) if api == "chat" else ("30m", "12h")):
        raise _bad_openai("prompt_cache_options.ttl", "unknown value")
    if api == "chat" and "prewarm" in options:
        raise _bad_openai("prompt_cache_options.prewarm", "unknown parameter")
    if "ttl" in options and request.get("prompt_cache_retention") is not None:
        raise _bad_openai("prompt_cache_retention", "not together with prompt_cache_options.ttl")


def _openai_seed(api: Api, request: Json, account: str) -> list[str]:
    reasoning, text = request.get("reasoning") or {}, request.get("text") or {}
    names = ("model", "prompt_cache_key", "response_format", "reasoning_effort", "verbosity", "service_tier")
    return [
        account,
        api,
        *(_canonical(request.get(name)) for name in names),
        _canonical([reasoning.get("effort"), text.get("format"), text.get("verbosity")]),
    ]


def _openai_usage(api: Api, total: int, output: int, cached: tuple[int, int, int]) -> Json:
    read, written, long = cached
    if api == "chat":
        return {
            "prompt_tokens": total,
            "completion_tokens": output,
            "total_tokens": total + output,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
    return {
        "input_tokens": total,
        "input_tokens_details": {
            "cached_tokens": read,
            "cache_write_tokens": written,
            "cache_write_tokens_details": {"ttl_30m_tokens": written - long, "ttl_12h_tokens": long},
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": total + output,
    }


def _bad_openai(param: str, message: str) -> Rejected:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return Rejected(400, {"error": error})
