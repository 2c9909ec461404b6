"""A text as words: the one tokenisation that all guards share."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Kind = Literal["word", "number", "code", "address", "sign"]

CHUNK = re.compile(
    r"(?<!\w)['’]\d\ds?(?!\w)"  # '21, '90s
    r"|(?:(?<![^\s(])[-−])?[^\W_]+(?:[.,:/@_'’&⁄+-]+[^\W_]+)*(?:\+\+|\#)?"
    r"|[$€£¥₹%°]"
)
PLAIN_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?|[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
MARKED_NUMBER = re.compile(
    r"\d{1,2}:\d\d(?::\d\d)?|\d+[/⁄]\d+|\d{1,4}([-/.])\d{1,2}\1\d{1,4}|\d+(?:\.\d+){2,}"
)
SUFFIXED = re.compile(r"([-−]?\d+(?:\.\d+)?)([a-zµ]+)", re.IGNORECASE)
RUN = re.compile(r"\d+|\D+")
"""Digits among letters of a script that needs no spaces."""

VERSION = re.compile(r"v(\d+(?:\.\d+)*)", re.IGNORECASE)
SUFFIXES = frozenset(
    "am pm st nd rd th s k m b bn mb gb tb kb km cm mm kg mg g l ml lb lbs oz mi ft h hr hrs min mins sec "
    "secs "
    "ms kwh kw w v mph kmh kph c f usd eur gbp inr jpy chf cad aud wk wks yr yrs d mo".split()
)
DOMAINS = frozenset("com org net io de dev ai co edu gov uk fr es it eu us app info".split())
SPELT_OTHERWISE = {
    "wwi": "ww1",
    "wwii": "ww2",
    "tv": "television",
    "dr": "doctor",
    "grey": "gray",
    "tonite": "tonight",
    "thru": "through",
}
NEGATED = {"can't": "can", "won't": "will", "shan't": "shall", "ain't": "is", "cannot": "can"}
BARE = {
    word.replace("'", ""): word
    for word in (
        "can't won't don't doesn't didn't isn't aren't wasn't weren't couldn't shouldn't wouldn't hasn't "
        "haven't "
        "hadn't what's who's where's how's when's that's it's i'm i've you're they're"
    ).split()
}
BARE["w/o"] = "without"


LONG = 40
"""Characters of a chunk that is no word of a language; such are not remembered."""

LONGEST = 400
"""Words that are compared; of those behind them, numbers, codes and addresses must be the same."""

REPAIRS = frozenset("um uh er erm wait sorry oops scratch".split())
"""Words of speech that takes back what was just said."""


class Word(NamedTuple):
    """One word: as written, folded (case only), and its stem."""

    raw: str
    fold: str
    stem: str
    kind: Kind


class Wording:
    """A text as words, and what was read from them so far."""

    __slots__ = ("cased", "counts", "known", "repaired", "stems", "tail", "text", "words")

    def __init__(self, text: str) -> None:
        chunks = CHUNK.findall(unicodedata.normalize("NFKC", text))
        words = tuple(word for chunk in chunks for word in (_words if len(chunk) < LONG else _read)(chunk))
        self.text = text
        self.words = words[:LONGEST]
        self.tail = sorted(word.fold for word in words[LONGEST:] if word.kind != "word")
        self.stems = frozenset(word.stem for word in self.words)
        self.counts = Counter(word.stem for word in self.words) if len(self.stems) < len(self.words) else None
        written = [word.raw for word in self.words if word.kind == "word"]
        self.cased = any(raw.islower() for raw in written)  # a text in capitals says nothing by them
        self.repaired = not REPAIRS.isdisjoint(word.fold for word in self.words)
        self.known: dict[Callable[..., object], Any] = {}


@lru_cache(64)
def wording(text: str) -> Wording:
    """The words of a text; a question is held against several candidates."""
    return Wording(text)


def once(read: Callable[[Wording], T]) -> Callable[[Wording], T]:
    """A reading that is made once per text."""

    def known(text: Wording) -> T:
        found = text.known.get(read)
        if found is None:
            found = text.known[read] = read(text)
        return found

    return known


def stem(word: str) -> str:
    """A word without its ending, crudely: only ever compared with another stem."""
    if not 3 < len(word) < LONG or not word.isascii():  # noqa: PLR2004 - nothing to cut
        return word
    for ending, put, least in (
        ("ies", "y", 5),
        ("ied", "y", 5),
        ("sses", "ss", 5),
        ("ing", "", 6),
        ("ed", "", 5),
        ("es", "", 5),
        ("s", "", 4),
    ):
        if word.endswith(ending) and len(word) >= least and not word.endswith(("ss", "us", "is", "eed")):
            word = word[: -len(ending)] + put
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":  # noqa: PLR2004 - letters
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word  # noqa: PLR2004 - letters


def _read(chunk: str) -> tuple[Word, ...]:
    return tuple(Word(raw, fold, stem(fold), kind) for raw, fold, kind in _folded(chunk))


_words = lru_cache(16384)(_read)


def _folded(chunk: str) -> list[tuple[str, str, Kind]]:
    found: list[tuple[str, str, Kind]] = []
    for raw in _parts(chunk):
        fold = SPELT_OTHERWISE.get(raw.casefold(), raw.casefold())
        kind: Kind = "word"
        if not raw.isalpha():
            kind = _kind(raw)
        found.append((raw, fold, kind))
    return found


def _kind(raw: str) -> Kind:
    if not any(char.isalnum() for char in raw):
        return "sign"
    if raw[-1].isdecimal() and not any(char.isalpha() for char in raw):
        return "number"
    if _address(raw):
        return "address"
    return "code" if any(char.isdigit() for char in raw) or raw[-1] in "+#" else "word"


def _parts(chunk: str) -> list[str]:  # noqa: C901, PLR0911 - one return per shape
    """A chunk between spaces as words: contractions, compounds, suffixed numbers."""
    lower = chunk.casefold().replace("’", "'")
    if lower in BARE:
        return _parts(BARE[lower])
    if lower in NEGATED:
        return [NEGATED[lower], "not"]
    if chunk.isalpha() or len(chunk) == 1 or _address(chunk):
        return [chunk]
    if chunk[0] in "'’":  # '21
        digits = chunk[1:3]
        return [("20" if digits < "40" else "19") + digits + chunk[3:]] if digits.isdecimal() else [chunk[1:]]
    if PLAIN_NUMBER.fullmatch(chunk) or MARKED_NUMBER.fullmatch(chunk):
        return [chunk.replace("−", "-")]
    if "." in chunk and all(len(part) == 1 and part.isalpha() for part in chunk.split(".")):
        return [chunk.replace(".", "")]
    if chunk[0] in "-−":
        return _parts(chunk[1:])
    if "'" in lower:
        return _contracted(chunk.replace("’", "'"))
    if any(char in chunk for char in ",:/@_&⁄-.+") and chunk[-1] not in "+#":
        return _compound(chunk)
    version = VERSION.fullmatch(chunk)
    if version:
        return [version.group(1)]
    suffixed = SUFFIXED.fullmatch(chunk)
    if suffixed and suffixed.group(2).casefold() in SUFFIXES and not _decade(chunk):
        return [suffixed.group(1), suffixed.group(2)]
    return [chunk] if chunk.isascii() else RUN.findall(chunk)


def _decade(chunk: str) -> bool:
    return chunk[-2:] in {"0s", "0S"}


def _contracted(chunk: str) -> list[str]:
    if chunk.casefold() == "o'clock":
        return ["oclock"]
    head, _, tail = chunk.rpartition("'")
    folded = tail.casefold()
    if folded == "t" and head[-1:].casefold() == "n":
        return [*_parts(head[:-1]), "not"] if len(head) > 1 else [head]
    if folded in {"s", "re", "ve", "ll", "d", "m"}:
        return [word for part in head.split("'") if part for word in _parts(part)]
    return [word for part in chunk.split("'") if part for word in _parts(part)]


def _compound(chunk: str) -> list[str]:
    lower = chunk.casefold()
    if lower in {"e-mail", "e-mails"}:
        return [chunk.replace("-", "")]
    digits = chunk.replace("-", "").replace(".", "")
    if digits.isdecimal() and len(digits) >= 7 and "," not in chunk:  # noqa: PLR2004 - a telephone's
        return [digits]
    if chunk[:1] in "vV" and VERSION.fullmatch(chunk):
        return [chunk[1:]]
    suffixed = SUFFIXED.fullmatch(chunk)
    if suffixed:
        return [suffixed.group(1), suffixed.group(2)]
    mark = next(char for char in ",:/@_&⁄-+." if char in chunk)
    return [word for part in chunk.split(mark) if part for word in _parts(part)]


def _address(chunk: str) -> bool:
    """A URL, an e-mail's address, a domain, a path."""
    if not any(mark in chunk for mark in ".@/"):
        return False
    if "://" in chunk or chunk.startswith("www."):
        return True
    if "@" in chunk:
        return "." in chunk.rpartition("@")[2]
    if not any(char.isalpha() for char in chunk):
        return False
    last = chunk.rpartition(".")[2]
    return chunk.count("/") > 1 or (last != chunk and last.casefold() in DOMAINS and "/" not in last)
