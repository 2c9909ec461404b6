"""Whether a message means the same without what was said before it. docs/conversations.md has the figures.

Rules over words, for English. A message stands alone only where nothing in it speaks against that: a hit in
the wrong conversation is worse than none.
"""

import re
import unicodedata
from typing import NamedTuple

from service.cache import english

LONGEST = 1000
"""Characters. A longer message tells a story of its own, which rules don't follow."""

LONGEST_FAREWELL = 200
"""Characters."""

LONGEST_STANDING = 4000
"""Characters of an earlier message; in a longer one anything may be said."""

VAGUE = 2
"""How many more telling words a question after a part or a quality of something needs."""

MOST_WORDS = 60
"""Of a sentence."""

_SHORT = [
    (r"\bcan't\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"\bi'm\b", "i am"),
    (r"'(?:ve)\b", " have"),
    (r"'(?:re)\b", " are"),
    (r"'(?:ll)\b", " will"),
    (r"'(?:d)\b", " would"),
    (r"\b(what|who|where|when|why|how|it|that|there|he|she|here)'s\b", r"\1 is"),
    (r"'s\b", ""),
]
_GREETING = re.compile(
    r"^(?:(?:hi|hello|hey)(?: there)?|good (?:morning|afternoon|evening)|please)[,.! ]+", re.IGNORECASE
)
_POLITE = re.compile(
    r"^(?:(?:can|could|would|will) you |i (?:would like|want|need) you to )?(?:please |kindly )?"
    r"(?:(?P<about>tell me about|describe|define|explain(?: to me)?"
    r"|i (?:would like|want|need) to (?:know|learn) about)"
    r"(?! how| what| why| when| where| who| which)"
    r"|(?:tell me|let me know|explain(?: to me)?|i (?:would like|want|need) to know|do you know)"
    r"(?: if| whether)?) (?=\w)"
)
_EXPLETIVE = re.compile(
    r"\b(?:(?:is|was|be|would|will|does|did|can) it|it (?:is|was|will be|would be|does|takes?|costs?))"
    r"(?: (?:be|take|cost|make sense|hurt|help|really|usually|typically|normally|still))*"
    r"(?: (?:possible|impossible|legal|illegal|important|necessary|normal|safe|unsafe|worth|bad|good|best|"
    r"hard|difficult|easy|ok|okay|free|healthy|common|cold|warm|hot|expensive|dangerous|true|required|allowed|"
    r"wrong|rude|polite|smart|wise))?"
    r" (?:to|for|that) (?P<rest>.+)"
)
_NAME = re.compile(
    r"(?<=[\w,;:] )(?!I\b)[A-Z][\w&.-]*"  # a capital inside of a sentence
    r"|\b\d+[A-Za-z]\w*|\b[A-Z]+[A-Z\d]\w*"  # 2FA, CSV
)
_LEAVE = re.compile(
    r"\b(?:(?:thats|(?:that|this) (?:is|was|will be|would be))(?: just)? (?:all|everything)"
    r"(?: (?:that )?i (?:need|needed|want|wanted))?"
    r"|it is all(?= for (?:now|today)\b)"
    r"|(?:no|nope)(?: thanks| thank you)? (?:thats|that (?:is|will be|would be)) it"
    r"|(?:thanks|thank you)(?: (?:so|very) much| a lot)? (?:thats|that (?:is|will be|would be)) it"
    r"|(?:i )?do not need anything(?: else| more)?(?: right now| now)?"
    r"|nothing(?: else| more)|nothing(?= for now\b)|(?:i am |we are )all set(?: now)?"
    r"|(?:good ?)?bye|goodnight|have a (?:nice|good|great) (?:day|night|one)"
    r"|(?:thanks|thank you)(?: (?:so|very) much| a lot| a bunch| a million)? for"
    r" (?:helping(?: me)?|everything|(?:all )?(?:of )?(?:your |the )?(?:kind )?(?:help|assistance|time)|all)"
    r"|i (?:really )?appreciate (?:it|that|(?:all )?(?:your|the) (?:kind )?(?:help|assistance|time)))\b"
)
_BESIDE = re.compile(  # what may stand around it
    r"\b(?:no|nope|nothing|ok|okay|alright|great|awesome|i see|and|cheers"
    r"|not (?:now|right now|today|at the moment|at this time)|(?:for|at) (?:now|today|the moment)"
    r"|(?:thats|that (?:is|will be|would be)) it(?= for now\b)"
    r"|today|(?:thanks|thank you|thx)|(?:so|very) much|a (?:lot|bunch|million)|again"
    r"|(?:that is|you are|you have been|you were) (?:so |very )?(?:kind|helpful))\b"
)
_STANDING = re.compile(
    r"\b(?:from now on|from here on|always|never|for the rest of|in all (?:your|further) answers"
    r"|(?:answer|reply|respond|speak|write|talk|explain)(?: to me| everything| only| all \w+)*"
    r" (?:in|as if|like|as|with|without|briefly|shortly|only)"
    r"|act (?:as|like)|pretend|imagine|assume|suppose|you are (?:a|an|my|now)"
    r"|(?:i am|we are|my \w+ is) (?:\w+ )?(?:vegan|vegetarian|pregnant|diabetic|\d+|an?|the|in|from|on|using)"
    r"|allerg\w+|intolerant"
    r"|(?:i|we) (?:only |mostly |still )?(?:use|run|eat|drink|take|speak|live|work|own|drive)"
    r"|use (?:only )?[\w.+#-]+(?: \d[\w.]*)?(?: only| instead)?(?=[.!]?$)|no \w+ please)\b"
)
_FAREWELL = re.compile(r"[^\W\d_][\w\s.,;:!'-]*", re.ASCII)
"""Its characters: no question mark, nothing that words don't say."""


class Word(NamedTuple):
    """A word as it is compared, and whether it was written like a name or number."""

    text: str
    name: bool

    @property
    def tells(self) -> bool:
        """Whether it says something of what a message is about."""
        return self.name or (len(self.text) > 1 and self.text not in english.EMPTY)


def stands_alone(message: str) -> bool:
    """Whether the last message of a conversation means the same without what was said before."""
    if len(message) > LONGEST:
        return False
    if closes(message):
        return True
    text = _plain(message)
    return _is_english(text) and _whole(text)


def instructs(message: str | None) -> bool:
    """Whether an earlier message says how all later ones are to be answered, or for whom.

    None stands for a message that is more than text.
    """
    if message is None or len(message) > LONGEST_STANDING:
        return True
    return _STANDING.search(_plain(message).lower()) is not None


def points_first(message: str) -> bool:
    """Whether a pronoun stands before anything it could stand for: what no rewriting may leave."""
    for word in (word for one in _sentences(_plain(message)) for word in _read(one)):
        if word.text in english.PRONOUNS:
            return True
        if word.tells and word.text not in english.REPLIES:
            return False
    return False


def closes(message: str) -> bool:
    """Whether a message only takes leave, or thanks for help: any conversation may end so."""
    text = _plain(message[: LONGEST_FAREWELL + 1])
    if len(message) > LONGEST_FAREWELL or not _FAREWELL.fullmatch(text):
        return False
    rest, found = _LEAVE.subn(" ", " ".join(re.findall(r"\w+", text.lower())))
    return found > 0 and not _BESIDE.sub(" ", rest).strip()


def _plain(message: str) -> str:
    """NFC, straight apostrophes, single spaces, short forms written out; capitals stay."""
    text = unicodedata.normalize("NFC", message).replace("\u2019", "'")
    for short, long in _SHORT:
        text = re.sub(short, long, text, flags=re.IGNORECASE)
    return " ".join(text.split())


def _is_english(text: str) -> bool:
    """Whether it has words that only English has, and few letters that English hasn't."""
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    letters = [char for char in text if char.isalpha()]
    foreign = sum(not char.isascii() for char in letters)
    return bool(words & english.ENGLISH) and not words & english.OTHERS and foreign <= len(letters) / 10


def _whole(text: str) -> bool:
    """Whether each sentence stands alone, and one of them asks or tells enough."""
    read = [_read(one) for one in _sentences(_GREETING.sub("", text))]
    return (
        bool(read)
        and not any(_answers(words) or _points_back(words) or _lacks(words) for words in read)
        and any(_asks(words) for words in read)
    )


def _sentences(text: str) -> list[str]:
    return [one for one in re.split(r"(?<=[.?!])\s+", text) if re.search(r"\w", one)]


def _read(sentence: str) -> list[Word]:
    """The words of a sentence, without the politeness before them and expletive `it`s."""
    names = {name.lower().rstrip(".") for name in _NAME.findall(sentence)}
    lower = _POLITE.sub(lambda found: "what is " if found["about"] else "tell ", sentence.lower())
    found = _EXPLETIVE.search(lower)
    if found and len([word for word in re.findall(r"\w+", found["rest"]) if word not in english.EMPTY]) > 1:
        lower = f"{lower[: found.start()]} is {found['rest']}"
    return [Word(word, word in names) for word in re.findall(r"\w+(?:[-.&]\w+)*", lower)]


def _answers(words: list[Word]) -> bool:
    """Whether it begins as an answer, or as what goes on: "No, …", "And …", "What about …"."""
    first, second = _opening(words)
    goes_on = first in {"what", "how"} and second in {"about", "if", "come", "else"}
    return goes_on or first in english.REPLIES


def _opening(words: list[Word]) -> tuple[str, str]:
    first, second, *_ = [*(word.text for word in words[:2]), "", ""]
    return first, second


def _points_back(words: list[Word]) -> bool:
    """Whether a word points at what isn't in the sentence: a pronoun, a comparison of one side, a "the …"."""
    texts = [word.text for word in words]
    return (
        len(words) > MOST_WORDS
        or not english.BACK.isdisjoint(texts)
        or ("than" not in texts and not english.COMPARED.isdisjoint(texts))
        or ("my" in texts and not _asks_how(texts))
        or any(_points(texts, at) for at in range(len(texts)))
        or any(word == "that" and not _is_relative(words, at) for at, word in enumerate(texts))
        or any(word in {"the", "all"} and not _is_told(words, at) for at, word in enumerate(texts))
    )


def _points(texts: list[str], at: int) -> bool:
    """Whether a word points back by its place."""
    word, before = texts[at], texts[at - 1] if at else ""
    after = texts[at + 1] if at + 1 < len(texts) else ""
    return (
        (word == "one" and (not after or after in english.EMPTY))
        or (word == "there" and english.AUXILIARY.isdisjoint({before, after}))
        or (word in {"any", "some", "each"} and (not after or after in english.PLAIN | english.AUXILIARY))
        or (word in english.TALK and before in {"you", "we", "i", "just"})
        or (word in english.SIDES and english.SIDES_OF.isdisjoint(texts[at:]))
        or (word in {"such", "too"} and after not in {"as", "much", "many"})
        or (word in {"similar", "different"} and not after)
    )


def _is_relative(words: list[Word], at: int) -> bool:
    """Whether a "that" belongs to the noun before it, as in "plants that are toxic"."""
    after = words[at + 1].text if at + 1 < len(words) else ""
    return _tells(words, at - 1) and after in english.RELATIVE


def _asks_how(texts: list[str]) -> bool:
    """Whether "my password" is anybody's: in "how do I …" and "what if …", not in "what is my …"."""
    how = texts[0] == "how" and texts[1] in {"do", "can", "could", "should", "would", "to"}
    return how or not {"if", "when"}.isdisjoint(texts[: texts.index("my")])


def _tells(words: list[Word], at: int) -> bool:
    return 0 <= at < len(words) and words[at].tells


def _is_told(words: list[Word], at: int) -> bool:
    """Whether "the …" says which: by a name, a complement, or because there is one only."""
    end = at + 1
    while end < len(words) and (words[end].tells or words[end].text in english.QUALITIES | english.PARTS):
        end += 1
    noun = words[at + 1 : end]
    if noun and (noun[-1].text in english.UNIQUE or _is_named(words[0], noun)):
        return True
    return bool(noun) and _is_completed(words, end)


def _is_named(first: Word, noun: list[Word]) -> bool:
    """As in "How do I pair the Pixel app?" says which; "What are the EU rules?" leaves open about what."""
    return noun[0].name and first.text not in english.LISTING and noun[-1].text not in english.PARTS


def _is_completed(words: list[Word], at: int) -> bool:
    """Whether a complement follows there: "… of the Bronze Age", "… between sleet and hail"."""
    if at >= len(words) or words[at].text not in english.COMPLEMENT:
        return False
    return any(word.tells for word in words[at + 1 : at + 6])


def _lacks(words: list[Word]) -> bool:
    """Whether it names a part (a price, the symptoms) and not of what."""
    for at, word in enumerate(words):
        if word.text in english.PARTS and not word.name:
            end = at + 1
            while end < len(words) and words[end].text in english.PARTS:
                end += 1
            if not _tells(words, at - 1) and not _is_completed(words, end):
                return True
    return False


def _asks(words: list[Word]) -> bool:
    """Whether it is a whole question or order that says enough."""
    texts = [word.text for word in words]
    first, second = _opening(words)
    if first in english.ORDERS or first in english.LISTING:
        whole = True
    elif first in english.ASKING:
        whole = not (english.AUXILIARY | {"to"}).isdisjoint(texts)
    else:
        whole = first in english.AUXILIARY and f"{first} {second}" not in english.REQUESTS
    says = sum(word.tells + word.name for word in words)
    return whole and says >= _needed(words) + _vagueness(words)


def _needed(words: list[Word]) -> int:
    """How much has to be said at least: for a definition the least, for a list more; a name counts twice."""
    first, second = _opening(words)
    if first in english.LISTING:
        if second in {"is", "was"}:
            return 1
        return 3 if any(word.name for word in words) else 4
    if first in english.ASKING:
        mine = first == "how" and (second == "to" or any(word.text == "i" for word in words[:3]))
        return 2 if mine else 3
    return 4


def _vagueness(words: list[Word]) -> int:
    """How much more has to be said where it asks for a part or a quality of something."""
    lists = words[0].text in english.LISTING
    vague = english.OPEN | english.QUALITIES if lists else english.OPEN
    parts = (at for at, word in enumerate(words) if word.text in english.PARTS and not _tells(words, at - 1))
    at = next(parts, None)
    if at is None:
        return 0 if vague.isdisjoint(word.text for word in words) else VAGUE
    if _between(words):
        return 0
    return VAGUE - any(word.name for word in words[at:])


def _between(words: list[Word]) -> bool:
    """Whether it says both sides: "… between inflation and unemployment"."""
    at = next((at for at, word in enumerate(words) if word.text == "between"), len(words))
    joint = next((to for to in range(at, len(words)) if words[to].text == "and"), len(words))
    return any(word.tells for word in words[at:joint]) and any(word.tells for word in words[joint:])
