"""What is asked for: a time, a place, a person, a reason, an amount."""

from service.cache.wording.contrast import contrast
from service.cache.wording.words import Wording, once

WHAT = {
    **dict.fromkeys("time year date day month century decade hour weekday".split(), "when"),
    **dict.fromkeys("place city country location state town street region continent".split(), "where"),
    **dict.fromkeys("person people man woman actor actress author singer player president".split(), "who"),
    **dict.fromkeys("reason reasons cause causes".split(), "why"),
    **dict.fromkeys("price cost costs amount number percentage".split(), "amount"),
}
HOW = {
    "much": "amount", "many": "amount", "often": "often", "frequently": "often", "long": "long", "far": "far",
    "old": "old", "come": "why", "tall": "tall", "fast": "fast", "soon": "when",
    "expensive": "amount", "big": "big",
}  # fmt: skip
EXCLUSIVE = frozenset(
    frozenset(pair.split())
    for pair in (
            "when where", "when who", "when why", "when amount", "when often", "when far", "when old",
            "where who", "where why", "where amount", "where often", "where long", "where old",
            "who why", "who amount", "who often", "who long", "who far",
            "why amount", "why often", "why long", "why far", "why old", "amount often", "often long",
            "often far", "often old", "far old", "amount old", "amount far",
    )
)  # fmt: skip
AUXILIARIES = frozenset(
    "is are was were do does did can could will would should has have had am to might may".split()
)
LEADS = frozenset(
    "tell me know explain say and so in at on by from since for until of about to please hi hello show "
    "find out wonder wondering asking".split()
)
FAR = 4
"""Where the asking word stands at the latest, in words before it."""


def agree(a: Wording, b: Wording) -> bool:
    """Whether both don't ask for things that exclude each other about the same."""
    one, other = asked(a), asked(b)
    if a.repaired or b.repaired:
        return True
    if one is None or other is None or one == other or frozenset((one, other)) not in EXCLUSIVE:
        return True
    difference = contrast(a, b)
    return difference.rest() > max(1, difference.shared)


@once
def asked(text: Wording) -> str | None:
    """What a text asks for; None: nothing that excludes another, or several things."""
    found = {one for at in range(len(text.words)) for one in _asked(text, at)}
    return found.pop() if len(found) == 1 else None


def _asked(text: Wording, at: int) -> list[str]:
    words = text.words
    fold = words[at].fold
    if fold not in {"when", "where", "who", "whom", "why", "how", "what", "which"}:
        return []
    after = words[at + 1].fold if at + 1 < len(words) else ""
    if fold == "how":
        return [HOW.get(after, "manner")]
    if fold in {"what", "which"}:
        kind = WHAT.get(after)
        if kind is None and after in {"is", "was", "are"}:
            kind = next((WHAT[word.fold] for word in words[at + 2 : at + 4] if word.fold in WHAT), None)
        return [kind or "thing"]
    leads = at == 0 or (at <= FAR and words[at - 1].fold in LEADS)
    if fold in {"when", "where", "why"} and not leads:
        return ["other"] if after in AUXILIARIES else []
    if fold == "who":
        return ["who"] if leads else []
    return (
        ["who" if fold == "whom" else fold]
        if leads and (after in AUXILIARIES or at or fold == "why")
        else ["other"]
    )
