"""What the proxy asks of a provider's API; `chat.py`, `responses.py` and `messages.py` say it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from service.model import Tier

Body = dict[str, Any]
"""A request or an answer, decoded."""


class Reading(Struct, frozen=True, kw_only=True):
    """A provider's request, as the cache sees it."""

    streams: bool = False  # the client wants server-sent events
    usage_wanted: bool = True  # in a stream; False: an upstream that is asked for it must not tell the client
    bypass: str | None = None  # why it is neither looked up nor stored: a word for metrics
    fields: Body | None = None  # of `model.QueryFields`: model, system, messages, tools, params, temperature
    tiers: tuple[Tier, ...] = ()


class Spent(NamedTuple):
    """Tokens of an answer; what the provider read from, and wrote to, its prompt cache is part of `input`."""

    input: int
    output: int
    cached: int = 0
    written: int = 0


class Gathering(Protocol):
    """One stream on its way to the answer that the call would have brought without `stream`."""

    @property
    def ended(self) -> bool:
        """Whether the terminal event came."""

    def add(self, event: str | None, data: bytes) -> None:
        """One server-sent event. Never fails: what it can't read makes `answer` None."""

    def answer(self) -> Body | None:
        """The whole answer; None: it isn't whole, or had something in it that no replay would say again."""


class Dialect(Protocol):
    """One call of a provider's API."""

    @property
    def path(self) -> str:
        """As the provider has it, as `/v1/chat/completions`."""

    @property
    def provider(self) -> Literal["openai", "anthropic"]:
        """Whose API it is."""

    def read(self, body: Body, headers: Mapping[str, str]) -> Reading:
        """A request; header names are lower case. Never fails: what can't be read is bypassed."""

    def gathering(self) -> Gathering:
        """For the stream of an answer."""

    def is_whole(self, answer: Body) -> bool:
        """Whether it ended by itself: not cut short, filtered, refused or failed, and of a known shape."""

    def spent(self, answer: Body) -> Spent | None:
        """What it says that it took."""

    def addressed(self, answer: Body, body: Body) -> Body:
        """A kept answer as one to `body`: what the API repeats of neutral fields is that request's."""

    def replay(self, answer: Body, *, usage: bool) -> list[bytes]:
        """A whole answer as a stream: server-sent events with their blank lines, the terminal one last.

        Args:
            answer: as `gathering` or the provider brought it.
            usage: whether the client wants it told (chat completions' `include_usage`).
        """
