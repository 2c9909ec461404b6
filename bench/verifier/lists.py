"""WordNet's opposites and places for the guards: `python -m bench.verifier.lists` writes the shipped lists.

Opposites: pairs of single words, both used in WordNet's tagged texts, in their two most frequent meanings.
Places: the names of each, without those that are another word in lower case.
"""

from collections.abc import Iterable
from pathlib import Path

from bench.verifier.wordnet import FILES, WordNet

FOLDER = Path(__file__).parents[2] / "service" / "cache" / "wording"
NOTICE = "# From WordNet 3.0 by bench/verifier/lists.py. NOTICE beside this file has the licence.\n"
LEAST = 2
"""How often an opposite stands in the tagged texts."""

LOCATION = 15
"""The number of WordNet's file of places."""

LOOSE = frozenset(
    {"run", "go", "come", "man", "here", "there", "now", "then", "think", "get", "take", "work"}
)
"""Words whose opposites often say the same in questions."""


def opposites(net: WordNet) -> list[tuple[str, ...]]:
    """(word, opposite), each once."""
    found = {}
    for lemma, pos in net.senses:
        for other in net.antonyms(lemma, pos):
            both = (lemma, other.lower())
            if all(word.isalpha() and len(word) > 1 and word not in LOOSE for word in both):
                counts = [net.counts.get((word, pos), 0) for word in both]
                if min(counts) >= LEAST:
                    found[frozenset(both)] = both if counts[0] >= counts[1] else both[::-1]
    return sorted(found.values())


def places(net: WordNet) -> list[tuple[str, ...]]:
    """The names of each place, in lower case, words parted by spaces."""
    found = []
    for synset in net.synsets.values():
        names = [word for word in synset.words if word[0].isupper()]
        if synset.lex == LOCATION and names:
            known = {
                name.replace("_", " ").replace(".", "").lower() for name in names if not common(net, name)
            }
            if known:
                found.append(tuple(sorted(known)))
    return sorted(set(found))


PLACES = frozenset({"japan", "manila", "turkey"})
"""Names that are rarely the ordinary word of the same letters."""

GOODS = frozenset({"java", "bikini", "cheddar", "sombrero", "tabasco", "tamale", "scorpio"})
"""Names that rarely are the place."""


def common(net: WordNet, name: str) -> bool:
    """Whether a name is first of all an ordinary word, or too short to know."""
    lemma = name.lower()
    if lemma in PLACES:
        return False
    other = lemma in GOODS or any((lemma, pos) in net.senses for pos in FILES if pos != "n")
    first = net.synsets[net.senses[lemma, "n"][0]]
    ordinary = other or not any(word.lower() == lemma and word != lemma for word in first.words)
    return ordinary or len(lemma.replace(".", "")) < 4


def write(name: str, lines: Iterable[tuple[str, ...]]) -> None:
    text = [f"{chr(9).join(line)}\n" for line in lines]
    (FOLDER / name).write_text(NOTICE + "".join(text), encoding="utf-8")
    print(f"{name}: {len(text)} lines")


if __name__ == "__main__":
    wordnet = WordNet()
    write("opposites.tsv", opposites(wordnet))
    write("places.tsv", places(wordnet))
