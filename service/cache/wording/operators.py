"""Signs that are said: comparisons, operators, a sign that a question is about."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from service.cache.wording.words import Wording, once

TAG = re.compile(r"</?[a-z][\w-]*+(?:\s[^<>=]*+=[^<>]*+)?\s*+/?>", re.IGNORECASE)
RUN = re.compile(r"[<>=!~^|&*+-]+")
ARROW = re.compile(r"<?-+>|=+>|<-+")
LETTER = re.compile(r"(?<![^\s(\"'`])[-\\%][A-Za-z](?![\w-])")
"""A flag or an escape: its letter's case tells it apart."""

GRADE = re.compile(r"(?<![^\s(\"'`])[A-Z]{1,2}([+-])(?![\w+-])")
SIGNS = frozenset("<>=!~^|&*+-\\%≤≥≠≈")
SAME = {
    "≤": "<=", "=<": "<=", "≥": ">=", "≠": "!=", "<>": "!=", "−": "-", "–": "-", "×": "*", "÷": "/", "¬": "!",
    "→": "->", "←": "<-", "⇒": "=>", "≈": "~",
}  # fmt: skip
WRAPPING = "\"'`‘’“”„«»()[]{}"
ENDING = ".,;:!?"
PUNCTUATION = frozenset(ENDING + "-/&$%#@°€£¥₹§_•·—\\")
"""Signs that are no operators, unless they are what is talked about."""

SPELT = frozenset({"-", "/", "%", "$", "&", "#", "@", "~", "*", "+", ".", "?", ":", "->", "=>"})
"""Signs in whose place there may be words, or nothing: they speak against another one only."""

BULLETS = frozenset({"*", "+", "-", ">", ">>", "|", "=", "~", "•", "***", "---", "===", "~~~"})
BEFORE = frozenset(
    "does do the a an and or between of use uses using with is are sign symbol operator".split()
)
AFTER = frozenset("mean means meaning operator operators symbol sign character vs versus".split())
"""Words beside which a sign is talked about: no sentence ends there."""

LINE = 4
"""Signs in a row from which they draw a line."""


def agree(a: Wording, b: Wording) -> bool:
    """Whether both have the same operators, or one has none."""
    one, other = operators(a), operators(b)
    if not one or not other or one == other:
        return True
    only_a, only_b = Counter(one) - Counter(other), Counter(other) - Counter(one)
    if not (only_a or only_b):  # in another order
        return [word.fold for word in a.words] != [word.fold for word in b.words]
    if only_a and only_b:
        return False
    return (only_a | only_b).keys() <= SPELT


@once
def operators(text: Wording) -> tuple[str, ...]:
    """The operators of a text, in order."""
    found: list[str] = []
    for line in TAG.sub(" ", unicodedata.normalize("NFKC", text.text)).splitlines():
        tokens = line.split()
        for at, token in enumerate(tokens):
            if not token.isalnum():
                inside = any(char.isalnum() for char in token)
                found += _inside(token) if inside else _alone(tokens, at)
    return tuple(found)


def _inside(token: str) -> Iterator[str]:
    """Operators among letters: `a!=b`, `>30`, `HEAD^`, `-r`."""
    if SIGNS.isdisjoint(token) or "://" in token or "@" in token:
        return
    for match in (*LETTER.finditer(token), *GRADE.finditer(token)):
        yield match.group(match.lastindex or 0)
    for sign in "≤≥≠≈":
        yield from [SAME[sign]] * token.count(sign)
    for match in RUN.finditer(token):
        run = match.group()
        left, right = match.start() > 0, match.end() < len(token)
        if len(run) > 1 and run[0] != "-" and right:
            run = run.rstrip("-") or run  # x>-5
        if not ARROW.fullmatch(run) and len(run) < LINE and _said(run, left=left, right=right):
            yield SAME.get(run, run)


def _said(run: str, *, left: bool, right: bool) -> bool:
    if set(run) & set("<>=^|~"):
        return True
    if run in {"&&", "++", "--"}:
        return left
    return left and right if set(run) <= {"*", "+"} else (run == "!" and right and not left)


def _alone(tokens: Sequence[str], at: int) -> Iterator[str]:
    """A token of signs: `!=`; `?` where it is talked about; `-` between numbers."""
    bare = tokens[at].strip(WRAPPING) or tokens[at].strip("\"'`‘’“”")
    before = _word(tokens[at - 1]) if at else ""
    after = _word(tokens[at + 1]) if at + 1 < len(tokens) else ""
    ends = not after or tokens[at + 1][:1].isupper()
    bare = bare.rstrip(ENDING if ends else ",;" if len(bare) > 1 else "").strip(WRAPPING) or bare
    sign = SAME.get(bare, bare)
    if not sign or len(sign) >= LINE:
        return
    if before in BEFORE or after in AFTER:
        yield sign
    elif sign in {"-", "/"}:
        if _counted(before) and _counted(after):
            yield sign
    elif not (at == 0 and sign in BULLETS) and not ARROW.fullmatch(sign) and _operator(sign):
        yield sign


def _word(token: str) -> str:
    return token.strip(WRAPPING + ENDING).casefold()


def _counted(token: str) -> bool:
    return len(token) == 1 or any(char.isdecimal() for char in token)


def _operator(sign: str) -> bool:
    if set(sign) <= PUNCTUATION:
        return len(sign) > 1 and not set(sign).isdisjoint("&$%@") and len(set(sign) & set("$%")) != len(sign)
    return sign not in {"!", "!!", "!!!"}
