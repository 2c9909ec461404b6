"""The same said of what is and of what is not."""

from service.cache.wording.contrast import Contrast, contrast
from service.cache.wording.words import Word, Wording, once, stem

NOT = frozenset("not never without nobody nothing neither nor no none nowhere hardly non".split())
LIKE_NOT = frozenset(
    stem(word)
    for word in (
        "unable fail fails failed failing failure trouble problem problems issue issues error errors "
        "refuse broken "
        "stop stuck lack deny denied avoid prevent reject declined wrong difficulty stopped missing free "
        "instead except rather only false"
    ).split()
)
"""Words that may say the same as a negation: with one of them, or without, nobody knows."""

AUXILIARIES = frozenset("is are was were do does did can could will would should has have had am".split())
PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "de", "des", "dés", "dé", "ent")
"""Also Spanish, French, German. What has one by chance (sign, design) is another word all the same."""

EXCHANGED = (("ver", "ent"), ("ein", "aus"), ("an", "ab"), ("в", "вы"), ("под", "от"))
"""Prefixes that turn a word where one takes the other's place: einschalten | ausschalten, вход | выход."""

SOFT_BEFORE = frozenset("why whether or if".split())
SOFT_AFTER = frozenset(
    "only just sure wait sorry actually rather longer later idea matter doubt really i sooner least".split()
)
NO_BEHIND = frozenset(
    "is are was were there have has had having with got get takes take by at in of for than".split()
)
"""Words behind which "no" denies; elsewhere it may answer, or repair what was said."""

ASKING = frozenset("who what when where why how which or rather the make wait".split())
KNOWING = frozenset("know understand remember see get want find think mind like".split())
LEAST_BASE = 4
LEAST_EXCHANGED = 3


def agree(a: Wording, b: Wording) -> bool:
    """Whether both deny, or neither does; True also where the rest isn't nearly the same."""
    difference = contrast(a, b)
    turned = len(_prefixed(difference))
    if a.repaired or b.repaired:
        return True
    said, other = denials(a), denials(b)
    if said is None or other is None or (said + other + turned) % 2 == 0:
        return True
    if (difference.only_a | difference.only_b) & LIKE_NOT:
        return True
    return not _close(difference)


def _close(difference: Contrast) -> bool:
    turned = {word for pair in _prefixed(difference) for word in pair}
    rest = difference.rest(*turned, *_NOT_STEMS)
    return rest == 0 or (rest == 1 and difference.shared >= 3)  # noqa: PLR2004 - measured


_NOT_STEMS = frozenset(map(stem, NOT))


def _prefixed(difference: Contrast) -> list[tuple[str, str]]:
    """Words of one text that the other has with a denying prefix: possible | impossible."""
    pairs = ((difference.only_a, difference.only_b), (difference.only_b, difference.only_a))
    return [
        (word, other)
        for mine, yours in pairs
        for word in mine
        for other in _opposites(word)
        if other in yours
    ]


def _opposites(word: str) -> set[str]:
    """What a word is the opposite of, by how it begins."""
    found = {
        known
        for prefix in PREFIXES
        if word.startswith(prefix) and len(word) - len(prefix) >= LEAST_BASE
        for known in (word.removeprefix(prefix), stem(word.removeprefix(prefix)))
    }
    return found | {
        other + word.removeprefix(prefix)
        for prefix, other in EXCHANGED
        if word.startswith(prefix) and len(word) - len(prefix) >= LEAST_EXCHANGED
    }


@once
def denials(text: Wording) -> int | None:
    """How often a text denies; None: nobody can say."""
    count = 0
    for at, word in enumerate(text.words):
        if word.fold in NOT and not (
            word.fold == "no" and at in {0, len(text.words) - 1}
        ):  # an answer, or a tag
            if _soft(text.words, at):
                return None
            count += 1
    return count


def _soft(words: tuple[Word, ...], at: int) -> bool:
    """Whether a "not" here needn't deny: "isn't there a way", "why not", "I don't know how"."""
    before = words[at - 1].fold if at else ""
    after = words[at + 1].fold if at + 1 < len(words) else ""
    if (
        before in SOFT_BEFORE
        or after in SOFT_AFTER
        or (after in KNOWING and before in {"do", "did", "could", "can"})
    ):
        return True
    if words[at].fold == "no" and (before not in NO_BEHIND or after in ASKING) and after != "one":
        return True
    return at == 1 and before in AUXILIARIES
