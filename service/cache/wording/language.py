"""Whether a text is likely not English, the only language that the shipped verifier has learned."""

import re
import unicodedata

WORD = re.compile(r"[^\W\d_]+")

ENGLISH_WORDS = """
    the a an of is are was were do does did can could will would should how what where when why who
    which my your i you it we they he she to for and or not with from by at this that be have has get
    there if me our in on please find show tell give any all
"""
# Spanish, Portuguese, Italian, French, German, Dutch, Scandinavian, Polish, Turkish, Indonesian, Vietnamese,
# Romanian, Finnish; no articles that are parts of names (Los Angeles, La Paz, Des Moines).
FOREIGN_WORDS = """
    una para por como cómo qué que está puedo dónde cuándo cuál cuánto cuántos cuántas mis mío del
    quiero tengo uma não meu minha posso onde quando qual você são estão quanto che non sono mio mia
    dove quale quanti della delle degli nella perché come une est je nous vous pour avec dans pas
    comment quel quelle où mon mes et qui quand pourquoi combien puis und ist nicht ich wie kann ein
    eine einen mit für auf mein meine wo wann warum sind kein keine wird het een hoe niet voor mijn waar
    wanneer welke zijn och är inte jag hur att för vad og ikke jeg hvordan hvad hvor nie jak jest się
    moje gdzie kiedy můj kde bir için değil nerede yang apa bagaimana saya tidak untuk cách không
    là của tôi như thế cum este și unde miten mikä minun ovat
"""
ENGLISH, FOREIGN = frozenset(ENGLISH_WORDS.split()), frozenset(FOREIGN_WORDS.split())
STRANGE = 0.2
"""The share of letters of another script from which on a text isn't English."""


def foreign(text: str) -> bool:
    """By its little words and its letters; short texts without any pass."""
    if "¿" in text or "¡" in text:
        return True
    words = [word.casefold() for word in WORD.findall(unicodedata.normalize("NFC", text))]
    letters = [letter for word in words for letter in word if not letter.isascii()]
    strange = sum("LATIN" not in unicodedata.name(letter, "") for letter in letters)
    if strange > STRANGE * sum(map(len, words)):
        return True
    others = [word for word in words if word in FOREIGN]
    own = sum(word in ENGLISH for word in words)
    return len(others) > max(1, own) or (own == 0 and any(not word.isascii() for word in others))
