"""Two texts as one input of a cross-encoder: pieces, and how each one's word is found in the other text."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CLS, SEP = 101, 102
ALONE, STEM, WORD, RUN, MARK = range(5)
"""A piece's word is not in the other text; its stem is; it is; so is the word before it; a mark of ours."""

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())}
_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", ""))
_SHORTEST_STEM = 3


class Side(NamedTuple):
    """One text: its pieces, the word that each belongs to, the words in lower case."""

    ids: list[int]
    word_of: list[int]
    words: list[str]


class Encoded(NamedTuple):
    """What the model reads, one number per piece."""

    ids: list[int]
    sides: list[int]
    flags: list[int]


def side(tokenizer: "Tokenizer", text: str) -> Side:
    """A text's pieces and words; once per text, however many others it is compared with."""
    found = tokenizer.encode(text, add_special_tokens=False)
    word_of = [at or 0 for at in found.word_ids]
    spans: dict[int, tuple[int, int]] = {}
    for at, (begin, end) in zip(word_of, found.offsets, strict=True):
        first, last = spans.get(at, (begin, end))
        spans[at] = (min(first, begin), max(last, end))
    words = [""] * (max(spans, default=-1) + 1)
    for at, (begin, end) in spans.items():
        words[at] = plain(text[begin:end])
    return Side(found.ids, word_of, words)


def encode(a: Side, b: Side) -> Encoded:
    """[CLS] a [SEP] b [SEP], as the model was trained to read them."""
    flags_a, flags_b = _flags(a, b), _flags(b, a)
    return Encoded(
        [CLS, *a.ids, SEP, *b.ids, SEP],
        [0] * (len(a.ids) + 2) + [1] * (len(b.ids) + 1),
        [MARK, *flags_a, MARK, *flags_b, MARK],
    )


def plain(word: str) -> str:
    """Lower case without marks over letters; small numbers in digits."""
    if not word.isascii():
        word = "".join(one for one in unicodedata.normalize("NFD", word) if unicodedata.category(one) != "Mn")
    word = word.lower()
    return NUMBER_WORDS.get(word, word)


def stem(word: str) -> str:
    """A word without its common endings."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word[: len(word) - len(ending)] + instead
    return word


def _flags(one: Side, other: Side) -> list[int]:
    words, stems = set(other.words), {stem(word) for word in other.words}
    runs = set(zip(_shifted(other.words), other.words, strict=True))
    by_word = []
    for before, word in zip(_shifted(one.words), one.words, strict=True):
        if word in words:
            by_word.append(RUN if (before, word) in runs else WORD)
        else:
            by_word.append(STEM if stem(word) in stems else ALONE)
    return [by_word[at] for at in one.word_of]


def _shifted(words: Sequence[str]) -> list[str]:
    return ["", *words[:-1]] if words else []
